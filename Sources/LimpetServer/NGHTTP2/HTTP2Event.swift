import HTTPTypes
import NIOCore

/// What a client's bytes meant.
enum HTTP2Event {
    /// A request; `isComplete`: without a body.
    case request(StreamID, HTTPRequest, isComplete: Bool)
    /// A request whose header list is over the limit, and was not kept.
    case oversizedRequest(StreamID, HTTPRequest)
    /// A piece of a request's body. It shares the storage of the bytes that were received.
    case body(StreamID, ByteBuffer)
    /// The end of a request with a body, with the fields that followed it.
    case endOfRequest(StreamID, trailers: HTTPFields?)
    /// The stream has ended, or was reset by either side.
    case closed(StreamID)
    /// The header fields of a response are too large to be sent: it was dropped.
    case unsentHead(StreamID)
    /// The client has answered a PING.
    case pingAnswered
}

/// An error code of RFC 9113, section 7.
enum HTTP2ErrorCode: UInt32 {
    case noError = 0x0
    case protocolError = 0x1
    case internalError = 0x2
    case flowControlError = 0x3
    case frameSizeError = 0x6
    case refusedStream = 0x7
    case cancel = 0x8
    case enhanceYourCalm = 0xb
}

/// The type of a frame (RFC 9113, section 6).
enum FrameKind: UInt8 {
    case data = 0x0
    case headers = 0x1
    case priority = 0x2
    case resetStream = 0x3
    case settings = 0x4
    case pushPromise = 0x5
    case ping = 0x6
    case goAway = 0x7
    case windowUpdate = 0x8
    case continuation = 0x9
}

/// The first nine bytes of a frame (RFC 9113, section 4.1).
struct FrameHeader {
    /// `nil` for a type that RFC 9113 does not define.
    let kind: FrameKind?
    let flags: UInt8
    let stream: StreamID
    /// The length of the payload, in bytes.
    let length: Int

    /// PADDED of DATA and HEADERS.
    var isPadded: Bool { flags & 0x8 != 0 }
    /// END_HEADERS of HEADERS and CONTINUATION.
    var endsHeaders: Bool { flags & 0x4 != 0 }
    /// END_STREAM of DATA and HEADERS.
    var endsStream: Bool { flags & 0x1 != 0 }
    /// ACK of SETTINGS and PING.
    var isAcknowledgement: Bool { flags & 0x1 != 0 }
}
