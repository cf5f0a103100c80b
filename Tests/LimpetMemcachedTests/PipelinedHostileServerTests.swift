import InMemoryLogging
import Limpet
import LimpetMemcached
import Logging
import Testing

/// Servers that answer meta commands as memcached would not.
struct PipelinedHostileServerTests {
    /// The mark of a request, as it stands at its end.
    private static func mark(_ line: String) -> Substring { line.split(separator: " ").last ?? "" }

    private func makeStore(
        _ server: HostileServer, timeout: Duration = .milliseconds(500), _ log: InMemoryLogHandler = .init()
    ) throws -> MemcachedStore {
        try LimpetMemcachedTests.makeStore(
            server.address, transport: .pipelined, timeout: timeout, logger: Logger(label: "test") { _ in log })
    }

    @Test(arguments: [
        "EN\r\n", "EN O7777\r\n", "VA 3 c7 O7777\r\none\r\n", "VA 3 c7\r\none\r\n", "HD $\r\n", "NF $\r\n",
        "EX c0 $\r\n",
        "NS $\r\n", "MN\r\n", "END\r\n", "STORED\r\n", "STAT a b\r\n", "ERROR\r\n",
        "CLIENT_ERROR bad command line format\r\n",
        "SERVER_ERROR out of memory writing get response\r\n", "SERVER_ERROR object too large for cache\r\n",
        "NONSENSE\r\n",
        "\r\n", "\n", "VA 2 c7 $\r\none\r\n", "VA 4 c7 $\r\none\r\nEN\r\n", "VA 9999999999 c7 $\r\n",
        "VA x c7 $\r\none\r\n",
        "VALUE a 0 3 7\r\none\r\nEND\r\n", "VA 3 c99999999999999999999 $\r\none\r\n", "VA 3 c7 OXYZ\r\none\r\n",
        "VA 3 c0 $\r\none\r\n", String(repeating: "x", count: 10_000),
    ])
    func `an answer that is no answer to a read is a failure, said once, and never an absent key`(
        answer: String
    ) async throws {
        let server = try HostileServer.meta { answer.replacing("$", with: Self.mark($0)) }
        defer { server.stop() }
        let log = InMemoryLogHandler()
        let store = try makeStore(server, log)
        for _ in 0..<3 {
            let error = await failure { _ = try await store.read(key("a")) }
            #expect(error?.mayHaveTakenEffect == false)
        }
        let warnings = log.entries.filter { $0.level == .warning }
        // A token of 0 is an answer, of a server that cannot be used.
        #expect(warnings.count == (answer.hasPrefix("VA 3 c0") ? 0 : 1))
        for warning in warnings {
            #expect(warning.message == "a memcached server does not answer")
            #expect(warning.metadata["server"] == "\(server.address)")
            let problem =
                answer == "ERROR\r\n" ? "unavailable: the server does not speak meta" : "corrupt: the server a"
            #expect(warning.metadata["error"]?.description.hasPrefix(problem) == true)
        }
    }

    @Test func `a value and an absent key are what they are`() async throws {
        let server = try HostileServer.meta { line in
            let mark = Self.mark(line)
            return line.hasPrefix("mg a ") ? "VA 3 c7 \(mark)\r\none\r\n" : "EN \(mark)\r\n"
        }
        defer { server.stop() }
        let store = try makeStore(server)
        #expect(try await store.text(key("a")) == "one")
        #expect(try await store.text(key("b")) == nil)
    }

    @Test func `replies in another order are noticed, and nobody gets another caller's`() async throws {
        let first = Locked<Substring?>(nil)
        // Waits for two requests, and answers the second first.
        let server = try HostileServer.meta { line in
            guard let mark = first.withLock({ $0.take() }) else {
                first.withLock { $0 = Self.mark(line) }
                return ""
            }
            return "VA 1 c7 \(Self.mark(line))\r\n2\r\nVA 1 c7 \(mark)\r\n1\r\n"
        }
        defer { server.stop() }
        let store = try makeStore(server)
        let results = await store.get([key("a"), key("b")])
        for result in results {
            #expect(throws: StoreError.self) { try result.get() }
        }
    }

