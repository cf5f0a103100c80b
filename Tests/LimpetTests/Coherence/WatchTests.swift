import LimpetTesting
import Testing

@testable import Limpet

/// R5 and R17: a node finds out what others have changed.
struct WatchTests {
    @Test func `a copy that another node has made stale is gone after the next poll`() async throws {
        let cluster = Cluster()
        let (a, b) = (try cluster.node("a"), try cluster.node("b"))
        let client = Client()
        try await a.request(client) { $0[.count] = 1 }
        let old = client.cookie
        try await b.request(client) { $0[.count] = 2 }
        // Trusted until then: the client that strays without waiting.
        try await a.request(Client(), cookie: old) { #expect($0[.count] == 1) }
        await a.poll()
        #expect(a.sessions.statistics.sessionsInMemory == 0)
        #expect(a.sessions.statistics.staleCopiesDropped == 1)
        try await a.request(Client(), cookie: old) { #expect($0[.count] == 2) }
    }

    @Test func `a poll that finds nothing changed is one read`() async throws {
        let cluster = Cluster()
        let a = try cluster.node("a")
        for _ in 0..<10 { try await a.request(Client()) { $0[.count] = 1 } }
        await a.poll()
        a.store.forgetCalls()
        await a.poll()
        #expect(a.store.shortCalls == ["get c b g m"])
    }

    @Test func `only the copies of changed buckets are compared`() async throws {
        let cluster = Cluster()
        let (a, b) = (try cluster.node("a"), try cluster.node("b"))
        for _ in 0..<300 { try await a.request(Client()) { $0[.count] = 1 } }
        let (first, client) = (Client(), Client())
        try await a.request(first) { $0[.count] = 1 }
        try await a.request(client) { $0[.count] = 1 }
        // With the first change that a hears of, it makes the counters of all buckets that it has copies in.
        try await b.request(first) { $0[.count] = 2 }
        await a.poll()
        try await b.request(client) { $0[.count] = 2 }
        a.store.forgetCalls()
        await a.poll()
        let epochs = a.store.calls.flatMap(\.keys).count { $0.name.contains(":v/") }
        #expect(epochs < 10)
        #expect(a.sessions.statistics.sessionsInMemory == 300)
    }

    @Test func `a node that has not heard for two polls verifies before it serves`() async throws {
        let cluster = Cluster()
        let a = try cluster.node("a")
        let client = Client()
        try await a.request(client) { $0[.count] = 1 }
        cluster.clock.advance(by: .milliseconds(499))
        try await a.request(client) { #expect($0.source == .local) }
        cluster.clock.advance(by: .milliseconds(1))
        try await a.request(client) { #expect($0.source == .verified) }
        a.store.next(.get, on: "c/").fails(.timeout)
        await a.poll()
        #expect(a.sessions.statistics.failedPolls == 1)
        try await a.request(client) { #expect($0.source == .verified) }
        await a.poll()
        try await a.request(client) { #expect($0.source == .local) }
    }

    @Test func `what was changed while it was on its way is not trusted on arrival`() async throws {
        let cluster = Cluster()
        let (a, b) = (try cluster.node("a"), try cluster.node("b"))
        let client = Client()
        try await a.request(client) { $0[.count] = 1 }
        let cookie = client.cookie
        try await b.request(client) { _ in }
        await a.poll()
        // a takes the session back; before it learns so, b has it again, and a's watch has seen that.
        let hold = a.store.next(.put, on: "d/").isHeldAfterEffect()
        async let loading: Void = a.request(Client(), cookie: cookie) { _ in }
        await hold.waitUntilHeld()
        try await b.request(client) { $0[.count] = 2 }
        await a.poll()
        hold.release()
        try await loading
        try await a.request(Client(), cookie: cookie) { #expect($0[.count] == 2) }
    }

    @Test func `a change that is noticed while a commit waits for its answer is not forgotten with it`() async throws {
        let cluster = Cluster(tellsTokens: true)
        let (a, b) = (try cluster.node("a"), try cluster.node("b"))
        let client = Client()
        try await a.request(client) { $0[.count] = 1 }
        let cookie = client.cookie
        // a's commit is in the store; before a learns so, b has the session, and a's watch has seen that.
        let hold = a.store.next(.put, on: "d/").isHeldAfterEffect()
        async let committing: Void = a.request(Client(), cookie: cookie) { $0[.other] = 1 }
        await hold.waitUntilHeld()
        try await b.request(client) { $0[.count] = 2 }
        await a.poll()
        hold.release()
        try await committing
        try await a.request(Client(), cookie: cookie) { session in
            #expect(session[.count] == 2)
            #expect(session[.other] == 1)
        }
    }

    @Test func `what a poll has read drops no copy that a request has made newer meanwhile`() async throws {
        let cluster = Cluster(tellsTokens: true)
        let (a, b) = (try cluster.node("a"), try cluster.node("b"))
        let client = Client()
        try await a.request(client) { $0[.count] = 1 }
        let cookie = client.cookie
        let hold = a.store.next(.get, on: "d/").isHeldAfterEffect()
        let poll = Locked<Task<Void, Never>?>(nil)
        try await a.request(client) { session in
            try await b.request(Client(), cookie: cookie) { $0[.other] = 2 }
            // The poll reads that b is home.
            poll.withLock { $0 = Task { await a.poll() } }
            await hold.waitUntilHeld()
            session[.count] = 3
        }
        // The request met b's record, and merged with it: a is home again.
        #expect(a.sessions.statistics.merges == 1)
        hold.release()
        await poll.withLock { $0 }?.value
        #expect(a.sessions.statistics.staleCopiesDropped == 0)
        #expect(a.sessions.statistics.sessionsInMemory == 1)
        try await a.request(client) { #expect($0.source == .local) }
        // It may be the only copy.
        await b.poll()
        try await cluster.store.loseMemory()
        await a.poll()
        try await b.request(client) { session in
            #expect(session[.count] == 3)
            #expect(session[.other] == 2)
        }
    }

    @Test func `a takeover that died half-way costs the home a reload and nothing else`() async throws {
        let cluster = Cluster()
        let (a, b) = (try cluster.node("a"), try cluster.node("b"))
        let client = Client()
        try await a.request(client) { $0[.count] = 1 }
        b.store.next(5, .put, on: "d/").fails(.connectionLost, mayHaveTakenEffect: true)
        await #expect(throws: SessionError.self) {
            try await cluster.whilePolling([]) { try await b.request(Client(), cookie: client.cookie) { _ in } }
        }
        await a.poll()
        #expect(a.sessions.statistics.sessionsInMemory == 1)
        try await a.request(client) { session in
            #expect(session[.count] == 1)
            #expect(session.source == .store)
        }
    }

    @Test func `a counter that is evicted before its first change is heard counts as changed`() async throws {
        let cluster = Cluster()
        let (a, b) = (try cluster.node("a"), try cluster.node("b"))
        for _ in 0..<2 {
            let client = Client()
            try await a.request(client) { $0[.count] = 1 }
            await a.poll()
            let old = client.cookie
            try await b.request(client) { $0[.count] = 2 }
            try await cluster.store.lose("c/a/")
            await a.poll()
            try await a.request(Client(), cookie: old) { #expect($0[.count] == 2) }
        }
    }

    @Test func `counters that were lost count as changed`() async throws {
        let cluster = Cluster()
        let (a, b) = (try cluster.node("a"), try cluster.node("b"))
        let client = Client()
        try await a.request(client) { $0[.count] = 1 }
        let old = client.cookie
        try await cluster.store.lose("c/")
        try await b.request(client) { $0[.count] = 2 }
        await a.poll()
        try await a.request(Client(), cookie: old) { #expect($0[.count] == 2) }
    }
}
