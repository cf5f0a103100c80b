import NIOCore
import NIOPosix
import NIOSSL

/// A client that sends exactly the bytes it is told to, and knows nothing but frames.
final class FrameClient {
    struct ConnectionClosed: Error {}

    let channel: any Channel
    private var incoming: AsyncStream<ByteBuffer>.Iterator
    private var received = ByteBuffer()

    private init(_ channel: any Channel, _ incoming: AsyncStream<ByteBuffer>) {
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
        let (incoming, continuation) = AsyncStream<ByteBuffer>.makeStream()
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
            try await client.send(bytes: Frame.preface)
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
            guard var bytes = await incoming.next(isolation: #isolation) else { return nil }
            received.writeBuffer(&bytes)
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
        while var bytes = await incoming.next(isolation: #isolation) { received.writeBuffer(&bytes) }
        defer { received.clear() }
        return String(buffer: received)
    }

    func close() async throws {
        try await channel.close().get()
    }
}

/// Passes on what comes. Confined to its channel's event loop.
private final class Receiver: ChannelInboundHandler, Sendable {
    typealias InboundIn = ByteBuffer

    private let continuation: AsyncStream<ByteBuffer>.Continuation

    init(_ continuation: AsyncStream<ByteBuffer>.Continuation) {
        self.continuation = continuation
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        continuation.yield(unwrapInboundIn(data))
    }

    func channelInactive(context: ChannelHandlerContext) {
        continuation.finish()
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        // A reset by the server is the end of what it sends: the tests ask what came before.
        context.close(promise: nil)
    }
}
