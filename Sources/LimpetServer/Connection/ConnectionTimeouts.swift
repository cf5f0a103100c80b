import NIOCore

/// What a connection has done in time, and what not: looked at once a tick.
struct ConnectionTimeouts: ~Copyable {
    /// What the connection is at, when it is looked at.
    struct Moment {
        var now: NIODeadline
        /// The client has sent its preface and SETTINGS.
        var isGreeted: Bool
        /// When the header list that is being received began.
        var headerListBegan: NIODeadline?
        /// Requests are under way, or were since the last look.
        var isBusy: Bool
        /// The client has to read, or to open the connection's window, before more can be sent.
        var isHeldBack: Bool
        /// Bytes that the client's side has taken so far.
        var bytesTaken: Int
    }

    enum Verdict: Equatable {
        case fine
        /// The client has nothing to complain about: finish its requests, and close.
        case drain(ServerLimit)
        /// The client is to blame.
        case end(ServerLimit)
    }

    // Those of the limits that are needed here: every connection keeps a copy.
    private let prefaceTimeout: TimeAmount
    private let headerTimeout: TimeAmount
    private let idleTimeout: TimeAmount
    private let lingerTimeout: TimeAmount
    private let writeTimeout: TimeAmount
    private let minBytesPerSecond: Int
    private let opened: NIODeadline
    private let maxAge: TimeAmount
    private var idleSince: NIODeadline
    private var output = TransferPace()
    /// Since when nothing is left to be sent on a connection that the server has ended.
    private var endedSince: NIODeadline?

    /// - Parameter spread: from 0 to 1, another for each connection: see
    ///   ``HTTP2ServerConfiguration/maxConnectionAgeSeconds``.
    init(limits: ServerLimits, opened: NIODeadline, spread: Double) {
        prefaceTimeout = limits.prefaceTimeout
        headerTimeout = limits.headerTimeout
        idleTimeout = limits.idleTimeout
        lingerTimeout = limits.lingerTimeout
        writeTimeout = limits.writeTimeout
        minBytesPerSecond = limits.minBytesPerSecond
        self.opened = opened
        idleSince = opened
        maxAge = .nanoseconds(
            limits.maxConnectionAge.nanoseconds - Int64(Double(limits.maxConnectionAge.nanoseconds) * spread / 10))
    }

    /// The server has ended the connection: whether the client has been given all the time it gets to read the rest and close.
    mutating func isOver(bytesLeft: Int, bytesTaken: Int, at now: NIODeadline) -> Bool {
        if bytesLeft > 0 {
            endedSince = now
            return output.isTooSlow(
                moved: bytesTaken, at: now, interval: writeTimeout, rate: minBytesPerSecond)
        }
        let since = endedSince ?? now
        endedSince = since
        return now - since > lingerTimeout
    }

    mutating func check(_ moment: Moment) -> Verdict {
        if !moment.isGreeted { return moment.now - opened > prefaceTimeout ? .end(.prefaceTime) : .fine }
        if let began = moment.headerListBegan, moment.now - began > headerTimeout { return .end(.headerTime) }
        if moment.isHeldBack, minBytesPerSecond > 0 {
            let isTooSlow = output.isTooSlow(
                moved: moment.bytesTaken, at: moment.now, interval: writeTimeout,
                rate: minBytesPerSecond)
            if isTooSlow { return .end(.writeRate) }
        } else {
            output.pause()
        }
        if moment.isBusy {
            idleSince = moment.now
        } else if moment.now - idleSince > idleTimeout {
            return .drain(.idleTime)
        }
        if maxAge > .zero, moment.now - opened > maxAge { return .drain(.connectionAge) }
        return .fine
    }
}
