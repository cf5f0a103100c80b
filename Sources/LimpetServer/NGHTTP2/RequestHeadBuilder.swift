import HTTPTypes

/// Collects the header fields of the one header list that a connection can be receiving, and checks what the library
/// leaves open: it refuses illegal characters, pseudo-header fields that are missing, twice or out of place, and the
/// fields of an HTTP/1 connection; it does not know what an authority is.
struct RequestHeadBuilder {
    enum Outcome {
        case proceed
        /// The field cannot be one of HTTP.
        case malformed
        /// The list is so large that not even its end is waited for.
        case excessive
    }

    private let maxBytes: Int
    private let maxFields: Int
    private let maxDecodedBytes: Int
    private var method: HTTPRequest.Method?
    private var scheme: String?
    private var authority: String?
    private var path: String?
    private var fields = HTTPFields()
    private var byteCount = 0
    private var fieldCount = 0
    private var keepsFields = true
    private var isTrailers = false

    init(limits: ServerLimits) {
        maxBytes = limits.maxHeaderListBytes
        maxFields = limits.maxHeaderFields
        maxDecodedBytes = limits.maxDecodedHeaderBytes
    }

    /// Whether the list is over the limit.
    var isOversized: Bool { byteCount > maxBytes || fieldCount > maxFields }

    /// A list begins: that of a request, or of its trailers.
    mutating func begin(isTrailers: Bool) {
        method = nil
        scheme = nil
        authority = nil
        path = nil
        fields = HTTPFields()
        byteCount = 0
        fieldCount = 0
        keepsFields = true
        self.isTrailers = isTrailers
    }

    /// - Parameters:
    ///   - name: in lower case, and valid: checked before.
    ///   - isNeverIndexed: the client asks for the field to enter no compression table.
    mutating func add(
        _ name: UnsafeBufferPointer<UInt8>, _ value: UnsafeBufferPointer<UInt8>, isNeverIndexed: Bool
    ) -> Outcome {
        // RFC 9113, section 6.5.2: each field counts 32 bytes more than its name and value.
        byteCount += name.count + value.count + 32
        fieldCount += 1
        // Too large a request is answered; where an answer is on its way already, there is only the reset.
        if byteCount > maxDecodedBytes || isTrailers && isOversized { return .excessive }
        if isOversized {
            fields = HTTPFields()
            keepsFields = false
        }
        if name.first == UInt8(ascii: ":") { return addPseudoField(name, value) }
        guard keepsFields else { return .proceed }
        if name.count == 4, name.elementsEqual("host".utf8), !isHostValid(value) { return .malformed }
        guard let name = HTTPField.Name(parsed: String(decoding: name, as: UTF8.self)) else { return .malformed }
        // As text where it is one, which costs less than half; a value may have any bytes above 0x7f.
        var field =
            if let text = String(validating: value, as: UTF8.self) {
                HTTPField(name: name, value: text)
            } else {
                HTTPField(name: name, value: value)
            }
        if isNeverIndexed { field.indexingStrategy = .disallow }
        fields.append(field)
        return .proceed
    }

    private mutating func addPseudoField(
        _ name: UnsafeBufferPointer<UInt8>, _ value: UnsafeBufferPointer<UInt8>
    ) -> Outcome {
        let text = String(decoding: value, as: UTF8.self)
        // The four that RFC 9113, section 8.3.1, defines differ in length or first letter; others were refused before.
        switch name[1] {
        case UInt8(ascii: "m"):
            method = HTTPRequest.Method(text)
            return method == nil ? .malformed : .proceed
        case UInt8(ascii: "s"): scheme = text
        case UInt8(ascii: "a"):
            guard Authority(value) != nil else { return .malformed }
            authority = text
        default:
            // A fragment is no part of it (RFC 9113, section 8.3.1, by the grammar of RFC 3986, section 3.3).
            guard value.first == UInt8(ascii: "/") || text == "*", !value.contains(UInt8(ascii: "#")) else {
                return .malformed
            }
            path = text
        }
        return .proceed
    }

    /// RFC 9113, section 8.3.1: `host` must name what `:authority` names, if that is there. Pseudo-header fields come
    /// before all others.
    private func isHostValid(_ value: UnsafeBufferPointer<UInt8>) -> Bool {
        guard Authority(value) != nil else { return false }
        guard let authority else { return true }
        return Authority.areEqual(authority, String(decoding: value, as: UTF8.self), scheme: scheme)
    }

    /// The list is complete.
    ///
    /// - Returns: the request's head; `nil` if it is malformed.
    mutating func finish() -> HTTPRequest? {
        guard let method else { return nil }
        if let path {
            // Whatever the scheme: only OPTIONS asks for a whole server.
            guard path != "*" || method == .options else { return nil }
        } else {
            // CONNECT, as the library has checked: to a host and a port (RFC 9113, section 8.5).
            guard let authority, let port = Authority(Array(authority.utf8))?.port, port > 0 else { return nil }
        }
        return HTTPRequest(
            method: method, scheme: scheme, authority: authority, path: path, headerFields: fields)
    }

    /// The list is complete: the fields behind a body.
    func finishTrailers() -> HTTPFields { fields }
}
