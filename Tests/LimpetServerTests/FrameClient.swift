import NIOCore
import NIOPosix
import NIOSSL

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
    /// Takes a frame from what has come; `nil` if it has not come whole.
    init?(takingFrom received: inout [UInt8]) {
        guard received.count >= 9 else { return nil }
        let length = received[..<3].reduce(0) { $0 << 8 | Int($1) }
        guard received.count >= 9 + length else { return nil }
        self.init(
            kind: Kind(rawValue: received[3]), flags: received[4],
            stream: received[5..<9].reduce(0) { $0 << 8 | UInt32($1) }, payload: Array(received[9..<9 + length]))
        received.removeFirst(9 + length)
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

/// A client that sends exactly the bytes it is told to, and knows nothing but frames.
final class FrameClient {
    struct ConnectionClosed: Error {}

    static let preface = Array("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".utf8)

    let channel: any Channel
    private var incoming: AsyncStream<[UInt8]>.Iterator
    private var received: [UInt8] = []

    private init(_ channel: any Channel, _ incoming: AsyncStream<[UInt8]>) {
        self.channel = channel
        self.incoming = incoming.makeAsyncIterator()
    }

    deinit {
        channel.close(promise: nil)
    }

    /// Connects; with `handshake`, sends the preface with empty SETTINGS, and acknowledges the server's.
    ///
    /// - Parameter tls: what the client trusts and negotiates; `nil` for cleartext.
    static func connect(_ port: Int, handshake: Bool = true, tls: NIOSSLContext? = nil) async throws -> FrameClient {
        let (incoming, continuation) = AsyncStream<[UInt8]>.makeStream()
        let channel = try await ClientBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    let pipeline = channel.pipeline.syncOperations
                    if let tls {
                        try pipeline.addHandler(NIOSSLClientHandler(context: tls, serverHostname: "localhost"))
                    }
                    try pipeline.addHandler(Receiver(continuation))
                }
            }
            .connect(host: "127.0.0.1", port: port).get()
        let client = FrameClient(channel, incoming)
        if handshake {
            try await client.send(bytes: preface)
            try await client.send(.emptySettings, Frame(kind: .settings, flags: Frame.acknowledgement))
        }
        return client
    }

    func send(_ frames: Frame...) async throws {
        var buffer = ByteBuffer()
        for frame in frames { frame.write(to: &buffer) }
        try await channel.writeAndFlush(buffer).get()
    }

    func send(bytes: [UInt8]) async throws {
        try await channel.writeAndFlush(ByteBuffer(bytes: bytes)).get()
    }

    /// The next frame; `nil` when the server has closed the connection.
    func next() async throws -> Frame? {
        while true {
            if let frame = Frame(takingFrom: &received) { return frame }
            guard let bytes = await incoming.next(isolation: #isolation) else { return nil }
            received += bytes
        }
    }

    /// The next frame that is one of those waited for; the others before it are dropped.
    func next(where isWanted: (Frame) -> Bool) async throws -> Frame {
        while let frame = try await next() {
            if isWanted(frame) { return frame }
        }
        throw ConnectionClosed()
    }

    /// Status and content of the response on a stream.
    func response(_ stream: UInt32) async throws -> (status: Int?, content: [UInt8]) {
        let head = try await next { $0.stream == stream && $0.kind == .headers }
        var content: [UInt8] = []
        var last = head
        while !last.endsStream {
            last = try await next { $0.stream == stream && $0.kind == .data }
            content += last.payload
        }
        return (head.status, content)
    }

    /// The contents of this many responses, by their streams, in whatever order their frames come.
    func contents(of count: Int) async throws -> [UInt32: [UInt8]] {
        var contents: [UInt32: [UInt8]] = [:]
        var ended = 0
        while ended < count {
            let frame = try await next { $0.kind == .data || $0.kind == .headers }
            if frame.kind == .data { contents[frame.stream, default: []] += frame.payload }
            if frame.endsStream { ended += 1 }
        }
        return contents
    }

    /// Everything that comes until the server closes the connection, as text.
    func rest() async -> String {
        while let bytes = await incoming.next(isolation: #isolation) { received += bytes }
        defer { received = [] }
        return String(decoding: received, as: UTF8.self)
    }

    func close() async throws {
        try await channel.close().get()
    }
}

/// Passes on what comes. Confined to its channel's event loop.
private final class Receiver: ChannelInboundHandler, Sendable {
    typealias InboundIn = ByteBuffer

    private let continuation: AsyncStream<[UInt8]>.Continuation

    init(_ continuation: AsyncStream<[UInt8]>.Continuation) {
        self.continuation = continuation
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        continuation.yield(Array(unwrapInboundIn(data).readableBytesView))
    }

    func channelInactive(context: ChannelHandlerContext) {
        continuation.finish()
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        // A reset by the server is the end of what it sends: the tests ask what came before.
        context.close(promise: nil)
    }
}
