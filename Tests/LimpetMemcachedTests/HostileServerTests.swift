import Limpet
import LimpetMemcached
import Testing

/// Servers and proxies that answer libmemcached what memcached would not.
struct HostileServerTests {
    @Test(arguments: [
        "SERVER_ERROR out of memory writing get response\r\n", "SERVER_ERROR\r\n", "SERVER_ERROR timeout\r\n",
        "SERVER_ERROR object too large for cache\r\n", "ERROR\r\n", "CLIENT_ERROR bad command line format\r\n",
        "STORED\r\n", "NONSENSE\r\n", "\r\n", "VALUE a 0 3\r\none\r\nEND\r\n", "VALUE a 0 3 0\r\none\r\nEND\r\n",
        "VALUE b 0 3 7\r\ntwo\r\nEND\r\n", "VALUE a 0 3 7\r\none\r\nVALUE a 0 3 7\r\none\r\nEND\r\n",
        "VALUE a 0 3 7\r\none\r\nSERVER_ERROR out of memory\r\n", "VALUE a 0 9999999 7\r\none\r\nEND\r\n",
        "VALUE a 0 3 7\r\nEND\r\n", "EXISTS\r\n", "DELETED\r\n", "42\r\n",
        "VALUE a 0 3 7\r\none\r\nEND\r\nVALUE a 0 3 7\r\n",
    ])
    func `an answer that is no answer to a read is a failure, and never an absent key`(answer: String) async throws {
        let server = try HostileServer { _ in answer }
        defer { server.stop() }
        let store = try makeStore(server.address, transport: .libmemcached, timeout: .milliseconds(200), connections: 1)
        let error = await failure { _ = try await store.read(key("a")) }
        #expect(error?.mayHaveTakenEffect == false)
    }

    @Test func `a key that is absent is absent`() async throws {
        let server = try HostileServer { _ in "END\r\n" }
        defer { server.stop() }
        let store = try makeStore(server.address, transport: .libmemcached, connections: 1)
        #expect(try await store.read(key("a")) == nil)
    }

    // Not among them: answers that are right for another command (END, DELETED). libmemcached 1.1.4 as Debian builds it
    // ends the process on them, with an assertion in storage.cc.
    @Test(arguments: ["", "NONSENSE\r\n", "SERVER_ERROR timeout\r\n", "ERROR\r\n", "CLIENT_ERROR no\r\n"])
    func `an answer that is no answer to a write leaves its effect open, and voids the token`(answer: String)
        async throws
    {
        let server = try HostileServer { line in
            if line.hasPrefix("gets ") {
                return line.contains(" a") ? "VALUE a 0 3 7\r\none\r\nEND\r\n" : "END\r\n"
            }
            return line.hasPrefix("cas ") ? answer : ""
        }
        defer { server.stop() }
        let store = try makeStore(server.address, transport: .libmemcached, timeout: .milliseconds(200), connections: 1)
        let token = try #require(try await store.read(key("a"))).token
        let error = await failure { try await store.put("two", key("a"), if: .unchanged(since: token)) }
        #expect(error?.mayHaveTakenEffect == true)
        #expect(try await store.put("two", key("a"), if: .unchanged(since: token)) == .conflict)
        #expect(server.lines.count { $0.hasPrefix("cas ") } == 1, "a swap is never sent twice")
    }

    @Test func `a connection that ends in the middle of a swap is ambiguous, and the swap is not sent again`()
        async throws
    {
        let server = try HostileServer { line in
            if line.hasPrefix("gets ") { return "VALUE a 0 3 7\r\none\r\nEND\r\n" }
            return line.hasPrefix("cas ") ? nil : ""
        }
        defer { server.stop() }
        let store = try makeStore(server.address, transport: .libmemcached, connections: 1)
        let token = try #require(try await store.read(key("a"))).token
        let error = await failure { try await store.put("two", key("a"), if: .unchanged(since: token)) }
        #expect(error?.code == .connectionLost)
        #expect(error?.mayHaveTakenEffect == true)
        #expect(server.lines.count { $0.hasPrefix("cas ") } == 1)
    }

    @Test func `a write is not sent before the server has answered a read on the connection`() async throws {
        let server = try HostileServer { _ in "" }
        defer { server.stop() }
        let store = try makeStore(server.address, transport: .libmemcached, timeout: .milliseconds(100), connections: 1)
        let error = await failure { try await store.put("one", key("a"), if: .absent) }
        #expect(error?.code == .timeout)
        #expect(error?.mayHaveTakenEffect == false)
        #expect(server.lines.allSatisfy { $0.hasPrefix("gets ") || $0 == "quit" })
    }
}
