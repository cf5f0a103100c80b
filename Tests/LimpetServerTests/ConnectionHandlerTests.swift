import HTTPTypes
import Limpet
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

    @Test func `serves everything that came at once whatever waits, and cancels only what was reset`() throws {
        let cancelled = Locked<[String]>([])
        let handler: HTTP2Server.Handler = { request in
            guard request.path.hasPrefix("/wait") else { return .text("\(Task.isCancelled)") }
            await Signal().wait()
            cancelled.withLock { $0.append(request.path) }
            return .text("late")
        }
        try connected(answering: handler) { connection in
            let waiting = { (id: UInt32) in Frame.request(id, "GET", "/wait/\(id)") }
            try connection.send(.request(1), waiting(3), waiting(5), .request(7), waiting(9), .reset(5), .request(11))
            let frames = try connection.take()
            #expect(frames.filter { $0.kind == .headers }.map(\.stream) == [1, 7, 11])
            #expect(frames.filter { $0.kind == .data }.allSatisfy { $0.payload == Array("false".utf8) })
            #expect(cancelled.withLock { $0 } == ["/wait/5"])
            try connection.send(.reset(3))
            #expect(cancelled.withLock { $0 } == ["/wait/5", "/wait/3"])
            try connection.send(.request(13), .reset(9))
            #expect(try connection.take().filter { $0.kind == .headers }.map(\.stream) == [13])
            #expect(cancelled.withLock { $0 } == ["/wait/5", "/wait/3", "/wait/9"])
        }
    }

    @Test func `serves a request behind one whose handler has cancelled its own task`() throws {
        let handler: HTTP2Server.Handler = { request in
            let wasCancelled = Task.isCancelled
            if request.path == "/cancel" { withUnsafeCurrentTask { $0?.cancel() } }
            return .text("\(wasCancelled)")
        }
        try connected(answering: handler) { connection in
            try connection.send(.request(1, "GET", "/cancel"), .request(3), .request(5, "GET", "/cancel"), .request(7))
            let bodies = try connection.take().filter { $0.kind == .data }
            #expect(bodies.map(\.stream) == [1, 3, 5, 7])
            #expect(bodies.allSatisfy { $0.payload == Array("false".utf8) })
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

    @Test func `serves as before after it has rested, and while others rest`() throws {
        let connection = try RawConnection()
        let waiting = Frame.request(1, "POST", endStream: false)
        try connection.send(waiting)
        for stream in stride(from: UInt32(3), to: 15, by: 4) {
            try connection.send(.request(stream, fields: [("cookie", "a=1")]))
            #expect(try connection.reaction() == .response(stream, status: 200))
            connection.advance(.seconds(3))
        }
        try connection.send(.data(1, [1]))
        #expect(try connection.reaction() == .response(1, status: 200))
        for stream in stride(from: UInt32(21), to: 33, by: 4) {
            connection.advance(.seconds(3))
            try connection.send(
                .request(stream, "POST", fields: [("cookie", "a=1")], endStream: false), .data(stream, [1]))
            #expect(try connection.reaction() == .response(stream, status: 200))
        }
        try connection.finish()
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

    @Test(arguments: [true, false])
    func `keeps nothing of a response whose writer fails while the client does not read`(readsLater: Bool) throws {
        struct Broken: Error {}
        let fail = Signal()
        let connection = try RawConnection { _ in
            ServerResponse(
                status: .ok,
                body: .written { writer in
                    try await writer.write([UInt8](repeating: 7, count: OutgoingBody.highWater / 2))
                    await fail.wait()
                    throw Broken()
                })
        }
        connection.channel.isWritable = false
        try connection.send(.request(1))
        fail.send()
        connection.advance(.zero)
        #expect(try connection.take().isEmpty)
        if readsLater {
            connection.channel.isWritable = true
            connection.channel.pipeline.fireChannelWritabilityChanged()
            let frames = try connection.take()
            #expect(frames.last == .reset(1, UInt8(WireCode.internalError.rawValue)))
            #expect(frames.allSatisfy { !$0.endsStream })
            try connection.send(.request(3), .reset(3), .ping())
            #expect(try connection.take().contains { $0.kind == .ping })
        }
        try connection.finish()
        #expect(connection.openConnections == 0)
        #expect(!connection.isHandlerAlive)
    }

    @Test func `serves a request that comes just behind the answer to the PING of its drain`() throws {
        try connected(answering: { _ in .text("hello") }) { connection in
            connection.channel.pipeline.fireUserInboundEventTriggered(ChannelShouldQuiesceEvent())
            let notice = try connection.take()
            #expect(notice.map(\.kind) == [.goAway, .ping])
            let ping = try #require(notice.last)
            try connection.send(ping.with(flags: Frame.acknowledgement))
            #expect(try connection.take().isEmpty)
            try connection.send(.request(1))
            #expect(try connection.take().first?.status == 200)
            connection.advance(ServerLimits().drainGrace)
            #expect(try connection.take() == [.goAway(1)])
            #expect(connection.isClosed)
        }
    }
}
