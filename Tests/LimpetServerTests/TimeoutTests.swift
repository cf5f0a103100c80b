import HTTPTypes
import Limpet
import NIOCore
import NIOEmbedded
import Testing

@testable import LimpetServer

@Suite(.timeLimit(.minutes(1))) struct `In time, a connection` {
    private let hello: HTTP2Server.Handler = { _ in .text("hello") }

    private func windowUpdate(_ stream: UInt32, _ increment: UInt8) -> Frame {
        Frame(kind: .windowUpdate, stream: stream, payload: [0, 0, 0, increment])
    }

    @Test func `ends without a preface`() throws {
        let connection = try RawConnection(handshake: false, handler: hello)
        try connection.send(bytes: Array(Frame.preface.prefix(20)))
        connection.advance(.seconds(9))
        #expect(connection.channel.isActive)
        connection.advance(.seconds(3))
        #expect(!connection.channel.isActive)
    }

    @Test func `ends without the client's SETTINGS`() throws {
        let connection = try RawConnection(handshake: false, handler: hello)
        try connection.send(bytes: Frame.preface)
        connection.advance(.seconds(12))
        #expect(try connection.take().last?.number(at: 4) == 11)  // ENHANCE_YOUR_CALM
        #expect(!connection.channel.isActive)
    }

    @Test func `ends when a header list takes too long, however it is sent`() throws {
        var head = Frame.request(1)
        head.flags = Frame.endStream
        var bytes = ByteBuffer()
        head.write(to: &bytes)
        for piece in [bytes.readableBytes, 12] {
            let connection = try RawConnection(handler: hello)
            try connection.send(bytes: Array(bytes.readableBytesView.prefix(piece)))
            connection.advance(.seconds(8))
            try connection.send(bytes: Array(bytes.readableBytesView.dropFirst(piece).prefix(1)))
            #expect(connection.channel.isActive)
            connection.advance(.seconds(4))
            #expect(try connection.take().last?.number(at: 4) == 11)
            #expect(!connection.channel.isActive)
        }
    }

    @Test func `is answered 408 for a body that comes too slowly`() throws {
        let connection = try RawConnection { request in
            .text("\(try await request.body.collect(upTo: 1 << 20).count)")
        }
        try connection.send(.request(1, "POST", endStream: false), .request(3, "POST", endStream: false))
        for _ in 0..<12 {
            connection.advance(.seconds(1))
            try connection.send(.data(1, [1], endStream: false))
            try connection.send(.data(3, [UInt8](repeating: 1, count: 240), endStream: false))
        }
        let slow = try connection.take().filter { $0.stream == 1 && $0.kind != .windowUpdate }
        #expect(slow.first?.status == 408)
        #expect(slow.last?.kind == .resetStream && slow.last?.number(at: 0) == 0)
        try connection.send(.data(3, []))
        connection.advance(.zero)
        #expect(try connection.take().first { $0.stream == 3 && $0.kind == .headers }?.status == 200)
        try connection.finish()
    }

    @Test func `does not hurry a client whose body nobody reads`() throws {
        let proceed = Signal()
        let connection = try RawConnection { request in
            await proceed.wait()
            return .text("")
        }
        try connection.send(.request(1, "POST", endStream: false))
        connection.advance(.minutes(5))
        #expect(connection.channel.isActive)
        #expect(try connection.take().allSatisfy { $0.stream == 0 })
        try connection.finish()
    }

    @Test(arguments: [0, 1]) func `resets a stream whose window stays shut or is opened by bytes`(increment: UInt8)
        throws
    {
        let connection = try RawConnection { _ in
            ServerResponse(status: .ok, body: ResponseBody([UInt8](repeating: 1, count: 1_000_000)))
        }
        try connection.send(Frame(kind: .windowUpdate, payload: [0x3f, 0, 0, 0]), .request(1))
        for _ in 0..<32 {
            if increment > 0 { try connection.send(windowUpdate(1, increment)) }
            connection.advance(.seconds(1))
        }
        // What was sent before counts: 65,535 bytes at 240 a second.
        connection.advance(.seconds(274))
        let last = try #require(try connection.take().last)
        #expect(last.kind == .resetStream && last.number(at: 0) == 8)  // CANCEL
        #expect(connection.channel.isActive)
        try connection.finish()
    }

    @Test func `cancels the writer of a stream whose window stays shut, though the client is silent`() throws {
        let hasEnded = Locked(false)
        let connection = try RawConnection { _ in
            ServerResponse(
                status: .ok,
                body: .written { writer in
                    defer { hasEnded.withLock { $0 = true } }
                    while true { try await writer.write([UInt8](repeating: 1, count: 10_000)) }
                })
        }
        try connection.send(Frame(kind: .windowUpdate, payload: [0x3f, 0, 0, 0]), .request(1))
        connection.advance(.seconds(20))
        #expect(!hasEnded.withLock { $0 })
        connection.advance(.seconds(300))
        #expect(hasEnded.withLock { $0 })
        #expect(try connection.take().last?.kind == .resetStream)
        try connection.finish()
        #expect(!connection.isHandlerAlive)
    }

    @Test func `is as old as it is, after a time without any`() throws {
        var limits = ServerLimits()
        limits.maxConnectionAge = .minutes(10)
        let connection = try RawConnection(limits: limits, handler: hello)
        try connection.finish()
        connection.channel.embeddedEventLoop.advanceTime(by: .hours(5))
        let next = try RawConnection(after: connection, limits: limits, handshake: false, handler: hello)
        next.advance(.seconds(5))
        #expect(next.channel.isActive)
        try next.send(bytes: Frame.preface)
        try next.send(.emptySettings)
        next.advance(.minutes(1))
        #expect(try next.take().allSatisfy { $0.kind == .settings || $0.kind == .windowUpdate })
        try next.finish()
    }

    @Test func `leaves a stream alone that is read slowly and steadily`() throws {
        let connection = try RawConnection { _ in
            ServerResponse(status: .ok, body: ResponseBody([UInt8](repeating: 1, count: 1_000_000)))
        }
        try connection.send(Frame(kind: .windowUpdate, payload: [0x3f, 0, 0, 0]), .request(1))
        for _ in 0..<120 {
            try connection.send(windowUpdate(1, 255))
            connection.advance(.seconds(1))
        }
        #expect(try connection.take().allSatisfy { $0.kind != .resetStream })
        #expect(connection.channel.isActive)
        try connection.finish()
    }

    @Test func `leaves a stream alone whose writer is slow`() throws {
        let proceed = Signal()
        let connection = try RawConnection { _ in
            ServerResponse(
                status: .ok,
                body: .written { writer in
                    try await writer.write("x")
                    await proceed.wait()
                })
        }
        try connection.send(.request(1))
        connection.advance(.minutes(5))
        #expect(try connection.take().allSatisfy { $0.kind != .resetStream })
        #expect(connection.channel.isActive)
        try connection.finish()
    }

    @Test func `ends when the client keeps the connection's window shut`() throws {
        let connection = try RawConnection { _ in
            ServerResponse(status: .ok, body: ResponseBody([UInt8](repeating: 1, count: 1_000_000)))
        }
        try connection.send(.request(1), Frame(kind: .windowUpdate, stream: 1, payload: [0x3f, 0, 0, 0]))
        connection.advance(.seconds(29))
        #expect(connection.channel.isActive)
        connection.advance(.seconds(4))
        #expect(try connection.take().last?.number(at: 4) == 11)
        #expect(!connection.channel.isActive)
    }

    @Test func `ends when the client reads nothing`() async throws {
        var limits = ServerLimits()
        limits.tick = .milliseconds(10)
        limits.writeTimeout = .milliseconds(200)
        let ended = Signal()
        try await TestServer.run(limits: limits) { request in
            switch request.path {
            case "/wait":
                await Signal().wait()
                ended.send()
                return .text("cancelled")
            case "/large":
                return ServerResponse(status: .ok, body: ResponseBody([UInt8](repeating: 1, count: 32 << 20)))
            default:
                return .text("small")
            }
        } during: { server in
            let client = try await FrameClient.connect(server.port)
            try await client.channel.setOption(.autoRead, value: false).get()
            let open = Frame(kind: .windowUpdate, payload: [0x3f, 0, 0, 0])
            var openStream = open
            openStream.stream = 3
            try await client.send(.request(1, "GET", "/wait"), open, .request(3, "GET", "/large"), openStream)
            await ended.wait()
            let other = try await FrameClient.connect(server.port)
            try await other.send(.request(1, "GET", "/small"))
            #expect(try await other.response(1).status == 200)
        }
    }

    @Test func `is drained when it is idle, and not before`() throws {
        let proceed = Signal()
        let connection = try RawConnection { _ in
            await proceed.wait()
            return .text("")
        }
        try connection.send(.request(1))
        connection.advance(.minutes(10))
        #expect(try connection.take().isEmpty)
        try connection.send(.reset(1))
        connection.advance(.seconds(119))
        #expect(try connection.take().isEmpty)
        connection.advance(.seconds(3))
        let drain = try connection.take()
        #expect(drain.map(\.kind) == [.goAway, .ping])
        #expect(drain.first?.number(at: 4) == 0)
        try connection.send(Frame(kind: .ping, flags: Frame.acknowledgement, payload: drain[1].payload))
        connection.advance(ServerLimits().drainGrace)
        #expect(!connection.channel.isActive)
    }

    @Test func `is drained when it is old, and its requests finish`() throws {
        var limits = ServerLimits()
        limits.maxConnectionAge = .minutes(10)
        let connection = try RawConnection(limits: limits) { request in
            .text("\(try await request.body.collect(upTo: 1 << 20).count)")
        }
        try connection.send(.request(1, "POST", endStream: false))
        for _ in 0..<602 {
            try connection.send(.data(1, [UInt8](repeating: 1, count: 240), endStream: false))
            connection.advance(.seconds(1))
        }
        let ping = try #require(try connection.take().first { $0.kind == .ping })
        try connection.send(Frame(kind: .ping, flags: Frame.acknowledgement, payload: ping.payload))
        try connection.send(.data(1, []))
        connection.advance(ServerLimits().drainGrace)
        let end = try connection.take()
        #expect(end.first { $0.kind == .headers }?.status == 200)
        #expect(!connection.channel.isActive)
    }
}

@Suite struct `The pace of a transfer` {
    private func time(_ seconds: Int64) -> NIODeadline { .uptimeNanoseconds(0) + .seconds(seconds) }

    @Test func `is judged over intervals, and not while it is paused`() {
        var pace = TransferPace()
        let isTooSlow = { (pace: inout TransferPace, moved: Int, seconds: Int64) in
            pace.isTooSlow(moved: moved, at: time(seconds), interval: .seconds(10), rate: 100)
        }
        #expect(!isTooSlow(&pace, 0, 0))
        #expect(!isTooSlow(&pace, 0, 9))
        #expect(!isTooSlow(&pace, 1000, 10))
        #expect(isTooSlow(&pace, 1999, 20))
        pace.pause()
        #expect(!isTooSlow(&pace, 1999, 21))
        #expect(!isTooSlow(&pace, 1999, 30))
        #expect(isTooSlow(&pace, 1999, 31))
    }
}
