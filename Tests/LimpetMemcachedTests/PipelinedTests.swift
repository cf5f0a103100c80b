import Limpet
import LimpetServer
import LimpetTesting
import Logging
import NIOCore
import NIOPosix
import ServiceLifecycle
import Synchronization
import Testing

@testable import LimpetMemcached

/// The pipelined transport with a real memcached.
struct PipelinedTests {
    /// Runs something on an event loop, as a request's handler runs on its connection's.
    @discardableResult
    private func on<Value: Sendable>(
        _ eventLoop: any EventLoop, _ body: @escaping @Sendable () async throws -> Value
    ) async throws -> Value {
        try await Task(executorPreference: EventLoopTaskExecutor(eventLoop)) {
            eventLoop.preconditionInEventLoop()
            return try await body()
        }.value
    }

    /// So many event loops for a while.
    private func withLoops(_ count: Int, _ body: ([any EventLoop]) async throws -> Void) async throws {
        let group = MultiThreadedEventLoopGroup(numberOfThreads: count)
        let result: Result<Void, any Error>
        do {
            result = .success(try await body(Array(group.makeIterator())))
        } catch {
            result = .failure(error)
        }
        try await group.shutdownGracefully()
        try result.get()
    }

    private func connections(_ server: MemcachedServer) throws -> Int {
        // The one that asks is one of them.
        try Int(server.statistics()["curr_connections"] ?? "").map { $0 - 1 } ?? -1
    }

    private final class Flag: Sendable {
        let isSet = Atomic(false)
    }

    @Test func `a store tells the token of what it stored, and a chain of swaps reads nothing`() async throws {
        let server = try await MemcachedServer.start()
        let store = try makeStore(server.address, transport: .pipelined)
        guard case .stored(var token?) = try await store.put("0", key("a")) else {
            Issue.record("no token")
            return
        }
        let reads = try server.statistics()["cmd_get"]
        for index in 1...200 {
            guard case .stored(let next?) = try await store.put("\(index)", key("a"), if: .unchanged(since: token))
            else {
                Issue.record("swap \(index) was not stored")
                return
            }
            #expect(next != token)
            token = next
        }
        #expect(try server.statistics()["cmd_get"] == reads)
        #expect(try await store.read(key("a"))?.token == token)
        guard case .stored(let added?) = try await store.put("0", key("b"), if: .absent) else {
            Issue.record("no token of an added value")
            return
        }
        #expect(try await store.delete(key("b"), ifUnchangedSince: added) == .deleted)
    }

    @Test func `there is one connection for each event loop that calls, and one for all who call from elsewhere`()
        async throws
    {
        let server = try await MemcachedServer.start()
        let store = try makeStore(server.address, transport: .pipelined)
        try await eventuallyTrue { try connections(server) == 0 }
        try await withLoops(3) { loops in
            for _ in 0..<3 {
                for (index, loop) in loops.enumerated() {
                    try await on(loop) { try await store.put("x", key("k\(index)")) }
                }
            }
            try await eventuallyTrue { try connections(server) == 3 }
            try await withThrowingTaskGroup { group in
                for index in 0..<50 { group.addTask { try await store.put("x", key("e\(index)")) } }
                try await group.waitForAll()
            }
            try await eventuallyTrue { try connections(server) == 4 }
        }
        // The event loops are no more. Others go on.
        #expect(try await store.text(key("k0")) == "x")
        try await eventuallyTrue { try connections(server) == 1 }
    }

    @Test func `a token is good on every connection, until any is opened or lost`() async throws {
        let server = try await MemcachedServer.start()
        let store = try makeStore(server.address, transport: .pipelined)
        try await withLoops(3) { loops in
            for loop in loops.prefix(2) { try await on(loop) { try await store.put("x", key("a")) } }
            let token = try #require(try await on(loops[0]) { try await store.read(key("a")) }).token
            let elsewhere = try await on(loops[1]) { try await store.put("y", key("a"), if: .unchanged(since: token)) }
            #expect(elsewhere != .conflict)
            let before = try #require(try await on(loops[0]) { try await store.read(key("a")) }).token
            // A connection is opened: the server behind it may be another than before.
            _ = try await on(loops[2]) { try await store.read(key("b")) }
            for loop in loops {
                let answer = try await on(loop) { try await store.put("z", key("a"), if: .unchanged(since: before)) }
                #expect(answer == .conflict)
                let deleted = try await on(loop) { try await store.delete(key("a"), ifUnchangedSince: before) }
                #expect(deleted == .conflict)
            }
            #expect(try await store.text(key("a")) == "y")
        }
    }

