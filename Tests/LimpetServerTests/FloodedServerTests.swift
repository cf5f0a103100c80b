import HTTPTypes
import Limpet
import MetricsTestKit
import NIOCore
import Testing

@testable import LimpetServer

/// RFC 9113, section 10.5, over sockets: Benchmarks/Floods in short.
@Suite(.serialized, .timeLimit(.minutes(1))) struct `Beside a flood` {
    private static let duration = Duration.milliseconds(400)
    /// How long an answer may take at most, on a machine with other work.
    private static let patience = Duration.seconds(2)
    /// The connections of a slow flood.
    private static let connections = 20
    private static let large = ResponseBody([UInt8](repeating: 7, count: 1 << 20))

    @Test(arguments: Flood.all)
    func `a client that behaves is answered, and nothing is left of the other`(flood: Flood) async throws {
        let metrics = TestMetrics()
        let handlers = Locked(0)
        let endedWaits = AsyncStream<Void>.makeStream()
        var limits = ServerLimits()
        limits.tick = .milliseconds(10)
        // A client that is slow to close, on a busy machine, still reads why.
        limits.refusalTimeout = .seconds(30)
        flood.hurry(&limits)
        try await TestServer.run(limits: limits, metrics: metrics) { request in
            handlers.withLock { $0 += 1 }
            defer { handlers.withLock { $0 -= 1 } }
            switch request.path {
            case "/wait":
                await Signal().wait()
                endedWaits.continuation.yield()
            case "/read": _ = try await request.body.collect(upTo: 1 << 20)
            case "/large": return ServerResponse(status: .ok, body: Self.large)
            default: break
            }
            return ServerResponse(status: .ok)
        } during: { server in
            let isOver = Locked(false)
            async let behaved = Self.behave(server.port, until: isOver)
            let flooded = try await Self.run(flood, server.port, handlers: endedWaits.stream)
            isOver.withLock { $0 = true }
            let (answers, slowest) = try await behaved
            #expect(flooded > 0)
            #expect(answers > 0)
            #expect(slowest < Self.patience)
            while metrics.level("connections") != 0 || metrics.level("streams") != 0
                || handlers.withLock({ $0 }) != 0
            {
                await Task.yield()
            }
            let expected = Set(flood.limit.map { [$0.rawValue] } ?? [])
            #expect(metrics.limitHits == expected || (flood.libraryEnds != nil && metrics.limitHits.isEmpty))
        }
    }

    // MARK: The client that behaves

    /// Asks one thing after the other, on one connection that the server has no reason to end.
    ///
    /// - Returns: how many answers there were, and how long the slowest has taken.
    private static func behave(_ port: Int, until isOver: borrowing Locked<Bool>) async throws -> (Int, Duration) {
        let client = try await FrameClient.connect(port)
        var answers = 0
        var slowest = Duration.zero
        repeat {
            let began = ContinuousClock.now
            let stream = UInt32(2 * answers + 1)
            try await client.send(.request(stream))
            let answer = try await client.next { $0.kind != .settings && $0.kind != .windowUpdate }
            // Anything else ends the test: GOAWAY, RST_STREAM.
            try #require(answer.kind == .headers && answer.stream == stream && answer.endsStream)
            try #require(answer.status == 200)
            answers += 1
            slowest = max(slowest, .now - began)
        } while !isOver.withLock { $0 }
        return (answers, slowest)
    }

    // MARK: The one that floods

    /// - Parameter handlers: of `/wait`, as they end.
    /// - Returns: how many connections the server has put an end to, or held back as it should; of a flood that does no wrong,
    ///   how many there were.
    private static func run(_ flood: Flood, _ port: Int, handlers: AsyncStream<Void>) async throws -> Int {
        let deadline = ContinuousClock.now + duration
        var count = 0
        switch flood.course {
        case .endless(let start, let unit):
            repeat {
                try await floodUntilCutOff(flood, port, start, unit)
                count += 1
            } while ContinuousClock.now < deadline
        case .brief(let bytes):
            repeat {
                let client = try await FrameClient.connect(port, handshake: false)
                try await client.send(bytes: bytes)
                try await client.close()
                count += 1
            } while ContinuousClock.now < deadline
        case .slow(let bytes, let isAwaited, let frames):
            for client in try await connect(port, bytes) {
                for _ in 0..<frames { _ = try await client.next(where: isAwaited) }
                count += 1
            }
        case .deaf(let bytes):
            let clients = try await connect(port, bytes, reads: false)
            var handlers = handlers.makeAsyncIterator()
            for client in clients {
                // The server has closed the connection of one of them.
                _ = await handlers.next()
                try await client.close()
                count += 1
            }
        }
        return count
    }

    /// Floods on one connection until the server ends it.
    private static func floodUntilCutOff(
        _ flood: Flood, _ port: Int, _ start: [UInt8], _ unit: (Int) -> [UInt8]
    ) async throws {
        let client = try await FrameClient.connect(port, handshake: false)
        var sent = 0
        try await client.send(bytes: start)
        // The start has been answered: what follows is judged by itself.
        _ = try await client.next { $0.kind == .settings && $0.flags == Frame.acknowledgement }
        do {
            while true {
                try await client.send(bytes: unit(sent))
                sent += 1
            }
        } catch is IOError {
            // Closed while it was sending.
        } catch is ChannelError {
            // Closed before.
        }
        _ = try await client.next { Flood.isCalm($0) || flood.isEndedByLibrary($0) }
        #expect(try await client.next() == nil)
    }

    private static func connect(_ port: Int, _ bytes: [UInt8], reads: Bool = true) async throws -> [FrameClient] {
        var clients: [FrameClient] = []
        for _ in 0..<connections {
            let client = try await FrameClient.connect(port, handshake: false)
            if !reads {
                try await client.channel.setOption(.autoRead, value: false).get()
                try await client.channel.setOption(.socketOption(.so_rcvbuf), value: 4096).get()
            }
            try await client.send(bytes: bytes)
            clients.append(client)
        }
        return clients
    }
}

extension TestMetrics {
    /// How many connections, or streams, the server says are open.
    fileprivate func level(_ name: String) -> Double {
        meters.first { $0.label == "limpet_server_\(name)" }?.values.last ?? 0
    }

    /// The limits that were hit.
    fileprivate var limitHits: Set<String> {
        Set(counters.filter { $0.label == "limpet_server_limit_hits_total" }.flatMap { $0.dimensions.map(\.1) })
    }
}
