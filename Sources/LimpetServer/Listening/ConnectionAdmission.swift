import NIOCore

/// How many connections there may be.
struct ConnectionAdmission: Sendable {
    enum Answer: Sendable, Equatable {
        case admitted
        /// Close it.
        case refused
        /// Close it, and tell the operator.
        case refusedWithWarning
    }

    /// A flood is told once a minute, not once a connection.
    private static let warningInterval = TimeAmount.minutes(1)

    /// The most connections at a time.
    let limit: Int
    /// Connections that are open.
    private(set) var open = 0
    private var nextWarning = NIODeadline.uptimeNanoseconds(0)

    init(limit: Int) {
        self.limit = limit
    }

    /// A connection was accepted.
    mutating func admit(now: NIODeadline) -> Answer {
        guard open >= limit else {
            open += 1
            return .admitted
        }
        guard now >= nextWarning else { return .refused }
        nextWarning = now + Self.warningInterval
        return .refusedWithWarning
    }

    /// An admitted connection was closed.
    mutating func leave() {
        open -= 1
    }
}
