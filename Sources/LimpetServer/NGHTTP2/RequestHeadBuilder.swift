import HTTPTypes

/// Collects the header fields of the one header list that a connection can be receiving, and checks what the library
/// leaves open: it refuses illegal characters, pseudo-header fields that are missing, twice or out of place, and the
/// fields of an HTTP/1 connection; it does not know what an authority is.
///
/// What a request repeats of the one before on its connection is not parsed and stored again, but shared with it.
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
    /// The list that is being received, and the one before with the request that it became.
    private var current = HeaderList()
    private var last = HeaderList()
    private var lastHead: HTTPRequest?
    private var lastPseudoFields = 0
    /// Where the next field of the last list begins.
    private var lastPosition = 0
    /// The pseudo-header fields so far, and whether all are repeated.
    private var pseudoFields = 0
    private var repeatsPseudoFields = true
    /// The other fields so far, as long as all are repeated: none is in `fields` yet.
    private var repeatedFields: Int?
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
        current.removeAll()
        lastPosition = 0
        pseudoFields = 0
        repeatsPseudoFields = true
        repeatedFields = lastHead == nil || isTrailers ? nil : 0
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
            repeatedFields = nil
            keepsFields = false
        }
        let isRepeated = isRepeated(name, value, isNeverIndexed: isNeverIndexed)
        if name.first == UInt8(ascii: ":") {
            pseudoFields += 1
            if isRepeated, let lastHead {
                repeatPseudoField(name, of: lastHead)
                return .proceed
            }
            repeatsPseudoFields = false
            return addPseudoField(name, value)
        }
        guard keepsFields else { return .proceed }
        let isHost = name.count == 4 && name.elementsEqual("host".utf8)
        if let count = repeatedFields {
            // Whether `host` fits the authority has to be seen again.
            if isRepeated, !isHost, pseudoFields == lastPseudoFields {
                repeatedFields = count + 1
                return .proceed
            }
            takeRepeatedFields()
        }
        if isHost, !isHostValid(value) { return .malformed }
        if isRepeated, let lastHead {
            fields.append(lastHead.headerFields[fieldCount - 1 - lastPseudoFields])
            return .proceed
        }
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

    // MARK: What the last list had as well

    /// Whether the last list had the same field in the same place.
    private mutating func isRepeated(
        _ name: UnsafeBufferPointer<UInt8>, _ value: UnsafeBufferPointer<UInt8>, isNeverIndexed: Bool
    ) -> Bool {
        guard !isTrailers, keepsFields else { return false }
        if byteCount <= Self.maxKeptBytes { current.append(name, value, isNeverIndexed: isNeverIndexed) }
        return last.repeats(name, value, isNeverIndexed: isNeverIndexed, at: fieldCount - 1, &lastPosition)
    }

    private mutating func repeatPseudoField(_ name: UnsafeBufferPointer<UInt8>, of head: HTTPRequest) {
        switch name[1] {
        case UInt8(ascii: "m"): method = head.method
        case UInt8(ascii: "s"): scheme = head.scheme
        case UInt8(ascii: "a"): authority = head.authority
        default: path = head.path
        }
    }

    /// The list does not go on like the last one: from here on fields are collected.
    private mutating func takeRepeatedFields() {
        guard let count = repeatedFields else { return }
        repeatedFields = nil
        if count > 0, let lastHead { fields = HTTPFields(lastHead.headerFields.prefix(count)) }
    }

    /// - Returns: the last head itself if it is repeated whole.
    private mutating func head(_ method: HTTPRequest.Method) -> HTTPRequest {
        if let lastHead, repeatedFields == lastHead.headerFields.count {
            if repeatsPseudoFields, fieldCount == last.count { return lastHead }
            fields = lastHead.headerFields
        } else {
            takeRepeatedFields()
        }
        return HTTPRequest(
            method: method, scheme: scheme, authority: authority, path: path, headerFields: fields)
    }

    /// The next list is held against this one.
    private mutating func keep(_ head: HTTPRequest) {
        guard keepsFields, current.count == fieldCount else { return }
        swap(&current, &last)
        lastHead = head
        lastPseudoFields = pseudoFields
    }

    /// Lists up to this size are kept for the next one: idle connections cost no more.
    private static let maxKeptBytes = 2048

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
        let head = head(method)
        keep(head)
        return head
    }

    /// The list is complete: the fields behind a body.
    func finishTrailers() -> HTTPFields { fields }
}
