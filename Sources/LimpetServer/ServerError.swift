/// What went wrong in the server. The description is one line, and names neither a client nor its data.
public struct ServerError: Error, Sendable, Hashable, CustomStringConvertible {
    /// The kind of a failure. New ones may be added: keep a `default` where you switch.
    public struct Code: Sendable, Hashable {
        private let kind: Kind

        private enum Kind {
            case addressInUse, permissionDenied, addressUnavailable, cannotListen, unusableCertificate, bodyTooLarge,
                bodyTooSlow, bodyLengthDiffers
        }

        /// Another process listens on the address.
        public static let addressInUse = Code(kind: .addressInUse)
        /// This process may not listen on the address: ports below 1024 need a privilege.
        public static let permissionDenied = Code(kind: .permissionDenied)
        /// The host is not one of this machine's addresses, or its name is not known.
        public static let addressUnavailable = Code(kind: .addressUnavailable)
        /// The address cannot be listened on for another reason.
        public static let cannotListen = Code(kind: .cannotListen)
        /// The certificate or its key cannot be read, or they do not belong together.
        public static let unusableCertificate = Code(kind: .unusableCertificate)
        /// A request's body has more bytes than its handler accepts.
        public static let bodyTooLarge = Code(kind: .bodyTooLarge)
        /// The client sends a request's body too slowly, or not at all.
        public static let bodyTooSlow = Code(kind: .bodyTooSlow)
        /// A response's body has more or fewer bytes than were told.
        public static let bodyLengthDiffers = Code(kind: .bodyLengthDiffers)
    }

    /// The kind of the failure.
    public let code: Code
    /// What went wrong, in one line.
    public let message: String

    /// Makes an error.
    public init(_ code: Code, _ message: String) {
        self.code = code
        self.message = message
    }

    /// The message.
    public var description: String { message }

    static func bodyTooLarge(_ limit: Int) -> ServerError {
        ServerError(.bodyTooLarge, "the request's body has more than \(limit) bytes")
    }
}
