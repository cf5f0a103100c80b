import HTTPTypes
import Logging
import NIOCore
import NIOEmbedded
import Testing

@testable import LimpetServer

@Suite struct `A connection` {
    private func connected(
        limits: ServerLimits = ServerLimits(), answering handler: @escaping HTTP2Server.Handler,
        _ test: (RawConnection) throws -> Void
    ) throws {
        let connection = try RawConnection(limits: limits, handler: handler)
        try test(connection)
        try connection.finish()
    }

    @Test func `writes the responses to everything that came at once in one piece`() throws {
        let hello: HTTP2Server.Handler = { _ in .text("hello") }
        try connected(answering: hello) { connection in
            let channel = connection.channel
            try connection.send(.request(1), .request(3), .request(5))
            let output = try #require(try channel.readOutbound(as: ByteBuffer.self))
            #expect(String(buffer: output).split(separator: "hello", omittingEmptySubsequences: false).count == 4)
            #expect(try channel.readOutbound(as: ByteBuffer.self) == nil)
        }
    }

    @Test func `takes nothing from the session while the client does not read`() throws {
        let large: HTTP2Server.Handler = { _ in
            ServerResponse(status: .ok, body: ResponseBody([UInt8](repeating: 0, count: 50_000)))
        }
        try connected(answering: large) { connection in
            let channel = connection.channel
            channel.isWritable = false
            try connection.send(.request(1), .request(3))
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
        try connected(limits: limits, answering: hello) { connection in
            let channel = connection.channel
            channel.isWritable = false
            for _ in 0..<100 where channel.isActive {
                try connection.send(Frame(kind: .ping, payload: [UInt8](repeating: 0, count: 8)))
            }
            #expect(!channel.isActive)
        }
    }
}
