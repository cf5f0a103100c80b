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
    /// All fields so far are those with which the last list begins: none is in `current` yet.
    private var sharesBeginning = false
    /// The pseudo-header fields so far.
    private var pseudoFields = 0
    /// All of them are those of the last list: none is taken from its head yet.
    private var repeatsPseudoFields = false
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
        let canRepeat = lastHead != nil && !isTrailers
        if !repeatsPseudoFields || repeatedFields == nil {
            clearPseudoFields()
            fields = HTTPFields()
        }
        if !canRepeat { current.removeAll() }
        lastPosition = 0
        sharesBeginning = canRepeat
        pseudoFields = 0
        repeatsPseudoFields = canRepeat
        repeatedFields = canRepeat ? 0 : nil
        byteCount = 0
        fieldCount = 0
        keepsFields = true
        self.isTrailers = isTrailers
    }

    private mutating func clearPseudoFields() {
        method = nil
        scheme = nil
        authority = nil
        path = nil
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
            sharesBeginning = false
            keepsFields = false
        }
        let isRepeated = isRepeated(name, value, isNeverIndexed: isNeverIndexed)
        if name.first == UInt8(ascii: ":") {
            if isRepeated {
                pseudoFields += 1
                if !repeatsPseudoFields, let lastHead { repeatPseudoField(name[1], of: lastHead) }
                return .proceed
            }
            takePseudoFields()
            pseudoFields += 1
            return addPseudoField(name, value)
        }
        guard keepsFields else { return .proceed }
        let isHost = name.count == 4 && name.elementsEqual("host".utf8)
        if let count = repeatedFields {
            // Whether `host` fits an authority that is not repeated has to be seen again.
            if isRepeated, pseudoFields == lastPseudoFields, !isHost || sharesBeginning {
                repeatedFields = count + 1
                return .proceed
            }
            takeRepeatedFields()
        }
        if isHost {
            takePseudoFields()
            if !isHostValid(value) { return .malformed }
        }
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
        let start = lastPosition
        let isRepeated = last.repeats(name, value, isNeverIndexed: isNeverIndexed, at: fieldCount - 1, &lastPosition)
        if sharesBeginning {
            if isRepeated { return true }
            stopSharing(fieldCount - 1, ofLength: start)
        }
        if byteCount <= Self.maxKeptBytes { current.append(name, value, isNeverIndexed: isNeverIndexed) }
        return isRepeated
    }

    /// The list is another than the last one, but for its beginning.
    private mutating func stopSharing(_ count: Int, ofLength length: Int) {
        sharesBeginning = false
        current.take(count, ofLength: length, from: last)
    }

    /// From here on pseudo-header fields are collected.
    private mutating func takePseudoFields() {
        guard repeatsPseudoFields, let lastHead else { return }
        repeatsPseudoFields = false
        clearPseudoFields()
        // They are repeated in their places, and come before all others.
        let list = last
        list.forEachName(of: pseudoFields) { repeatPseudoField($0[1], of: lastHead) }
    }

    /// - Parameter letter: the first of the name, behind the colon.
    private mutating func repeatPseudoField(_ letter: UInt8, of head: HTTPRequest) {
        switch letter {
        case UInt8(ascii: "m"): method = head.method
        case UInt8(ascii: "s"): scheme = head.scheme
        case UInt8(ascii: "a"): authority = head.authority
        default: path = head.path
        }
    }

    /// From here on the other fields are collected.
    private mutating func takeRepeatedFields() {
        guard let count = repeatedFields, let lastHead else { return }
        repeatedFields = nil
        fields = count > 0 ? HTTPFields(lastHead.headerFields.prefix(count)) : HTTPFields()
    }

    /// The next list is held against this one.
    private mutating func keep(_ head: HTTPRequest) {
        guard keepsFields, current.count == fieldCount else { return }
        swap(&current, &last)
        lastHead = head
        lastPseudoFields = pseudoFields
    }

    /// Forgets the last list, and gives its memory back. Not in the middle of the next one.
    mutating func forget() {
        current = HeaderList()
        last = HeaderList()
        lastHead = nil
        lastPseudoFields = 0
        clearPseudoFields()
        fields = HTTPFields()
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
        if sharesBeginning {
            if fieldCount == last.count { return lastHead }
            stopSharing(fieldCount, ofLength: lastPosition)
        }
        if pseudoFields != lastPseudoFields { takePseudoFields() }
        if repeatedFields != lastHead?.headerFields.count { takeRepeatedFields() }
        var head: HTTPRequest
        if repeatsPseudoFields, let lastHead {
            head = lastHead
        } else {
            guard let method, arePseudoFieldsValid(method) else { return nil }
            head = HTTPRequest(method: method, scheme: scheme, authority: authority, path: path)
        }
        if let lastHead, repeatedFields != nil {
            head.headerFields = lastHead.headerFields
        } else {
            head.headerFields = fields
        }
        keep(head)
        return head
    }

    private func arePseudoFieldsValid(_ method: HTTPRequest.Method) -> Bool {
        // Whatever the scheme: only OPTIONS asks for a whole server.
        if let path { return path != "*" || method == .options }
        // CONNECT, as the library has checked: to a host and a port (RFC 9113, section 8.5).
        guard let authority, let port = Authority(Array(authority.utf8))?.port else { return false }
        return port > 0
    }

    /// The list is complete: the fields behind a body.
    func finishTrailers() -> HTTPFields { fields }
}
