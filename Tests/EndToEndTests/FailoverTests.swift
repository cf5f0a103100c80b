import Foundation
import LimpetTesting
import Testing

/// Two real nodes, a real memcached, a real HTTP/2 client, and kill -9.
@Suite(.serialized)
struct FailoverTests {
    private let memcached: MemcachedServer
    private let client = HTTPClient()

    init() async throws {
        memcached = try await MemcachedServer.start()
    }

    @Test func `sticky hits make no store call`() async throws {
        let a = try NodeProcess("a", memcached: [memcached.port])
        for _ in 0..<3 { try await client.request("POST", port: a.port, "/count") }
        let before = try await a.statistics()
        for _ in 0..<20 {
            let answer = try await client.request("GET", port: a.port, "/session")
            #expect(try answer.json("source") == "local")
            #expect(try answer.json("count") == "3")
        }
        let after = try await a.statistics()
        #expect(after.localHits - before.localHits == 20)
        // The tokens of the three writes may be read behind their answers, in one call each.
        #expect(after.storeCalls - before.storeCalls <= 1)
        #expect(after.storeOperations["put"] == before.storeOperations["put"])
    }

    @Test func `a session survives kill -9 of its home and comes home in the other node, and again`() async throws {
        var a = try NodeProcess("a", memcached: [memcached.port])
        let b = try NodeProcess("b", memcached: [memcached.port])
        for number in 1...5 {
            #expect(try await client.request("POST", port: a.port, "/count").json("count") == "\(number)")
        }
        #expect(client.route == "a")
        a.killHard()
        let first = try await client.request("GET", port: b.port, "/session")
        #expect(try first.json("source") == "store")
        #expect(try first.json("count") == "5")
        #expect(try first.json("home") == "b")
        #expect(client.route == "b")
        #expect(try await client.request("GET", port: b.port, "/session").json("source") == "local")
        for number in 6...9 {
            #expect(try await client.request("POST", port: b.port, "/count").json("count") == "\(number)")
        }
        // The same name, another start: what it had is gone, what it knows is not trusted.
        a = try NodeProcess("a", memcached: [memcached.port], port: a.port)
        b.killHard()
        #expect(try await client.request("POST", port: a.port, "/count").json("count") == "10")
        #expect(client.route == "a")
    }

