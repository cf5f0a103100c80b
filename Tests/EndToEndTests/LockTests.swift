import Foundation
import LimpetTesting
import Testing

/// One session, and many clients that count in it at once: real nodes, a real memcached, and h2load.
@Suite(.serialized, .timeLimit(.minutes(2)))
struct LockTests {
    private let memcached: MemcachedServer
    private let client = HTTPClient()

    init() async throws {
        memcached = try await MemcachedServer.start()
    }

    /// Sends `POST /count` with the client's cookie, 32 requests at a time over four connections.
    ///
    /// - Returns: how many were answered with 200; all of them were answered.
    private func hammer(_ node: NodeProcess, _ requests: Int) async throws -> Int {
        let cookie = try #require(client.cookie)
        let printed = try await output(
            of: "h2load",
            [
                "-n", "\(requests)", "-c", "4", "-m", "8", "-H", ":method: POST", "-H", "cookie: \(cookie)",
                "http://127.0.0.1:\(node.port)/count",
            ])
        let line = try #require(
            printed.firstMatch(of: /status codes: (\d+) 2xx, 0 3xx, (\d+) 4xx, (\d+) 5xx/), "\(printed)")
        let counts = [line.1, line.2, line.3].compactMap { Int($0) }
        #expect(counts.reduce(0, +) == requests, "\(printed)")
        return counts[0]
    }

    private func count(_ node: NodeProcess) async throws -> String? {
        try await client.request("GET", port: node.port, "/session").json("count")
    }

    @Test(arguments: ["node", "cluster"])
    func `on one node every request counts`(scope: String) async throws {
        let a = try NodeProcess("a", memcached: [memcached.port], lock: ["scope": scope])
        try await client.request("POST", port: a.port, "/count")
        #expect(try await hammer(a, 2000) == 2000)
        #expect(try await count(a) == "2001")
        #expect(try await a.statistics().sessionsEntered == 0)
    }

    @Test func `a page's streams that only read are in the session together, whatever writes beside them`() async throws
    {
        let a = try NodeProcess("a", memcached: [memcached.port], lock: ["rules": ["read GET /hold"]])
        try await client.request("POST", port: a.port, "/count")
        let cookie = try #require(client.cookie)
        let script = URL(filePath: #filePath).deletingLastPathComponent().appending(path: "page-client")
        let printed = try await output(
            of: "/usr/bin/python3", [script.path, "\(a.port)", cookie, "3", "/hold?ms=100", "/count"])
        // One after the other, 45 that take a tenth of a second would take four and a half.
        let median = try #require(printed.firstMatch(of: #/GET ([\d.]+) /#).flatMap { Double($0.1) })
        #expect((100..<1000).contains(median), "\(printed)")
        // The first page is not timed.
        #expect(try await count(a) == "\(1 + 4 * 5)")
    }

    @Test func `on two nodes at once every request counts, in the cluster's lock`() async throws {
        let a = try NodeProcess("a", memcached: [memcached.port], lock: ["scope": "cluster"])
        let b = try NodeProcess("b", memcached: [memcached.port], lock: ["scope": "cluster"])
        try await client.request("POST", port: a.port, "/count")
        async let onA = hammer(a, 1000)
        async let onB = hammer(b, 1000)
        #expect(try await (onA, onB) == (1000, 1000))
        #expect(try await count(a) == "2001")
        #expect(try await count(b) == "2001")
        for node in [a, b] { #expect(try await node.statistics().sessionsEntered == 0) }
    }

    @Test func `a holder that is killed is waited for until its lease is over, and what it stored is there`()
        async throws
    {
        let lock: [String: Any] = ["scope": "cluster", "leaseSeconds": 3]
        let a = try NodeProcess("a", memcached: [memcached.port], lock: lock)
        let b = try NodeProcess("b", memcached: [memcached.port], lock: lock)
        for _ in 0..<3 { try await client.request("POST", port: a.port, "/count") }
        a.killHard()
        let answer = try await client.request("POST", port: b.port, "/count")
        #expect(answer.status == 200)
        #expect(try answer.json("count") == "4")
    }

    @Test func `a holder that slept while another one took its lock commits nothing over it`() async throws {
        let lock: [String: Any] = ["scope": "cluster", "leaseSeconds": 3]
        let a = try NodeProcess("a", memcached: [memcached.port], lock: lock)
        let b = try NodeProcess("b", memcached: [memcached.port], lock: lock)
        for _ in 0..<3 { try await client.request("POST", port: a.port, "/count") }
        let old = client.cookie
        try a.pause()
        #expect(try await client.request("POST", port: b.port, "/count").json("count") == "4")
        // This one is on its way when the node wakes up.
        async let late = HTTPClient().request("POST", port: a.port, "/count", cookie: old)
        try a.resume()
        let answer = try await late
        // In the lock again, or refused: never counted on what the node had before it slept.
        let counted = answer.status == 200 ? 5 : 4
        if answer.status == 200 { #expect(try answer.json("count") == "5") } else { #expect(answer.status == 503) }
        #expect(try await count(b) == "\(counted)")
    }
}
