import NIOCore

/// What a client speaks, told by the first bytes that it sends.
enum ClientPreface: Equatable {
    /// HTTP/2 with prior knowledge (RFC 9113, section 3.4).
    case complete
    /// So far it may be HTTP/2.
    case incomplete
    /// An HTTP/1 request line.
    case http1(isHead: Bool)
    /// Neither; a TLS handshake, for instance.
    case other

    /// Bytes of HTTP/2's.
    static let length = bytes.count

    private static let bytes = Array("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".utf8)

    init(_ received: ByteBufferView) {
        let differs = zip(received, Self.bytes).contains { $0 != $1 }
        if !differs {
            self = received.count >= Self.bytes.count ? .complete : .incomplete
        } else if let first = received.first, (UInt8(ascii: "A")...UInt8(ascii: "Z")).contains(first) {
            self = .http1(isHead: received.starts(with: "HEAD ".utf8))
        } else {
            self = .other
        }
    }

    /// How a client comes to speak HTTP/2.
    enum Advice: String {
        /// Without TLS.
        case priorKnowledge = "with prior knowledge: try curl --http2-prior-knowledge"
        /// Over TLS.
        case negotiate = "negotiated as h2 in ALPN: try curl --http2"
    }

    /// 505 says what is wrong (RFC 9110, section 15.6.6): this major version of HTTP is not spoken here.
    static func http1Answer(isAnswerToHead: Bool, advice: Advice) -> ByteBuffer {
        let text = "This server speaks HTTP/2 only, \(advice.rawValue).\n"
        let head = """
            HTTP/1.1 505 HTTP Version Not Supported\r
            content-type: text/plain; charset=utf-8\r
            content-length: \(text.utf8.count)\r
            connection: close\r
            \r

            """
        return ByteBuffer(string: isAnswerToHead ? head : head + text)
    }
}
