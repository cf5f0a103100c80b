public import HTTPTypes
public import Logging

/// A request as a handler sees it.
public struct ServerRequest: Sendable {
    /// A request is handed on from function to function: as one reference, and not as the eight that it has.
    private final class Content: Sendable {
        let head: HTTPRequest
        let body: RequestBody
        let number: UInt64
        let serverLogger: Logger

        init(head: HTTPRequest, body: RequestBody, number: UInt64, serverLogger: Logger) {
            self.head = head
            self.body = body
            self.number = number
            self.serverLogger = serverLogger
        }
    }

    private let content: Content

    /// Makes a request, for the tests of a handler.
    public init(
        head: HTTPRequest, body: RequestBody = RequestBody(), logger: Logger = Logger(label: "limpet.request")
    ) {
        self.init(head: head, body: body, number: 0, logger: logger)
    }

    init(head: HTTPRequest, body: RequestBody, number: UInt64, logger: Logger) {
        content = Content(head: head, body: body, number: number, serverLogger: logger)
    }

    /// The method, the scheme, the authority, the path with its query, and the header fields.
    public var head: HTTPRequest { content.head }

    /// The content of the request, as it comes; empty if there is none.
    public var body: RequestBody { content.body }

    /// What the request is called in logs: `x-request-id` or `request-id` as the client or a balancer sent it, if it has no more than
    /// 80 characters, letters, digits and `-_.:+/=` only; else a number of its own.
    public var id: String { RequestID(fields, number: content.number).text }

    /// The server's logger, with the metadata `request-id`.
    public var logger: Logger {
        var logger = content.serverLogger
        logger[metadataKey: "request-id"] = "\(id)"
        return logger
    }

    /// The request method.
    public var method: HTTPRequest.Method { head.method }

    /// The header fields. Several `cookie` fields stay apart in `fields[values: .cookie]` and are joined with `; ` in
    /// `fields[.cookie]`.
    public var fields: HTTPFields { head.headerFields }

    /// The path without the query, as it was sent: percent-encoding is not undone.
    public var path: String {
        guard let target = head.path else { return "" }
        guard let mark = target.utf8.firstIndex(of: UInt8(ascii: "?")) else { return target }
        return String(target[..<mark])
    }

    /// The first query parameter of this name, percent-decoded, with `+` read as a space; `nil` if there is none.
    ///
    /// A parameter without `=` is an empty text. A `%` that does not stand before two hexadecimal digits stays as it is.
    public func query(_ name: String) -> String? {
        guard let target = head.path?.utf8, let mark = target.firstIndex(of: UInt8(ascii: "?")) else { return nil }
        for parameter in target[target.index(after: mark)...].split(separator: UInt8(ascii: "&")) {
            let parts = parameter.split(separator: UInt8(ascii: "="), maxSplits: 1, omittingEmptySubsequences: false)
            if percentDecoded(parts[0]) == name { return parts.count == 2 ? percentDecoded(parts[1]) : "" }
        }
        return nil
    }
}

/// Undoes the encoding of a query as HTML forms write it (WHATWG URL Standard, application/x-www-form-urlencoded).
private func percentDecoded(_ encoded: Substring.UTF8View) -> String {
    var decoded: [UInt8] = []
    decoded.reserveCapacity(encoded.count)
    var index = encoded.startIndex
    while index < encoded.endIndex {
        let byte = encoded[index]
        encoded.formIndex(after: &index)
        switch byte {
        case UInt8(ascii: "+"):
            decoded.append(UInt8(ascii: " "))
        case UInt8(ascii: "%"):
            let digits = encoded[index...].prefix(2)
            if digits.count == 2, let high = digits.first?.hexadecimal, let low = digits.last?.hexadecimal {
                decoded.append(high << 4 | low)
                encoded.formIndex(&index, offsetBy: 2)
            } else {
                decoded.append(byte)
            }
        default:
            decoded.append(byte)
        }
    }
    return String(decoding: decoded, as: UTF8.self)
}

extension UInt8 {
    /// The value of a hexadecimal digit in ASCII.
    fileprivate var hexadecimal: UInt8? {
        switch self {
        case UInt8(ascii: "0")...UInt8(ascii: "9"): self - UInt8(ascii: "0")
        case UInt8(ascii: "a")...UInt8(ascii: "f"): self - UInt8(ascii: "a") + 10
        case UInt8(ascii: "A")...UInt8(ascii: "F"): self - UInt8(ascii: "A") + 10
        default: nil
        }
    }
}
