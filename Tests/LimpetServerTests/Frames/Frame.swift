import NIOCore

/// A frame as it is on the wire (RFC 9113, section 4.1).
struct Frame: Sendable, Equatable {
    /// The type of a frame, one that nobody has defined included.
    struct Kind: RawRepresentable, Hashable, Sendable {
        static let data = Kind(rawValue: 0)
        static let headers = Kind(rawValue: 1)
        static let priority = Kind(rawValue: 2)
        static let resetStream = Kind(rawValue: 3)
        static let settings = Kind(rawValue: 4)
        static let pushPromise = Kind(rawValue: 5)
        static let ping = Kind(rawValue: 6)
        static let goAway = Kind(rawValue: 7)
        static let windowUpdate = Kind(rawValue: 8)
        static let continuation = Kind(rawValue: 9)

        let rawValue: UInt8
    }

    static let endStream: UInt8 = 0x1
    static let acknowledgement: UInt8 = 0x1
    static let endHeaders: UInt8 = 0x4

    var kind: Kind
    var flags: UInt8 = 0
    var stream: UInt32 = 0
    var payload: [UInt8] = []

    var endsStream: Bool { (kind == .headers || kind == .data) && flags & Self.endStream != 0 }

    /// The number in the payload at an offset, big-endian.
    func number(at offset: Int) -> UInt32 {
        payload[offset..<offset + 4].reduce(0) { $0 << 8 | UInt32($1) }
    }

    /// The status of a response, if it stands first, as this server writes it. Enough of RFC 7541 for that: the static
    /// table's seven statuses, and literals of digits.
    var status: Int? {
        guard kind == .headers, let first = payload.first else { return nil }
        if (0x88...0x8e).contains(first) { return [200, 204, 206, 304, 400, 404, 500][Int(first - 0x88)] }
        guard (0x48...0x4e).contains(first) else { return nil }
        let length = Int(payload[1] & 0x7f)
        let value = payload[2..<2 + length]
        guard payload[1] & 0x80 != 0 else { return Int(String(decoding: value, as: UTF8.self)) }
        // Huffman (RFC 7541, appendix B): 0, 1, 2 are 00000 to 00010, 3 to 9 are 011001 to 011111.
        var bits = value.flatMap { byte in (0..<8).map { byte >> (7 - $0) & 1 } }[...]
        var number = 0
        for _ in 0..<3 {
            let isShort = bits.prefix(3).elementsEqual([0, 0, 0])
            let code = bits.prefix(isShort ? 5 : 6).reduce(0) { $0 << 1 | Int($1) }
            number = number * 10 + (isShort ? code : code - 0b011001 + 3)
            bits = bits.dropFirst(isShort ? 5 : 6)
        }
        return number
    }

    func write(to buffer: inout ByteBuffer) {
        buffer.writeInteger(UInt8(payload.count >> 16))
        buffer.writeInteger(UInt16(payload.count & 0xffff))
        buffer.writeInteger(kind.rawValue)
        buffer.writeInteger(flags)
        buffer.writeInteger(stream)
        buffer.writeBytes(payload)
    }
}

extension Frame {
    /// What a client sends first (RFC 9113, section 3.4).
    static let preface = Array("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".utf8)

    /// Takes a frame from what has come; `nil` if it has not come whole.
    init?(takingFrom received: inout ByteBuffer) {
        let start = received.readerIndex
        guard received.readableBytes >= 9, let high = received.getInteger(at: start, as: UInt8.self),
            let low = received.getInteger(at: start + 1, as: UInt16.self)
        else { return nil }
        let length = Int(high) << 16 | Int(low)
        guard received.readableBytes >= 9 + length, let kind = received.getInteger(at: start + 3, as: UInt8.self),
            let flags = received.getInteger(at: start + 4, as: UInt8.self),
            let stream = received.getInteger(at: start + 5, as: UInt32.self),
            let payload = received.getBytes(at: start + 9, length: length)
        else { return nil }
        self.init(kind: Kind(rawValue: kind), flags: flags, stream: stream, payload: payload)
        received.moveReaderIndex(forwardBy: 9 + length)
        if received.readableBytes == 0 { received.clear() }
    }

    static let emptySettings = Frame(kind: .settings)

