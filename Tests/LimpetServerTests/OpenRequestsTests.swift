import MetricsTestKit
import NIOCore
import Testing

@testable import LimpetServer

@Suite struct `The open requests of all connections` {
    @Test func `are no more than the limit, and those that every connection may have`() {
        var limits = ServerLimits()
        limits.minOpenRequests = 2
        var ofLoop = 0
        var greedy = OpenRequests(limits: limits)
        var modest = OpenRequests(limits: limits)
        for _ in 0..<9 { #expect(greedy.admit(ofLoop: &ofLoop, limit: 9)) }
        #expect(!greedy.admit(ofLoop: &ofLoop, limit: 9))
        for _ in 0..<2 { #expect(modest.admit(ofLoop: &ofLoop, limit: 9)) }
        #expect(!modest.admit(ofLoop: &ofLoop, limit: 9))
        #expect(ofLoop == 11)
        greedy.update(6, ofLoop: &ofLoop)
        #expect(ofLoop == 8)
        #expect(modest.admit(ofLoop: &ofLoop, limit: 9))
        #expect(!greedy.admit(ofLoop: &ofLoop, limit: 9))
        modest.update(0, ofLoop: &ofLoop)
        #expect(ofLoop == 6)
    }

    /// At most four, and one for each connection all the same.
    private var limits: ServerLimits {
        var limits = ServerLimits()
        limits.maxOpenRequests = 4
        limits.minOpenRequests = 1
        return limits
    }

    @Test func `are refused beyond the limit, also those with a body, until others have ended`() throws {
        let first = try RawConnection(limits: limits, handler: neverAnswer)
        try first.send(.request(1), .request(3), .request(5, "POST", endStream: false))
        #expect(try first.reaction() == .nothing)
        let second = try RawConnection(after: first, limits: limits)
        try second.send(.request(1, "POST", endStream: false))
        #expect(try second.reaction() == .nothing)
        try second.send(.request(3))
        #expect(try second.reaction() == .streamError(3, .refusedStream))
        try second.send(.request(5, "POST", endStream: false))
        #expect(try second.reaction() == .streamError(5, .refusedStream))
        try first.send(.request(7))
        #expect(try first.reaction() == .streamError(7, .refusedStream))
        let third = try RawConnection(after: first, limits: limits)
        try third.send(.request(1))
        #expect(try third.reaction() == .response(1, status: 200))
        try first.send(.reset(1))
        try second.send(.request(7))
        #expect(try second.reaction() == .response(7, status: 200))
        for connection in [first, second, third] { try connection.finish() }
    }

    @Test func `count responses that the client does not read`() throws {
        let first = try RawConnection(limits: limits) { _ in .text("hello") }
        try first.send(Frame(kind: .settings, payload: [0, 4, 0, 0, 0, 0]))
        try first.send(.request(1), .request(3), .request(5), .request(7))
        _ = try first.take()
        try first.send(.request(9))
        #expect(try first.reaction() == .streamError(9, .refusedStream))
        try first.send(.windowUpdate(1, 100))
        _ = try first.take()
        try first.send(.request(11))
        #expect(try first.take().contains { $0.kind == .headers && $0.stream == 11 })
        try first.finish()
    }

    @Test func `are counted where they are refused`() async throws {
        let metrics = TestMetrics()
        var limits = limits
        limits.tick = .milliseconds(5)
        try await TestServer.run(limits: limits, metrics: metrics) { _ in
            await Signal().wait()
            return .text("")
        } during: { server in
            let client = try await FrameClient.connect(server.port)
            try await client.send(.request(1), .request(3), .request(5), .request(7), .request(9), .request(11))
            for stream in [UInt32(9), 11] {
                #expect(try await client.next { $0.kind == .resetStream }.stream == stream)
            }
            let refused = { () -> Int64 in
                metrics.counters.filter { $0.dimensions.map(\.1) == ["open-requests"] }.reduce(0) { $0 + $1.totalValue }
            }
            while refused() < 2 { await Task.yield() }
            #expect(refused() == 2)
        }
    }

    @Test func `count handlers that have not noticed that their stream or their connection is closed`() async throws {
        let stubborn = Signal()
        let (ended, continuation) = AsyncStream.makeStream(of: Void.self)
        try await TestServer.run(limits: limits) { request in
            guard request.path == "/wait" else { return .text("") }
            // A task of its own does not know that the handler is cancelled.
            await Task { await stubborn.wait() }.value
            continuation.yield()
            return .text("")
        } during: { server in
            let gone = try await FrameClient.connect(server.port)
            for stream in [UInt32(1), 3, 5] { try await gone.send(.request(stream, "GET", "/wait"), .reset(stream)) }
            try await gone.send(.ping())
            _ = try await gone.next { $0.kind == .ping }
            try await gone.close()
            let client = try await FrameClient.connect(server.port)
            try await client.send(.request(1, "GET", "/wait"), .request(3))
            let reset = try await client.next { $0.kind == .resetStream }
            #expect(reset.number(at: 0) == WireCode.refusedStream.rawValue)
            stubborn.send()
            var iterator = ended.makeAsyncIterator()
            for _ in 0..<4 { await iterator.next() }
            _ = try await client.response(1)
            // Of four that may be open all four are its own now.
            try await client.send(.request(5), .request(7), .request(9), .request(11))
            for stream in [UInt32(5), 7, 9, 11] { _ = try await client.response(stream) }
        }
    }
}
