public import HTTPTypes

/// A request could not have its session, or not keep what it did to it. The session is as it was before, except that after
/// ``Code/outcomeUnknown`` the changes may be there: the next request finds out.
public struct SessionError: Error, Sendable, CustomStringConvertible {
    /// What went wrong. New codes may be added: a `switch` needs a default.
    public struct Code: Sendable, Hashable, CustomStringConvertible {
        private enum Name: String {
            case lockTimeout, tooManyWaiting, storeUnavailable, outcomeUnknown, conflict, requestTooLong, tooLarge
            case notEncodable, writeNotAllowed, otherSessionEntered
        }

        private let name: Name

        /// The code's name.
        public var description: String { name.rawValue }

        /// Other requests held the session for longer than `lock.timeoutMilliseconds`.
        public static let lockTimeout = Self(name: .lockTimeout)
        /// As many requests as `lock.maxWaiters` allows wait for the session already.
        public static let tooManyWaiting = Self(name: .tooManyWaiting)
        /// The store could not be asked. It is never taken for "there is no session".
        public static let storeUnavailable = Self(name: .storeUnavailable)
        /// The store did not answer a write: it may have happened.
        public static let outcomeUnknown = Self(name: .outcomeUnknown)
        /// Other nodes changed the session again and again, or it moved while the request had it.
        public static let conflict = Self(name: .conflict)
        /// The request has had its session for longer than `session.maxRequestSeconds`: nothing of what it did is kept.
        public static let requestTooLong = Self(name: .requestTooLong)
        /// The session is larger than the store takes.
        public static let tooLarge = Self(name: .tooLarge)
        /// A value that the handler set cannot be encoded.
        public static let notEncodable = Self(name: .notEncodable)
        /// The handler wrote a session that its request may only read, or not even that: nothing of what it did is kept.
        public static let writeNotAllowed = Self(name: .writeNotAllowed)
        /// The handler asked for another session than the one that its request is in: two that did so could wait for each other.
        public static let otherSessionEntered = Self(name: .otherSessionEntered)
    }

    /// What went wrong.
    public let code: Code
    /// A sentence for the log. Holds no id.
    public let message: String
    /// What caused it, if something did.
    public let cause: (any Error)?

    init(_ code: Code, _ message: String, cause: (any Error)? = nil) {
        self.code = code
        self.message = message
        self.cause = cause
    }

    /// What a store's failure means for the request that met it.
    init(_ error: StoreError) {
        switch error.code {
        case .tooLarge:
            self.init(.tooLarge, "the session is larger than the store takes", cause: error)
        case _ where error.mayHaveTakenEffect:
            self.init(.outcomeUnknown, "the store did not answer a write", cause: error)
        default:
            self.init(.storeUnavailable, "the store cannot be asked for the session", cause: error)
        }
    }

    /// Code, message and cause.
    public var description: String { "\(code): \(message)" + (cause.map { " (\($0))" } ?? "") }

    /// The status to answer with: 503 for what may be tried again, 500 for what the application has to mend.
    public var status: HTTPResponse.Status {
        switch code {
        case .tooLarge, .notEncodable, .writeNotAllowed, .otherSessionEntered: .internalServerError
        default: .serviceUnavailable
        }
    }

    /// Seconds after which a client may try again, for `Retry-After` (RFC 9110, section 10.2.3); `nil` with status 500.
    public var retryAfterSeconds: Int? { status == .serviceUnavailable ? 1 : nil }
}
