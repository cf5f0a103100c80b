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

    private let limits: ServerLimits
    private let opened: NIODeadline
    private let maxAge: TimeAmount
    private var idleSince: NIODeadline
    private var output = TransferPace()
    /// Since when nothing is left to be sent on a connection that the server has ended.
    private var endedSince: NIODeadline?

    /// - Parameter spread: from 0 to 1, another for each connection: see
    ///   ``HTTP2ServerConfiguration/maxConnectionAgeSeconds``.
    init(limits: ServerLimits, opened: NIODeadline, spread: Double) {
        self.limits = limits
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
                moved: bytesTaken, at: now, interval: limits.writeTimeout, rate: limits.minBytesPerSecond)
        }
        let since = endedSince ?? now
        endedSince = since
        return now - since > limits.lingerTimeout
    }

    mutating func check(_ moment: Moment) -> Verdict {
        if !moment.isGreeted { return moment.now - opened > limits.prefaceTimeout ? .end(.prefaceTime) : .fine }
        if let began = moment.headerListBegan, moment.now - began > limits.headerTimeout { return .end(.headerTime) }
        if moment.isHeldBack, limits.minBytesPerSecond > 0 {
            let isTooSlow = output.isTooSlow(
                moved: moment.bytesTaken, at: moment.now, interval: limits.writeTimeout,
                rate: limits.minBytesPerSecond)
            if isTooSlow { return .end(.writeRate) }
        } else {
            output.pause()
        }
        if moment.isBusy {
            idleSince = moment.now
        } else if moment.now - idleSince > limits.idleTimeout {
            return .drain(.idleTime)
        }
        if limits.maxConnectionAge > .zero, moment.now - opened > maxAge { return .drain(.connectionAge) }
        return .fine
    }
}
