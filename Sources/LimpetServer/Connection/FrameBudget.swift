import NIOCore

/// What a client may send that costs the server work and the client next to nothing.
///
/// A client that works gets back what it has spent: acknowledging each of many small DATA frames is no attack.
struct FrameBudget {
    /// Frames without progress that a request gives back: a client may send its priority, its windows and its trailers.
    private static let framesOfRequest = 8
    /// Those that a DATA frame which was sent gives back: WINDOW_UPDATE for its stream and for the connection.
    private static let framesOfData = 2

    private var answers: TokenBucket
    private var idleFrames: TokenBucket
    private var resets: TokenBucket
    private var provokedResets: TokenBucket

    init(limits: ServerLimits) {
        answers = TokenBucket(limits.answers)
        idleFrames = TokenBucket(limits.idleFrames)
        resets = TokenBucket(limits.resets)
        provokedResets = TokenBucket(limits.provokedResets)
    }

    /// A request has begun.
    mutating func requested() { idleFrames.giveBack(Self.framesOfRequest) }

    /// DATA frames were sent that the client had room for.
    mutating func sentData(frames: Int) {
        idleFrames.giveBack(frames * Self.framesOfData)
        answers.giveBack(frames)
    }

    /// A DATA frame with content has come. Clients measure the connection with a PING now and then while data flows.
    mutating func receivedData() { answers.giveBack(1) }

    /// Responses were sent whole: a client that gets work done, for many users perhaps, may let some of it go.
    mutating func answered(_ count: Int) {
        resets.giveBack(count)
        provokedResets.giveBack(count)
    }

    /// The client has reset a stream that had been open for a while: it was not opened to be reset.
    mutating func gaveUp() { resets.giveBack(1) }

    /// A frame has come.
    ///
    /// - Returns: the limit that it passes.
    mutating func spend(_ cost: Cost, at now: NIODeadline) -> ServerLimit? {
        switch cost {
        case .answer: answers.take(at: now) ? nil : .answers
        case .noProgress: idleFrames.take(at: now) ? nil : .idleFrames
        case .reset: resets.take(at: now) ? nil : .resets
        }
    }

    enum Cost {
        /// The frame has to be answered.
        case answer
        /// The frame brings neither a request nor content, and opens no window worth it.
        case noProgress
        /// The frame undoes what an earlier one has begun.
        case reset
    }

    /// Streams were reset because of what the client sent.
    ///
    /// - Returns: the limit that they pass.
    mutating func provoked(resets count: Int, at now: NIODeadline) -> ServerLimit? {
        provokedResets.take(count, at: now) ? nil : .provokedResets
    }
}
