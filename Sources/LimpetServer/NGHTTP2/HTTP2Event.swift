import HTTPTypes
import NIOCore

/// What a client's bytes meant.
enum HTTP2Event {
    /// A request; `isComplete`: without a body.
    case request(StreamID, HTTPRequest, isComplete: Bool)
    /// A request whose header list is over the limit, and was not kept.
    case oversizedRequest(StreamID, HTTPRequest.Method, isComplete: Bool)
    /// A piece of a request's body. It shares the storage of the bytes that were received.
    case body(StreamID, ByteBuffer)
    /// The end of a request with a body.
    case endOfRequest(StreamID)
    /// The stream has ended, or was reset by either side.
    case closed(StreamID)
    /// The client has answered a PING.
    case pingAnswered
}

/// An error code of RFC 9113, section 7.
enum HTTP2ErrorCode: UInt32 {
    case noError = 0x0
    case protocolError = 0x1
    case internalError = 0x2
    case refusedStream = 0x7
    case enhanceYourCalm = 0xb
}
