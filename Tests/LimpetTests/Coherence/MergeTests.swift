import Limpet
import LimpetTesting
import Testing

/// Two nodes change one session at the same time.
struct MergeTests {
    /// Runs a request on `b`, with the same cookie, after the handler of a request on `a` has changed its attribute.
    private func meet(
        _ a: Node, _ b: Node, _ client: Client, onA: @escaping @Sendable (Session) -> Void,
        onB: @escaping @Sendable (Session) -> Void
    ) async throws {
        let cookie = client.cookie
        try await a.request(client) { session in
            onA(session)
            try await b.request(Client(), cookie: cookie) { onB($0) }
        }
    }

    @Test func `two nodes that change different attributes both survive`() async throws {
        let cluster = Cluster()
        let a = try cluster.node("a")
        let b = try cluster.node("b")
        let client = Client()
        try await a.request(client) { session in
            session[.count] = 1
            session[.user] = "ann"
        }
        try await meet(a, b, client, onA: { $0[.count] = 2 }, onB: { $0[.other] = 9 })
        #expect(a.sessions.statistics.merges == 1)
        try await a.request(client) { session in
            #expect(session[.count] == 2)
            #expect(session[.other] == 9)
            #expect(session[.user] == "ann")
        }
        try await b.request(client) { session in
            #expect(session[.count] == 2)
            #expect(session[.other] == 9)
        }
    }

    @Test func `a removal is merged like a value`() async throws {
        let cluster = Cluster()
        let a = try cluster.node("a")
        let b = try cluster.node("b")
        let client = Client()
        try await a.request(client) { session in
            session[.count] = 1
            session[.other] = 1
        }
        try await meet(a, b, client, onA: { $0[.count] = nil }, onB: { $0[.other] = 2 })
        try await b.request(client) { session in
            #expect(session[.count] == nil)
            #expect(session[.other] == 2)
        }
    }

    @Test func `of a write and a removal of one attribute the later commit wins`() async throws {
        let cluster = Cluster()
        let a = try cluster.node("a")
        let b = try cluster.node("b")
        let client = Client()
        try await a.request(client) { session in
            session[.count] = 1
            session[.other] = 1
        }
        // b commits first, in the middle of a's request.
        try await meet(
            a, b, client,
            onA: { session in
                session[.count] = nil
                session[.other] = 2
            },
            onB: { session in
                session[.count] = 7
                session[.other] = nil
            })
        for node in [a, b] {
            try await node.request(client) { session in
                #expect(session[.count] == nil)
                #expect(session[.other] == 2)
            }
        }
    }

    @Test func `what a request only read, or set to what it was, is not put on another node's change`() async throws {
        let cluster = Cluster()
        let a = try cluster.node("a")
        let b = try cluster.node("b")
        let client = Client()
        try await a.request(client) { session in
            session[.count] = 1
            session[.other] = 1
        }
        try await meet(
            a, b, client,
            onA: { session in
                #expect(session[.other] == 1)
                session[.count] = 1
                session[SessionKey<Int>("never there")] = nil
                session[.user] = "ann"
            },
            onB: { session in
                session[.count] = nil
                session[.other] = 2
            })
        try await b.request(client) { session in
            #expect(session[.count] == nil)
            #expect(session[.other] == 2)
            #expect(session[.user] == "ann")
        }
    }