    @Test(arguments: [
        "", "NONSENSE\r\n", "SERVER_ERROR timeout\r\n", "ERROR\r\n", "CLIENT_ERROR no\r\n", "HD c8 O7777\r\n",
        "END\r\n",
        "EN $\r\n", "VA 1 $\r\n1\r\n", "STORED\r\n", "DELETED\r\n", "HD c8\r\n", "MN\r\n",
    ])
    func `an answer that is no answer to a write leaves its effect open, and voids the token`(
        answer: String
    ) async throws {
        let server = try HostileServer.meta { line in
            if line.hasPrefix("mg ") { return "VA 3 c7 \(Self.mark(line))\r\none\r\n" }
            return line.hasPrefix("ms ") ? answer.replacing("$", with: Self.mark(line)) : ""
        }
        defer { server.stop() }
        let store = try makeStore(server, timeout: .milliseconds(300))
        let token = try #require(try await store.read(key("a"))).token
        let error = await failure { try await store.put("two", key("a"), if: .unchanged(since: token)) }
        #expect(error?.mayHaveTakenEffect == true)
        try await eventually(within: .seconds(3)) { _ = try await store.read(key("a")) }
        #expect(try await store.put("two", key("a"), if: .unchanged(since: token)) == .conflict)
        #expect(server.lines.count { $0.hasPrefix("ms ") } == 1, "a swap is never sent twice")
    }

    @Test func `a connection that ends in the middle of a swap is ambiguous, and the swap is not sent again`()
        async throws
    {
        let server = try HostileServer.meta { line in
            if line.hasPrefix("mg ") { return "VA 3 c7 \(Self.mark(line))\r\none\r\n" }
            return line.hasPrefix("ms ") ? nil : ""
        }
        defer { server.stop() }
        let store = try makeStore(server)
        let token = try #require(try await store.read(key("a"))).token
        let error = await failure { try await store.put("two", key("a"), if: .unchanged(since: token)) }
        #expect(error?.code == .connectionLost)
        #expect(error?.mayHaveTakenEffect == true)
        #expect(server.lines.count { $0.hasPrefix("ms ") } == 1)
    }

    @Test func `a write is not sent before the server has said what it takes`() async throws {
        let server = try HostileServer { _ in "" }
        defer { server.stop() }
        let store = try makeStore(server, timeout: .milliseconds(100))
        let error = await failure { try await store.put("one", key("a"), if: .absent) }
        #expect(error?.code == .timeout)
        #expect(error?.mayHaveTakenEffect == false)
        #expect(server.lines.count == 1 && server.lines[0].hasPrefix("get limpet:hello:"))
    }

    @Test func `a server that is right for reads and wrong for writes is said to be wrong once`() async throws {
        let server = try HostileServer.meta { line in
            if line.hasPrefix("mg ") { return "EN \(Self.mark(line))\r\n" }
            return line.hasPrefix("ms ") ? "NONSENSE\r\n" : ""
        }
        defer { server.stop() }
        let log = InMemoryLogHandler()
        let store = try makeStore(server, log)
        for _ in 0..<5 {
            try await eventually(within: .seconds(3)) { _ = try await store.read(key("a")) }
            let error = await failure { try await store.put("x", key("a"), if: .absent) }
            #expect(error?.code == .corrupt)
            #expect(error?.mayHaveTakenEffect == true)
        }
        #expect(log.entries.count { $0.level == .warning } == 1)
        #expect(log.entries.count { $0.message == "a memcached server answers again" } == 0)
    }

    @Test func `a server that lies about the size of its items makes nobody wait for a value without an end`()
        async throws
    {
        let server = try HostileServer { line in
            switch line {
            case _ where line.hasPrefix("get limpet:hello:"): "END\r\n"
            case "mn": "MN\r\n"
            case _ where line.hasPrefix("mg limpet:hello:"): "EN O1\r\n"
            case "stats settings": "STAT item_size_max 9223372036854775807\r\nSTAT evictions on\r\nEND\r\n"
            default: "VA 1099511627776 c7 \(Self.mark(line))\r\n"
            }
        }
        defer { server.stop() }
        let store = try makeStore(server, timeout: .seconds(5))
        #expect(await failure { _ = try await store.read(key("a")) }?.code == .corrupt)
    }

