import InMemoryLogging
import Limpet
import LimpetTesting
import Logging
import Testing

@testable import LimpetMemcached

/// `memcached.transport`: which way to the servers is taken.
struct TransportChoiceTests {
    /// memcached without meta commands, or a proxy: answers what it does not know, or closes the connection.
    private func oldServer(_ unknown: String?) throws -> HostileServer {
        try HostileServer { line in
            let words = line.split(separator: " ")
            switch words.first {
            case "get": return "END\r\n"
            case "gets": return words.dropFirst().map { "VALUE \($0) 0 3 7\r\none\r\n" }.joined() + "END\r\n"
            case "cas": return "STORED\r\n"
            case "two", nil: return ""
            default: return unknown
            }
        }
    }

    @Test(arguments: ["ERROR\r\n", "CLIENT_ERROR unknown\r\n", nil])
    func `auto uses libmemcached where a server does not speak meta commands`(unknown: String?) async throws {
        let server = try oldServer(unknown)
        defer { server.stop() }
        let log = InMemoryLogHandler()
        let store = try makeStore(server.address, connections: 1, logger: Logger(label: "test") { _ in log })
        #expect(store.lanes.isEmpty)
        // A proxy that closes the connection does so twice before it is believed.
        try await eventually(within: .seconds(3)) {
            let text = try await store.text(key("a"))
            #expect(text == "one")
        }
        #expect(store.lanes.count == 1)
        let token = try #require(try await store.read(key("a"))).token
        #expect(try await store.put("two", key("a"), if: .unchanged(since: token)) == .stored(nil))
        let notices = log.entries.filter { $0.level == .notice && $0.message.description.contains("meta commands") }
        #expect(notices.count == 1)
    }

    @Test func `auto uses libmemcached where the meta commands are those of an earlier time`() async throws {
        let server = try HostileServer { line in
            let mark = line.split(separator: " ").last ?? ""
            switch line.split(separator: " ").first {
            case "get": return "END\r\n"
            case "mn": return "MN\r\n"
            case "mg": return "EN \(mark)\r\n"
            case "stats": return "STAT item_size_max 1048576\r\nSTAT evictions on\r\nEND\r\n"
            case "ms": return "OK \(mark)\r\n"
            case "gets": return "VALUE a 0 3 7\r\none\r\nEND\r\n"
            default: return ""
            }
        }
        defer { server.stop() }
        let store = try makeStore(server.address, connections: 1)
        #expect(try await store.read(key("a")) == nil)
        // What was answered so was done, or was not: nobody here knows those commands.
        let error = await failure { try await store.put("x", key("a"), if: .absent) }
        #expect(error?.mayHaveTakenEffect == true)
        #expect(try await store.text(key("a")) == "one")
        #expect(store.lanes.count == 1)
    }

    @Test func `auto uses meta commands where there are any`() async throws {
        let server = try await CommonServer.first.value
        let store = try makeStore(server.address, transport: .auto)
        guard case .stored(_?) = try await store.put("one", key("transport-choice")) else {
            Issue.record("no token was told")
            return
        }
        #expect(store.lanes.isEmpty)
    }

    @Test func `one server without meta commands is enough, and what was asked of all is done`() async throws {
        let living = try await MemcachedServer.start()
        let old = try oldServer("ERROR\r\n")
        defer { old.stop() }
        let store = try makeStore(living.address, old.address, connections: 1)
        let results = await store.get((0..<50).map { key("k\($0)", group: "g\($0)") })
        for result in results { _ = try result.get() }
        #expect(store.lanes.count == 2)
        let first = StoreKey("n", placement: .server(0))
        #expect(try await store.put("1", first, if: .absent) == .stored(nil))
        #expect(try await store.increment([first], by: 2) == [3])
        #expect(try await store.touch(first, timeToLive: .seconds(60)))
        #expect(try await store.delete(first, ifUnchangedSince: nil) == .deleted)
    }

    @Test(arguments: ["ERROR\r\n", nil])
    func `pipelined says which key is wrong where a server does not speak meta commands`(unknown: String?) async throws
    {
        let server = try oldServer(unknown)
        defer { server.stop() }
        let store = try makeStore(server.address, transport: .pipelined)
        try await eventuallyTrue {
            let error = await failure { _ = try await store.read(key("a")) }
            #expect(error?.code == .unavailable)
            return error?.message.contains("memcached.transport") == true
        }
        #expect(store.lanes.isEmpty)
    }

    @Test func `libmemcached needs no meta commands and asks for none`() async throws {
        let server = try oldServer("ERROR\r\n")
        defer { server.stop() }
        let store = try makeStore(server.address, transport: .libmemcached, connections: 1)
        #expect(try await store.text(key("a")) == "one")
        #expect(!server.lines.contains("mn"))
    }
}
