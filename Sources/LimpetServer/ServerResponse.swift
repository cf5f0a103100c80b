public import HTTPTypes

/// What a handler answers.
///
/// The server adds `date` and `content-length`, leaves out the content where the method or the status forbids it
/// (`HEAD`, 204, 205, 304), and drops the fields that HTTP/2 forbids (RFC 9113, section 8.2.2).
public struct ServerResponse: Sendable {
    /// The status: 200 or above. A handler that answers with a lower one has failed, and the client gets 500.
    public var status: HTTPResponse.Status
    /// The header fields.
    public var fields: HTTPFields
    /// The content.
    public var body: ResponseBody
    /// The fields behind the content (RFC 9110, section 6.5); empty: none. A body that is written can set them at its end:
    /// see ``ResponseWriter/setTrailers(_:)``.
    public var trailers: HTTPFields = [:]

    /// Makes a response, without content if none is given.
    public init(status: HTTPResponse.Status, fields: HTTPFields = [:], body: ResponseBody = ResponseBody()) {
        self.status = status
        self.fields = fields
        self.body = body
    }

    /// Whether all that there is to send is here.
    var isWhole: Bool {
        if case .bytes = body.content { trailers.isEmpty } else { false }
    }

    // Shared by all responses until they are changed.
    private static let textFields: HTTPFields = [.contentType: "text/plain; charset=utf-8"]
    private static let jsonFields: HTTPFields = [.contentType: "application/json"]

    /// A response of plain text in UTF-8.
    public static func text(_ text: String, status: HTTPResponse.Status = .ok) -> ServerResponse {
        ServerResponse(status: status, fields: textFields, body: ResponseBody(text))
    }

    /// A response of JSON, given as text.
    public static func json(_ text: String, status: HTTPResponse.Status = .ok) -> ServerResponse {
        ServerResponse(status: status, fields: jsonFields, body: ResponseBody(text))
    }

    /// A response of JSON, given as UTF-8.
    public static func json(_ bytes: [UInt8], status: HTTPResponse.Status = .ok) -> ServerResponse {
        ServerResponse(status: status, fields: jsonFields, body: ResponseBody(bytes))
    }
}