    @Test(arguments: ["ma", "md", "mg"])
    func `an increment, a deletion and a touch that are cut off are ambiguous`(command: String) async throws {
        let server = try HostileServer.meta { $0.hasPrefix(command) ? nil : "" }
        defer { server.stop() }
        let store = try makeStore(server)
        let error = await failure {
            switch command {
            case "ma": _ = try await store.increment([key("a"), key("b")], by: 1)
            case "md": _ = try await store.delete(key("a"), ifUnchangedSince: nil)
            default: _ = try await store.touch(key("a"), timeToLive: .seconds(60))
            }
        }
        #expect(error?.code == .connectionLost)
        #expect(error?.mayHaveTakenEffect == true)
    }

    @Test func `a reply that nobody asked for ends the connection, and the next call has another`() async throws {
        let log = InMemoryLogHandler()
        let server = try HostileServer.meta { line in
            line.hasPrefix("mg a ") ? "EN \(Self.mark(line))\r\nEN \(Self.mark(line))\r\n" : "EN \(Self.mark(line))\r\n"
        }
        defer { server.stop() }
        let store = try makeStore(server, log)
        #expect(try await store.read(key("a")) == nil)
        try await eventually(within: .seconds(3)) {
            _ = try await store.read(key("b"))
            guard server.connections == 2 else {
                throw StoreError(.unavailable, "still the first connection", mayHaveTakenEffect: false)
            }
        }
        #expect(log.entries.contains { $0.level == .warning })
    }

    @Test func `a value that is surely too large is not sent`() async throws {
        let server = try HostileServer.meta { _ in nil }
        defer { server.stop() }
        let store = try makeStore(server)
        let value = [UInt8](repeating: 0x61, count: 1 << 20)
        for condition in [StoreCondition.always, .absent] {
            let error = await failure {
                _ = try await store.put(value, for: key("a"), timeToLive: .seconds(60), if: condition)
            }
            #expect(error?.code == .tooLarge)
            #expect(error?.mayHaveTakenEffect == false)
        }
        #expect(!server.lines.contains { $0.hasPrefix("ms ") })
    }

    @Test func `a value that the server refuses fails alone`() async throws {
        let server = try HostileServer.meta { line in
            if line.hasPrefix("mg ") { return "EN \(Self.mark(line))\r\n" }
            guard line.hasPrefix("ms ") else { return "" }
            return line.hasPrefix("ms large ")
                ? "SERVER_ERROR object too large for cache\r\n" : "SERVER_ERROR out of memory storing object\r\n"
        }
        defer { server.stop() }
        let store = try makeStore(server)
        let large = await failure { try await store.put("x", key("large"), if: .absent) }
        #expect(large?.code == .tooLarge)
        let other = await failure { try await store.put("x", key("other"), if: .absent) }
        #expect(other?.code == .outOfMemory)
        #expect(try await store.read(key("a")) == nil)
        #expect(server.connections == 1)
    }

    @Test func `a server that runs out of room is written to with commands that keep the old value`() async throws {
        let server = try HostileServer.meta(evicts: false) { line in
            if line.hasPrefix("mg ") { return "VA 3 c7 \(Self.mark(line))\r\none\r\n" }
            return line.hasPrefix("cas ") || line.hasPrefix("add ") || line.hasPrefix("replace ") ? "STORED\r\n" : ""
        }
        defer { server.stop() }
        let store = try makeStore(server)
        let token = try #require(try await store.read(key("a"))).token
        #expect(try await store.put("two", key("a"), if: .unchanged(since: token)) == .stored(nil))
        #expect(try await store.put("two", key("a"), if: .absent) == .stored(nil))
        #expect(try await store.put("two", key("a"), if: .always) == .stored(nil))
        let words = server.lines.compactMap { $0.split(separator: " ").first }
        #expect(words.filter { ["cas", "add", "replace", "ms"].contains($0) } == ["cas", "add", "replace"])
    }

    @Test func `a server that ends each connection is asked ever more rarely`() async throws {
        let server = try HostileServer { _ in nil }
        defer { server.stop() }
        let store = try makeStore(server)
        let start = ContinuousClock.now
        while server.connections < 6 {
            let error = await failure { try await store.put("x", key("a")) }
            #expect(error?.code == .unavailable)
            #expect(error?.mayHaveTakenEffect == false)
        }
        // Pauses of 20, 40, 80, 160 and 320 ms at most, half of that at least.
        #expect(ContinuousClock.now - start >= .milliseconds(310))
    }
}
