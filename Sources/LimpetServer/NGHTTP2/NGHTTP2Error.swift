/// An error of the library. Its description names no data of the client.
struct NGHTTP2Error: Error, CustomStringConvertible {
    /// One of `nghttp2_error`.
    let code: Int32
    let message: String

    var description: String { message }

    /// What the client is told.
    var http2Code: HTTP2ErrorCode {
        switch code {
        case -903: .protocolError  // NGHTTP2_ERR_BAD_CLIENT_MAGIC
        case -904, -905: .enhanceYourCalm  // NGHTTP2_ERR_FLOODED, NGHTTP2_ERR_TOO_MANY_CONTINUATIONS
        default: .internalError
        }
    }
}
