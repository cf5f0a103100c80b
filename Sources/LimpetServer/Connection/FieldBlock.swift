import HTTPTypes

/// The header fields of a response, flat and in the order in which they are sent: one buffer that is used again for
/// each response.
struct FieldBlock {
    struct Entry {
        let nameLength: Int
        let valueLength: Int
        /// The field must not enter a compression table, here or further on (RFC 7541, section 7.1.3).
        let isNeverIndexed: Bool
    }

    /// Names and values, one after the other, without anything between them.
    private(set) var bytes: [UInt8] = []
    private(set) var entries: [Entry] = []

    mutating func removeAll() {
        bytes.removeAll(keepingCapacity: true)
        entries.removeAll(keepingCapacity: true)
    }

    mutating func append(_ name: StaticString, _ value: [UInt8]) {
        name.withUTF8Buffer { bytes.append(contentsOf: $0) }
        bytes.append(contentsOf: value)
        entries.append(Entry(nameLength: name.utf8CodeUnitCount, valueLength: value.count, isNeverIndexed: false))
    }

    /// A number in decimal digits.
    mutating func append(_ name: StaticString, _ value: Int) {
        name.withUTF8Buffer { bytes.append(contentsOf: $0) }
        let start = bytes.count
        var unit = 1
        while value / unit >= 10 { unit *= 10 }
        while unit > 0 {
            bytes.append(UInt8(ascii: "0") + UInt8(value / unit % 10))
            unit /= 10
        }
        let length = bytes.count - start
        entries.append(Entry(nameLength: name.utf8CodeUnitCount, valueLength: length, isNeverIndexed: false))
    }

    mutating func append(_ field: HTTPField) {
        let start = bytes.count
        bytes.append(contentsOf: field.name.canonicalName.utf8)
        let nameLength = bytes.count - start
        field.withUnsafeBytesOfValue { bytes.append(contentsOf: $0) }
        let strategy = field.indexingStrategy
        entries.append(
            Entry(
                nameLength: nameLength, valueLength: bytes.count - start - nameLength,
                isNeverIndexed: strategy == .avoid || strategy == .disallow))
    }
}

extension FieldBlock {
    /// The fields behind a body, without those that belong to the connection (RFC 9113, section 8.2.2).
    init(trailers: HTTPFields) {
        for field in trailers where !Self.isOfConnection(field.name.canonicalName) { append(field) }
    }

    private static func isOfConnection(_ name: String) -> Bool {
        switch name.utf8.count {
        case 7: name == "upgrade"
        case 10: name == "connection" || name == "keep-alive"
        case 16: name == "proxy-connection"
        case 17: name == "transfer-encoding"
        default: false
        }
    }

    /// Replaces the block with the head of an interim response.
    mutating func write(interim status: Int) {
        removeAll()
        append(":status", status)
    }

    /// Replaces the block with the head of a response.
    ///
    /// - Parameters:
    ///   - bodyLength: the number of bytes that the response has; `nil` if it is not known.
    ///   - isAnswerToHead: whether the request's method was `HEAD`.
    ///   - date: the value of `date`, where the handler set none.
    /// - Returns: whether the response has a body, of zero bytes perhaps.
    mutating func write(
        _ response: borrowing ServerResponse, bodyLength: Int?, isAnswerToHead: Bool, date: [UInt8]
    ) -> Bool {
        removeAll()
        let status = response.status.code
        append(":status", status)
        let length = ContentLength(status: status, isAnswerToHead: isAnswerToHead)
        var hasLength = false
        var hasDate = false
        for field in response.fields {
            let name = field.name.canonicalName
            // By length first: most names differ from all of these in it.
            switch name.utf8.count {
            case 4 where name == "date":
                hasDate = true
            case 14 where name == "content-length":
                // The handler knows the length only of what is not sent.
                guard length == .ofRepresentation, !hasLength else { continue }
                hasLength = true
            default:
                // RFC 9113, section 8.2.2: a message with one of them is malformed.
                if Self.isOfConnection(name) { continue }
            }
            append(field)
        }
        switch length {
        case .none: break
        case .zero: append("content-length", 0)
        case .ofBody:
            if let bodyLength { append("content-length", bodyLength) }
        case .ofRepresentation:
            if !hasLength, status != 304, let bodyLength { append("content-length", bodyLength) }
        }
        if !hasDate { append("date", date) }
        return length == .ofBody
    }

    /// What `content-length` tells (RFC 9110, section 8.6).
    private enum ContentLength {
        /// It must not be there.
        case none
        /// The status has no content, but a length.
        case zero
        /// The length of what follows.
        case ofBody
        /// The length of what `GET` would answer; nothing follows.
        case ofRepresentation

        init(status: Int, isAnswerToHead: Bool) {
            switch status {
            case 204: self = .none
            case 205: self = .zero
            case 304: self = .ofRepresentation
            default: self = isAnswerToHead ? .ofRepresentation : .ofBody
            }
        }
    }
}