    @Test func `ten parallel requests of one session on one node count to exactly ten`() async throws {
        let a = try NodeProcess("a", memcached: [memcached.port])
        try await client.request("PUT", port: a.port, "/attributes/x", body: "1")
        let cookie = client.cookie
        try await withThrowingTaskGroup(of: Int.self) { group in
            for _ in 0..<10 {
                group.addTask {
                    try await HTTPClient().request("POST", port: a.port, "/count", cookie: cookie).status
                }
            }
            for try await status in group { #expect(status == 200) }
        }
        #expect(try await client.request("GET", port: a.port, "/session").json("count") == "10")
    }

    @Test func `a request waits for its session, and says how long`() async throws {
        let a = try NodeProcess("a", memcached: [memcached.port])
        try await client.request("POST", port: a.port, "/count")
        let cookie = client.cookie
        async let held = HTTPClient().request("GET", port: a.port, "/hold?ms=600", cookie: cookie)
        while try await a.statistics().sessionsEntered == 0 {}
        let waited = try await client.request("GET", port: a.port, "/hold?ms=0")
        #expect(try Int(waited.json("waitedMs") ?? "") ?? 0 >= 100)
        #expect(try await held.json("waitedMs") == "0")
        #expect(try await a.statistics().lockWaits == 1)
    }

    @Test func `a request that waits too long is answered with 503 and Retry-After`() async throws {
        let a = try NodeProcess("a", memcached: [memcached.port], lock: ["timeoutMilliseconds": 100])
        try await client.request("POST", port: a.port, "/count")
        let cookie = client.cookie
        async let held = HTTPClient().request("GET", port: a.port, "/hold?ms=1000", cookie: cookie)
        while try await a.statistics().sessionsEntered == 0 {}
        let refused = try await client.request("POST", port: a.port, "/count")
        #expect(refused.status == 503)
        #expect(refused.field("retry-after") == "1")
        #expect(try await held.status == 200)
        #expect(try await client.request("GET", port: a.port, "/session").json("count") == "1")
    }

    @Test func `two nodes that change different attributes of one session at the same time both survive`() async throws
    {
        let a = try NodeProcess("a", memcached: [memcached.port])
        let b = try NodeProcess("b", memcached: [memcached.port])
        try await client.request("POST", port: a.port, "/count")
        let cookie = try #require(client.cookie)
        for round in 1...15 {
            async let onA = HTTPClient().request("PUT", port: a.port, "/attributes/x", body: "\(round)", cookie: cookie)
            async let onB = HTTPClient().request("PUT", port: b.port, "/attributes/y", body: "\(round)", cookie: cookie)
            let statuses = try await [onA.status, onB.status]
            #expect(statuses == [200, 200])
        }
        for node in [a, b] {
            // A save interval of 60 s trusts the copy of whichever node the route names: ask as a client of the other.
            let foreign = cookie.replacing(/\.a$/, with: ".z")
            let x = try await HTTPClient().request("GET", port: node.port, "/attributes/x", cookie: foreign)
            let y = try await HTTPClient().request("GET", port: node.port, "/attributes/y", cookie: foreign)
            #expect(try x.json("value") == "15")
            #expect(try y.json("value") == "15")
        }
        // The first node trusts its copy, by its own name in the cookie: what it writes meets the other one's.
        #expect(try await a.statistics().merges > 0)
    }

    @Test func `a log-out on one node is final on the other, for old cookies too`() async throws {
        let a = try NodeProcess("a", memcached: [memcached.port], saveIntervalSeconds: 0)
        let b = try NodeProcess("b", memcached: [memcached.port], saveIntervalSeconds: 0)
        try await client.request("POST", port: a.port, "/count")
        let cookieOfA = try #require(client.cookie)
        try await client.request("POST", port: b.port, "/count")
        let cookieOfB = try #require(client.cookie)
        #expect(cookieOfA != cookieOfB)
        let logout = try await client.request("POST", port: b.port, "/logout")
        #expect(logout.status == 204)
        #expect(logout.field("set-cookie")?.contains("Max-Age=0") == true)
        for node in [a, b] {
            for cookie in [cookieOfA, cookieOfB] {
                let answer = try await HTTPClient().request("GET", port: node.port, "/session", cookie: cookie)
                #expect(try answer.json("isNew") == "true")
                #expect(try answer.json("count") == "0")
            }
        }
    }

    @Test func `a log-in changes the id and keeps the attributes, and the old id can only read what was before`()
        async throws
    {
        let a = try NodeProcess("a", memcached: [memcached.port], saveIntervalSeconds: 0)
        let b = try NodeProcess("b", memcached: [memcached.port], saveIntervalSeconds: 0)
        try await client.request("POST", port: a.port, "/count")
        let before = try #require(client.cookie)
        try await client.request("POST", port: a.port, "/login")
        #expect(client.cookie != before)
        for node in [a, b] {
            #expect(try await client.request("GET", port: node.port, "/session").json("count") == "1")
            let told = try await client.request("GET", port: node.port, "/explain")
            #expect(told.body.contains(#""kind":"record""#))
            let id = try #require(client.cookie).dropFirst("session=".count).prefix(24)
            #expect(!told.body.contains(id))
            // A page's other requests may still be under way with the old id.
            let old = try await HTTPClient().request("GET", port: node.port, "/session", cookie: before)
            #expect(try old.json("isNew") == "false")
            #expect(try old.json("count") == "1")
            let refused = try await HTTPClient().request("POST", port: node.port, "/count", cookie: before)
            #expect(refused.status == 503)
        }
    }

    @Test(arguments: [
        "session=AAAAAAAAAAAAAAAAAAAAAAAA.a", "session=x", "session=../../etc/passwd.a", "session=.a",
        "session=" + String(repeating: "A", count: 8000) + ".a",
    ])
    func `an unknown, malformed or oversized cookie makes a new id and never adopts the client's`(cookie: String)
        async throws
    {
        let a = try NodeProcess("a", memcached: [memcached.port])
        let answer = try await client.request("POST", port: a.port, "/count", cookie: cookie)
        #expect(answer.status == 200)
        #expect(try answer.json("count") == "1")
        let own = try #require(client.cookie)
        #expect(own != cookie)
        #expect(!own.contains("AAAAAAAAAAAAAAAAAAAAAAAA"))
        let again = try await HTTPClient().request("GET", port: a.port, "/session", cookie: cookie)
        #expect(try again.json("isNew") == "true")
    }

    @Test func `memcached down at the takeover answers 503 and not a new session`() async throws {
        let a = try NodeProcess("a", memcached: [memcached.port])
        let b = try NodeProcess("b", memcached: [memcached.port])
        try await client.request("POST", port: a.port, "/count")
        let cookie = client.cookie
        try await memcached.kill()
        for path in ["/session", "/attributes/x"] {
            let answer = try await client.request("GET", port: b.port, path)
            #expect(answer.status == 503)
            #expect(answer.field("retry-after") == "1")
            #expect(answer.field("set-cookie") == nil)
        }
        #expect(try await client.request("POST", port: b.port, "/count").status == 503)
        #expect(client.cookie == cookie)
        // The home serves what it has, without the store.
        #expect(try await client.request("GET", port: a.port, "/session").json("source") == "local")
        // What it sends to a server that has just gone may have arrived; once it knows, it keeps what it would have sent.
        let answer = try await client.request("POST", port: a.port, "/count")
        if answer.status == 200 { #expect(try answer.json("count") == "2") } else { #expect(answer.status == 503) }
    }

    @Test func `a memcached that was restarted empty gets its session back from the home`() async throws {
        let a = try NodeProcess("a", memcached: [memcached.port], saveIntervalSeconds: 0)
        let b = try NodeProcess("b", memcached: [memcached.port], saveIntervalSeconds: 0)
        for _ in 0..<3 { try await client.request("POST", port: a.port, "/count") }
        try await memcached.restart()
        // The connection is found broken and made anew: until then 503, never a new session.
        let deadline = ContinuousClock.now + .seconds(10)
        var answer = try await client.request("POST", port: a.port, "/count")
        while answer.status == 503, ContinuousClock.now < deadline {
            answer = try await client.request("POST", port: a.port, "/count")
        }
        #expect(try answer.json("count") == "4")
        answer = try await client.request("GET", port: b.port, "/session")
        while answer.status == 503, ContinuousClock.now < deadline {
            answer = try await client.request("GET", port: b.port, "/session")
        }
        #expect(try answer.json("count") == "4")
    }

    @Test func `what has no session has no cookie`() async throws {
        let a = try NodeProcess("a", memcached: [memcached.port])
        let echo = try await client.request("POST", port: a.port, "/echo", body: "hello")
        #expect(echo.body == "hello")
        #expect(try await client.request("GET", port: a.port, "/echo").body == "ok")
        #expect(try await client.request("GET", port: a.port, "/healthz").body == "ok")
        #expect(try await client.request("GET", port: a.port, "/session").json("source") == "new")
        #expect(try await client.request("GET", port: a.port, "/attributes/none").status == 404)
        #expect(client.cookie == nil)
        #expect(try await a.statistics().storeCalls == 0)
    }
}
