/// The store failed as a machine. Absence, expiry and conflict are no errors: they are values of ``SharedStore``.
public struct StoreError: Error, Sendable, CustomStringConvertible {
    /// What went wrong. New codes may be added: a `switch` needs a default.
    public struct Code: Sendable, Hashable, CustomStringConvertible {
        private enum Name: String {
            case unavailable, timeout, connectionLost, tooLarge, invalidKey, corrupt, outOfMemory, closed
        }

        private let name: Name

        /// The code's name.
        public var description: String { name.rawValue }

        /// The server cannot be reached.
        public static let unavailable = Self(name: .unavailable)
        /// No answer in time (`store.timeoutMilliseconds`).
        public static let timeout = Self(name: .timeout)
        /// The connection ended before the answer came.
        public static let connectionLost = Self(name: .connectionLost)
        /// The value is larger than the store takes. The old value is kept.
        public static let tooLarge = Self(name: .tooLarge)
        /// The key is not one that a store takes (``StoreKey/isValid``), or names a server that is not there.
        public static let invalidKey = Self(name: .invalidKey)
        /// The server answered something that cannot be: not a number where a counter is, another key's value.
        public static let corrupt = Self(name: .corrupt)
        /// The server has no room for a new value (memcached with `-M`).
        public static let outOfMemory = Self(name: .outOfMemory)
        /// The store was shut down.
        public static let closed = Self(name: .closed)
    }

    /// What went wrong.
    public let code: Code
    /// A sentence for the log. Holds no key and no value.
    public let message: String
    /// Whether a write that failed may have happened all the same, or may still happen: it was sent, and nobody knows.
    public let mayHaveTakenEffect: Bool
    /// Whether the server was not asked, since it is known to be down.
    let wasRefused: Bool

    /// Makes an error: for stores.
    ///
    /// - Parameters:
    ///   - message: a sentence without any key, id or value.
    ///   - mayHaveTakenEffect: `false` only if the request surely never reached the server, or the server said no.
    public init(_ code: Code, _ message: String, mayHaveTakenEffect: Bool) {
        self.code = code
        self.message = message
        self.mayHaveTakenEffect = mayHaveTakenEffect
        wasRefused = false
    }

    private init(refusal message: String) {
        code = .unavailable
        self.message = message
        mayHaveTakenEffect = false
        wasRefused = true
    }

    /// The server's circuit breaker is open.
    static let refused = StoreError(refusal: "the server has not answered for a while and is not asked")

    /// Code and message.
    public var description: String { "\(code): \(message)" }
}
