import NIOCore

/// What a connection over TLS is before it is HTTP/2.
///
/// ```
///  handshaking ──h2──▶ over
///       │
///       │ another protocol, or none
///       ▼
///   refusing ──a request in HTTP/1, or anything else──▶ over
/// ```
///
/// HTTP/2 over TLS is spoken with clients that have negotiated it (RFC 9113, section 3.3), whatever they send. The others
/// are listened to until it is clear whether they would understand an answer.
struct TLSNegotiation: ~Copyable {
    /// HTTP/2 over TLS in ALPN (RFC 9113, section 3.1).
    static let http2 = "h2"

    private enum Phase {
        case handshaking
        case refusing(received: ByteBuffer)
        case over
    }

    enum Input {
        /// The connection is HTTP/2.
        case pass
        /// Too few bytes to tell what the client speaks.
        case wait
        /// Send the answer, if there is one that the client understands, and close.
        case refuse(ByteBuffer?)
        /// Nobody needs the bytes any more.
        case ignore
    }

    private var phase = Phase.handshaking
    private var isHTTP2 = false

    /// The handshake is complete.
    ///
    /// - Returns: whether HTTP/2 begins.
    mutating func completed(negotiated: String?) -> Bool {
        guard case .handshaking = phase else { return false }
        isHTTP2 = negotiated == Self.http2
        phase = isHTTP2 ? .over : .refusing(received: ByteBuffer())
        return isHTTP2
    }

    mutating func received(_ bytes: ByteBuffer) -> Input {
        switch phase {
        case .handshaking, .over:
            return isHTTP2 ? .pass : .ignore
        case .refusing(var received):
            received.writeImmutableBuffer(bytes)
            switch ClientPreface(received.readableBytesView) {
            case .incomplete:
                phase = .refusing(received: received)
                return .wait
            case .http1(let isHead):
                phase = .over
                return .refuse(ClientPreface.http1Answer(isAnswerToHead: isHead, advice: .negotiate))
            case .complete, .other:
                phase = .over
                return .refuse(nil)
            }
        }
    }

    /// - Returns: whether there was something to give up: close.
    mutating func giveUp() -> Bool {
        if case .over = phase { return false }
        phase = .over
        return true
    }
}
