import HTTPTypes
import Logging
import NIOCore
import NIOEmbedded
import Testing

@testable import LimpetServer

@Suite struct `A connection` {
    /// Runs the test on a connection that has shaken hands, with no event loop but the test itself.
    private func connected(
        limits: ServerLimits = ServerLimits(), answering handler: @escaping HTTP2Server.Handler,
        _ test: (EmbeddedChannel) throws -> Void
    ) throws {
        let channel = EmbeddedChannel()
        let server = ServerContext(handler: handler, limits: limits, logger: Logger(label: "test"))
        let loop = LoopContext(channel.eventLoop, limits: limits)
        try channel.pipeline.syncOperations.addHandler(HTTP2ConnectionHandler(server: server, loop: loop))
        try channel.connect(to: SocketAddress(unixDomainSocketPath: "test")).wait()
        try channel.writeInbound(ByteBuffer(bytes: FrameClient.preface))
        try send(.emptySettings, to: channel)
        while try channel.readOutbound(as: ByteBuffer.self) != nil {}
        try test(channel)
        _ = try channel.finish(acceptAlreadyClosed: true)
    }

    private func send(_ frames: Frame..., to channel: EmbeddedChannel) throws {
        var buffer = ByteBuffer()
        for frame in frames { frame.write(to: &buffer) }
        try channel.writeInbound(buffer)
    }

    @Test func `writes the responses to everything that came at once in one piece`() throws {
        let hello: HTTP2Server.Handler = { _ in .text("hello") }
        try connected(answering: hello) { channel in
            try send(.request(1), .request(3), .request(5), to: channel)
            let output = try #require(try channel.readOutbound(as: ByteBuffer.self))
            #expect(String(buffer: output).split(separator: "hello", omittingEmptySubsequences: false).count == 4)
            #expect(try channel.readOutbound(as: ByteBuffer.self) == nil)
        }
    }

    @Test func `takes nothing from the session while the client does not read`() throws {
        let large: HTTP2Server.Handler = { _ in
            ServerResponse(status: .ok, body: ResponseBody([UInt8](repeating: 0, count: 50_000)))
        }
        try connected(answering: large) { channel in
            channel.isWritable = false
            try send(.request(1), .request(3), to: channel)
            #expect(try channel.readOutbound(as: ByteBuffer.self) == nil)
            channel.isWritable = true
            channel.pipeline.fireChannelWritabilityChanged()
            var count = 0
            while let output = try channel.readOutbound(as: ByteBuffer.self) { count += output.readableBytes }
            // The connection's window of 65,535 bytes, and the frames around it.
            #expect((65_535..<66_535).contains(count))
        }
    }

    @Test func `ends when a client makes the server talk and does not listen`() throws {
        var limits = ServerLimits()
        limits.maxQueuedFrames = 50
        let hello: HTTP2Server.Handler = { _ in .text("hello") }
        try connected(limits: limits, answering: hello) { channel in
            channel.isWritable = false
            for _ in 0..<100 where channel.isActive {
                try send(Frame(kind: .ping, payload: [UInt8](repeating: 0, count: 8)), to: channel)
            }
            #expect(!channel.isActive)
        }
    }
}