    @Test func `of two writes to one attribute the later commit wins`() async throws {
        let cluster = Cluster()
        let a = try cluster.node("a")
        let b = try cluster.node("b")
        let client = Client()
        try await a.request(client) { $0[.count] = 1 }
        try await meet(a, b, client, onA: { $0[.count] = 2 }, onB: { $0[.count] = 3 })
        try await b.request(client) { #expect($0[.count] == 2) }
    }

    @Test func `a request that is merged onto an ended session writes nothing and loses its cookie`() async throws {
        let cluster = Cluster()
        let a = try cluster.node("a")
        let b = try cluster.node("b")
        let client = Client()
        try await a.request(client) { $0[.count] = 1 }
        let cookie = client.cookie
        try await meet(a, b, client, onA: { $0[.count] = 2 }, onB: { $0.invalidate() })
        #expect(client.cookie == nil)
        #expect(a.sessions.statistics.commits == 1)
        for node in [a, b] {
            try await node.request(Client(), cookie: cookie) { session in
                #expect(session.isNew)
                #expect(session[.count] == nil)
            }
        }
    }

    @Test func `the idle limit is merged, the later access time stays`() async throws {
        let cluster = Cluster()
        let a = try cluster.node("a")
        let b = try cluster.node("b")
        let client = Client()
        try await a.request(client) { $0[.count] = 1 }
        try await meet(a, b, client, onA: { $0.maxInactive = .seconds(7) }, onB: { $0[.other] = 2 })
        try await b.request(client) { session in
            #expect(session.maxInactive == .seconds(7))
            #expect(session[.other] == 2)
        }
    }

    @Test func `a commit that meets others at every attempt gives up with 503, and the session is whole`() async throws
    {
        let cluster = Cluster()
        let a = try cluster.node("a")
        let b = try cluster.node("b")
        let client = Client()
        try await a.request(client) { $0[.count] = 1 }
        let cookie = client.cookie
        a.store.every(.put, on: "d/").runsFirst {
            do {
                try await b.request(Client(), cookie: cookie) { $0[.other, default: 0] += 1 }
            } catch {
                Issue.record(error)
            }
        }
        // The pauses between the attempts are on the clock that stands still.
        let moving = Task {
            while !Task.isCancelled {
                await cluster.clock.waitForSleepers(1)
                cluster.clock.advance(by: .milliseconds(50))
            }
        }
        let error = await #expect(throws: SessionError.self) { try await a.request(client) { $0[.count] = 2 } }
        #expect(error?.code == .conflict)
        moving.cancel()
        a.store.forgetScripts()
        let others = try await b.request(Client(), cookie: cookie) { session in
            #expect(session[.count] == 1)
            return session[.other]
        }
        #expect(others == 5)
        try await a.request(client) { #expect($0[.other] == others) }
        // Lets the helper that moves the clock end.
        let last = Task { try await cluster.clock.sleep(for: .milliseconds(1)) }
        try await last.value
        await moving.value
    }

    @Test func `a token of an earlier connection is not used`() async throws {
        let cluster = Cluster(tellsTokens: true)
        let a = try cluster.node("a")
        let client = Client()
        try await a.request(client) { $0[.count] = 1 }
        a.store.voidTokens()
        a.store.forgetCalls()
        try await a.request(client) { $0[.count] = 2 }
        #expect(a.store.shortCalls == ["put d unchanged", "get d", "put d unchanged"])
        #expect(a.sessions.statistics.merges == 0)
        try await a.request(client) { #expect($0[.count] == 2) }
    }

    @Test func `a token that comes with another node's record is not adopted`() async throws {
        let cluster = Cluster()
        let a = try cluster.node("a")
        let b = try cluster.node("b")
        let client = Client()
        try await a.request(client) { $0[.count] = 1 }
        let cookie = client.cookie
        let running = Task { try await a.sessions.run() }
        await cluster.clock.waitForSleepers(1)
        // a's refresh of the token reads after b took the session over and changed it.
        let hold = a.store.next(.get, on: "d/", skipping: 1).isHeld()
        try await a.request(client) { $0[.count] = 2 }
        await hold.waitUntilHeld()
        try await b.request(Client(), cookie: cookie) { $0[.other] = 5 }
        hold.release()
        running.cancel()
        try await running.value
        try await a.request(client) { $0[.count] = 3 }
        #expect(a.sessions.statistics.merges == 1)
        try await b.request(client) { session in
            #expect(session[.count] == 3)
            #expect(session[.other] == 5)
        }
    }
}