    @Test func `a token from before a restart is void on all connections as soon as one is open`() async throws {
        let server = try await MemcachedServer.start()
        let store = try makeStore(server.address, transport: .pipelined, timeout: .milliseconds(500))
        try await withLoops(2) { loops in
            for loop in loops { try await on(loop) { try await store.put("before", key("a")) } }
            let old = try #require(try await on(loops[0]) { try await store.read(key("a")) }).token
            try await server.restart()
            let other = try makeStore(server.address, transport: .pipelined)
            // As many writes as the old process had seen: the new value's token is the old one's.
            for _ in 0..<old.value { try await other.put("newer", key("a")) }
            #expect(try await other.read(key("a"))?.token.value == old.value)
            for loop in loops + loops {
                var answer = StorePut.conflict
                do {
                    answer = try await on(loop) { try await store.put("old", key("a"), if: .unchanged(since: old)) }
                } catch let error as StoreError {
                    #expect(error.saysOutage)
                }
                #expect(answer == .conflict)
                #expect(try await other.text(key("a")) == "newer")
            }
        }
    }

    @Test func `all that one turn of the event loop asks for is one write`() async throws {
        let server = try HostileServer.meta { "EN \($0.split(separator: " ").last ?? "")\r\n" }
        defer { server.stop() }
        let store = try makeStore(server.address, transport: .pipelined)
        let loop = MultiThreadedEventLoopGroup.singleton.next()
        _ = try await on(loop) { try await store.read(key("first")) }
        let before = server.pieces
        let tasks = try await on(loop) {
            // None of them begins before this turn is over.
            (0..<100).map { index in
                Task(executorPreference: EventLoopTaskExecutor(loop)) { try await store.read(key("k\(index)")) }
            }
        }
        for task in tasks { #expect(try await task.value == nil) }
        #expect(server.lines.count { $0.hasPrefix("mg k") } == 100)
        #expect(server.pieces - before <= 3)
    }

    @Test func `what is outstanding is bounded, and the rest waits for its turn`() async throws {
        let server = try HostileServer.meta { _ in "" }
        defer { server.stop() }
        let store = try makeStore(server.address, transport: .pipelined, timeout: .seconds(20))
        let keys = (0..<3000).map { key("k\($0)") }
        async let results = store.get(keys)
        var answered = 0
        while answered < keys.count {
            let outstanding = min(PipelinedConnection.maxCalls, keys.count - answered)
            try await eventuallyTrue { server.lines.count { $0.hasPrefix("mg k") } >= answered + outstanding }
            let lines = server.lines.filter { $0.hasPrefix("mg k") }
            #expect(lines.count == answered + outstanding)
            server.send(lines[answered...].map { "EN \($0.split(separator: " ").last ?? "")\r\n" }.joined())
            answered = lines.count
        }
        for result in await results { #expect(try result.get() == nil) }
    }

    @Test func `large values go out one after the other, and all come back whole`() async throws {
        let server = try await MemcachedServer.start("-m", "128")
        let store = try makeStore(server.address, transport: .pipelined, timeout: .seconds(10))
        try await withThrowingTaskGroup { group in
            for index in 0..<40 {
                group.addTask {
                    let value = [UInt8](repeating: UInt8(index), count: 900_000 + index)
                    _ = try await store.put(value, for: key("k\(index)"), timeToLive: .seconds(60), if: .always)
                    let read = try await store.read(key("k\(index)"))
                    #expect(read?.bytes == value)
                }
            }
            try await group.waitForAll()
        }
    }

    @Test func `the largest value that is sent is taken, and the next one is refused with the old one in place`()
        async throws
    {
        let server = try await MemcachedServer.start()
        let store = try makeStore(server.address, transport: .pipelined)
        for size in (1_048_576 - 200)...(1_048_576 - 40) where size % 7 == 0 {
            try await store.put("old", key("a"))
            do throws(StoreError) {
                let value = [UInt8](repeating: 0x61, count: size)
                _ = try await store.put(value, for: key("a"), timeToLive: .seconds(60), if: .always)
                let read = try await store.get([key("a")])[0].get()
                #expect(read?.bytes == value)
            } catch {
                #expect(error.code == .tooLarge)
                let text = try await store.text(key("a"))
                #expect(text == "old")
            }
        }
    }

    @Test func `what had been asked at shutdown is answered, and the connection is closed`() async throws {
        let server = try HostileServer.meta { _ in "" }
        defer { server.stop() }
        let store = try makeStore(server.address, transport: .pipelined, timeout: .seconds(20))
        let callers = (0..<10).map { _ in Task { try await store.increment([key("a")], by: 1) } }
        try await eventuallyTrue { server.lines.count { $0.hasPrefix("ma ") } == 10 }
        let group = ServiceGroup(services: [store], logger: Logger(label: "test") { _ in SwiftLogNoOpLogHandler() })
        async let running: Void = group.run()
        await group.triggerGracefulShutdown()
        let refusal = Flag()
        try await eventuallyTrue {
            // Until the store refuses them, they are outstanding as well.
            Task { [refusal] in
                if case .failure(let error) = await store.get([key("b")])[0], error.code == .closed {
                    refusal.isSet.store(true, ordering: .releasing)
                }
            }
            return refusal.isSet.load(ordering: .acquiring)
        }
        let marks = server.lines.filter { $0.hasPrefix("ma ") || $0.hasPrefix("mg b ") }
        server.send(
            marks.map { line in
                let mark = line.split(separator: " ").last ?? ""
                return line.hasPrefix("ma ") ? "VA 1 \(mark)\r\n5\r\n" : "EN \(mark)\r\n"
            }.joined())
        for caller in callers { #expect(try await caller.value == [5]) }
        try await running
    }

    @Test func `a store that is not run closes its connections when it goes`() async throws {
        let server = try await MemcachedServer.start()
        do {
            let store = try makeStore(server.address, transport: .pipelined)
            try await store.put("one", key("a"))
            try await eventuallyTrue { try connections(server) == 1 }
        }
        try await eventuallyTrue { try connections(server) == 0 }
    }

    @Test func `a server that closes idle connections is asked on a new one, and nobody notices`() async throws {
        let server = try await MemcachedServer.start("-o", "idle_timeout=1")
        let store = try makeStore(server.address, transport: .pipelined)
        try await store.put("one", key("a"))
        try await eventuallyTrue { try connections(server) == 0 }
        #expect(try await store.text(key("a")) == "one")
        try await eventuallyTrue { try connections(server) == 0 }
        #expect(try await store.put("two", key("a")) != .conflict)
    }

    private func makeServer() throws -> PipelinedServer {
        PipelinedServer(
            try MemcachedAddress("cache.example:11211"),
            PipelinedServer.Settings(
                timeout: .seconds(1), credentials: nil, tls: nil,
                logger: Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }, fallBack: nil))
    }

    @Test func `a name with several servers behind it is one of them, as long as a connection to it is open`() throws {
        let server = try makeServer()
        let first = try SocketAddress(ipAddress: "10.0.0.1", port: 11211)
        let second = try SocketAddress(ipAddress: "10.0.0.2", port: 11211)
        func target() -> SocketAddress? {
            guard case .connect(let address, isProbe: false) = server.admit(at: .now()) else { return nil }
            return address
        }
        #expect(target() == nil)
        #expect(server.opened(at: first, isProbe: false))
        #expect(target() == first)
        #expect(!server.opened(at: second, isProbe: false))
        server.failed(.elsewhere, isProbe: false)
        #expect(server.opened(at: first, isProbe: false))
        for _ in 0..<2 { server.lost(.ended, isFailure: false, wasProved: true) }
        #expect(target() == nil)
        #expect(server.opened(at: second, isProbe: false))
        #expect(target() == second)
    }

    @Test func `while a server is down one connection at a time is tried, after a pause`() throws {
        let server = try makeServer()
        let start = NIODeadline.now()
        func isProbe(at time: NIODeadline) -> Bool? {
            guard case .connect(_, let isProbe) = server.admit(at: time) else { return nil }
            return isProbe
        }
        // Both begin before anybody knows.
        #expect(isProbe(at: start) == false)
        #expect(isProbe(at: start) == false)
        server.failed(.timeout, isProbe: false)
        #expect(isProbe(at: start) == nil)
        let later = NIODeadline.now() + .seconds(1)
        #expect(isProbe(at: later) == true)
        #expect(isProbe(at: later) == nil)
        // The second of those says nothing new, and does not end the probe.
        server.failed(.timeout, isProbe: false)
        #expect(isProbe(at: later) == nil)
        #expect(server.opened(at: nil, isProbe: true))
        // Until it has answered something, others are probes; what is a probe stays one.
        #expect(isProbe(at: later) == true)
        server.proved()
        #expect(isProbe(at: start) == false)
        #expect(server.opened(at: nil, isProbe: true))
        // What many connections meet together is one failure.
        #expect(server.opened(at: nil, isProbe: false))
        for _ in 0..<2 { server.lost(.timeout, isFailure: true, wasProved: true) }
        #expect(isProbe(at: .now() + .milliseconds(21)) == true)
    }

    @Test func `pauses between attempts double up to half a second, and are never the same for all`() {
        for (failures, longest) in [(0, 20), (1, 20), (2, 40), (3, 80), (4, 160), (5, 320), (6, 500), (99, 500)] {
            let pauses = (0..<200).map { _ in PipelinedServer.pause(after: failures).nanoseconds }
            let limit = Int64(longest) * 1_000_000
            #expect(pauses.allSatisfy { (limit / 2...limit).contains($0) })
            #expect(Set(pauses).count > 100)
        }
    }
}