    /// A header list of literals, never Huffman-coded and never indexed in the dynamic table.
    static func headers(_ stream: UInt32, _ fields: [(String, String)], endStream: Bool = true) -> Frame {
        Frame(
            kind: .headers, flags: endHeaders | (endStream ? Frame.endStream : 0), stream: stream,
            payload: fields.flatMap { [0x00] + literal($0) + literal($1) })
    }

    static func request(
        _ stream: UInt32, _ method: String = "GET", _ path: String = "/", fields: [(String, String)] = [],
        endStream: Bool = true
    ) -> Frame {
        headers(
            stream,
            [(":method", method), (":scheme", "http"), (":authority", "test"), (":path", path)] + fields,
            endStream: endStream)
    }

    static func data(_ stream: UInt32, _ bytes: [UInt8], endStream: Bool = true) -> Frame {
        Frame(kind: .data, flags: endStream ? Frame.endStream : 0, stream: stream, payload: bytes)
    }

    static func reset(_ stream: UInt32, _ code: UInt8 = 8) -> Frame {
        Frame(kind: .resetStream, stream: stream, payload: [0, 0, 0, code])
    }

    /// A string literal (RFC 7541, section 5.2).
    static func literal(_ text: String) -> [UInt8] {
        literal(Array(text.utf8))
    }

    static func literal(_ bytes: [UInt8]) -> [UInt8] {
        guard bytes.count >= 127 else { return [UInt8(bytes.count)] + bytes }
        var length: [UInt8] = [127]
        var rest = bytes.count - 127
        while rest >= 128 {
            length.append(UInt8(rest & 0x7f) | 0x80)
            rest >>= 7
        }
        return length + [UInt8(rest)] + bytes
    }
}

extension Frame {
    static let padded: UInt8 = 0x8
    static let priority: UInt8 = 0x20

    /// A header block of one's own making, whole.
    static func block(_ stream: UInt32, _ bytes: [UInt8], flags: UInt8 = endHeaders | endStream) -> Frame {
        Frame(kind: .headers, flags: flags, stream: stream, payload: bytes)
    }

    static func continuation(_ stream: UInt32, _ bytes: [UInt8], isLast: Bool = true) -> Frame {
        Frame(kind: .continuation, flags: isLast ? endHeaders : 0, stream: stream, payload: bytes)
    }

    static func windowUpdate(_ stream: UInt32, _ increment: UInt32) -> Frame {
        Frame(kind: .windowUpdate, stream: stream, payload: bytes(increment))
    }

    static func settings(_ entries: (UInt16, UInt32)...) -> Frame {
        Frame(kind: .settings, payload: entries.flatMap { [UInt8($0 >> 8), UInt8($0 & 0xff)] + bytes($1) })
    }

    static func ping(_ number: UInt8 = 0) -> Frame {
        Frame(kind: .ping, payload: [UInt8](repeating: number, count: 8))
    }

    static func priority(_ stream: UInt32, on other: UInt32) -> Frame {
        Frame(kind: .priority, stream: stream, payload: bytes(other) + [15])
    }

    static func goAway(_ last: UInt32 = 0, _ code: WireCode = .noError, stream: UInt32 = 0) -> Frame {
        Frame(kind: .goAway, stream: stream, payload: bytes(last) + bytes(code.rawValue))
    }

    /// A literal field, not indexed (RFC 7541, section 6.2.2).
    static func field(_ name: String, _ value: String) -> [UInt8] {
        [0x00] + literal(name) + literal(value)
    }

    /// The frame as it is on the wire.
    var bytes: [UInt8] {
        var buffer = ByteBuffer()
        write(to: &buffer)
        return Array(buffer.readableBytesView)
    }

    /// A number of 4 bytes, big-endian.
    static func bytes(_ number: UInt32) -> [UInt8] {
        [24, 16, 8, 0].map { UInt8(truncatingIfNeeded: number >> $0) }
    }

    /// The same frame with other flags.
    func with(flags: UInt8) -> Frame {
        var frame = self
        frame.flags = flags
        return frame
    }

    /// The same frame with padding behind its payload.
    func padded(_ length: UInt8) -> Frame {
        var frame = self
        frame.flags |= Frame.padded
        frame.payload = [length] + payload + [UInt8](repeating: 0, count: Int(length))
        return frame
    }
}
