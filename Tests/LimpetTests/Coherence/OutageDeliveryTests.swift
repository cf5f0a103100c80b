import LimpetTesting
import Testing

@testable import Limpet

/// The store is back: what a home was told meanwhile is delivered, beside what others did (R25, R12 and R13).
struct OutageDeliveryTests {
    private let cluster = Cluster(tellsTokens: true)

    @Test func `a request that comes before the delivery sends what waits first`() async throws {
        let a = try cluster.node("a")
        let client = Client()
        try await a.request(client) { $0[.count] = 1 }
        await a.loseStore(cluster)
        try await a.request(client) { $0[.count] = 2 }
        await a.regainStore()
        a.store.forgetCalls()
        try await a.request(client) { #expect($0[.count] == 2) }
        #expect(a.store.shortCalls == ["put d unchanged", "touch v"])
        #expect(a.sessions.statistics.unsentSessions == 0)
        a.store.forgetCalls()
        await a.sessions.deliver()
        #expect(a.store.calls.isEmpty)
    }

    @Test func `a request during which the store comes back commits what waits along with its own`() async throws {
        let a = try cluster.node("a")
        let client = Client()
        try await a.request(client) { $0[.count] = 1 }
        await a.loseStore(cluster)
        try await a.request(client) { $0[.count] = 2 }
        try await a.request(client) { session in
            await a.regainStore()
            // It is in the session: the delivery leaves it alone.
            await a.sessions.deliver()
            #expect(a.sessions.statistics.unsentSessions == 1)
            session[.other] = 3
        }
        #expect(a.sessions.statistics.unsentSessions == 0)
        try await cluster.node("b").request(client) { session in
            #expect(session[.count] == 2)
            #expect(session[.other] == 3)
        }
    }

    @Test func `a running manager delivers as soon as the store answers`() async throws {
        let a = try cluster.node("a")
        let client = Client()
        try await a.request(client) { $0[.count] = 1 }
        await a.loseStore(cluster)
        try await a.request(client) { $0[.count] = 2 }
        let running = Task { await a.sessions.work() }
        // The watch, the membership and the scavenger.
        await cluster.clock.waitForSleepers(3)
        a.store.forgetScripts()
        let hold = a.store.next(.put, on: "d/").isHeldAfterEffect()
        cluster.clock.advance(by: .milliseconds(250))
        await hold.waitUntilHeld()
        hold.release()
        try await cluster.node("b").request(client) { #expect($0[.count] == 2) }
        running.cancel()
        await running.value
        #expect(a.sessions.statistics.unsentDelivered == 1)
    }

    @Test func `a node that stops delivers first`() async throws {
        let a = try cluster.node("a")
        let client = Client()
        try await a.request(client) { $0[.count] = 1 }
        await a.loseStore(cluster)
        try await a.request(client) { $0[.count] = 2 }
        a.store.forgetScripts()
        await a.sessions.deliver()
        #expect(a.sessions.statistics.unsentSessions == 0)
        try await cluster.node("b").request(client) { #expect($0[.count] == 2) }
    }

    // MARK: Others meanwhile

    @Test func `what another node changed meanwhile is merged with`() async throws {
        let a = try cluster.node("a")
        let b = try cluster.node("b")
        let client = Client()
        try await a.request(client) { $0[.count] = 1 }
        await a.loseStore(cluster)
        let stray = client.cookie
        try await a.request(client) { session in
            session[.count] = 2
            session[.user] = "ann"
        }
        try await b.request(Client(), cookie: stray) { session in
            session[.count] = 9
            session[.other] = 9
        }
        await a.regainStore()
        await a.sessions.deliver()
        #expect(a.sessions.statistics.merges == 1)
        try await b.request(client) { session in
            // The same attribute: the later commit wins. Different ones both survive.
            #expect(session[.count] == 2)
            #expect(session[.other] == 9)
            #expect(session[.user] == "ann")
        }
    }

    @Test func `a copy that the watch drops still has its changes delivered`() async throws {
        let a = try cluster.node("a")
        let b = try cluster.node("b")
        let client = Client()
        try await a.request(client) { $0[.count] = 1 }
        await a.loseStore(cluster)
        let stray = client.cookie
        try await a.request(client) { $0[.user] = "ann" }
        try await b.request(Client(), cookie: stray) { $0[.other] = 9 }
        await a.regainStore()
        await a.poll()
        #expect(a.sessions.statistics.sessionsInMemory == 0)
        // By the next request, if that is first.
        try await a.request(client) { session in
            #expect(session[.user] == "ann")
            #expect(session[.other] == 9)
        }
        #expect(a.sessions.statistics.unsentDelivered == 1)
    }

    @Test func `a log-out elsewhere stays one`() async throws {
        let a = try cluster.node("a")
        let b = try cluster.node("b")
        let client = Client()
        try await a.request(client) { $0[.count] = 1 }
        await a.loseStore(cluster)
        let stray = client.cookie
        try await a.request(client) { $0[.count] = 2 }
        try await b.request(Client(), cookie: stray) { $0.invalidate() }
        await a.regainStore()
        await a.sessions.deliver()
        #expect(a.sessions.statistics.unsentSessions == 0)
        #expect(a.sessions.statistics.unsentDropped == 1)
        #expect(a.sessions.statistics.unsentDelivered == 0)
        for node in [a, b] { try await node.request(client, cookie: stray) { #expect($0.isNew) } }
        #expect(a.events.all + b.events.all == ["created", "invalidated"])
    }

    @Test func `the end of all sessions meanwhile is one`() async throws {
        let a = try cluster.node("a")
        let b = try cluster.node("b")
        let client = Client()
        try await a.request(client) { $0[.count] = 1 }
        await b.poll()
        await a.loseStore(cluster)
        try await a.request(client) { $0[.count] = 2 }
        try await b.sessions.cluster.clear()
        await a.regainStore()
        #expect(a.sessions.statistics.unsentSessions == 1)
        try await a.request(client) { #expect($0.isNew) }
        #expect(a.sessions.statistics.unsentSessions == 0)
        #expect(a.sessions.statistics.unsentDropped == 1)
    }

    @Test func `a store that comes back empty gets session and changes`() async throws {
        let a = try cluster.node("a")
        let client = Client()
        try await a.request(client) { $0[.count] = 1 }
        await a.loseStore(cluster)
        try await a.request(client) { $0[.other] = 2 }
        try await cluster.store.loseMemory()
        await a.regainStore()
        await a.sessions.deliver()
        #expect(a.sessions.statistics.unsentSessions == 0)
        try await cluster.node("b").request(client) { session in
            #expect(session[.count] == 1)
            #expect(session[.other] == 2)
        }
        #expect(a.events.all == ["created"])
    }

    // MARK: Deliveries that fail

    @Test(arguments: [true, false])
    func `R12: a delivery that nobody answered does not undo what another node wrote since`(happened: Bool) async throws
    {
        let a = try cluster.node("a")
        let b = try cluster.node("b")
        let client = Client()
        try await a.request(client) { $0[.count] = 1 }
        await a.loseStore(cluster)
        let stray = client.cookie
        try await a.request(client) { session in
            session[.count] = 2
            session[.user] = "ann"
        }
        await a.regainStore()
        if happened {
            a.store.next(.put, on: "d/").failsAfterEffect()
        } else {
            a.store.next(.put, on: "d/").fails(.timeout, mayHaveTakenEffect: true)
        }
        await a.sessions.deliver()
        #expect(a.sessions.statistics.unsentSessions == 1)
        try await b.request(Client(), cookie: stray) { session in
            #expect(session[.count] == (happened ? 2 : 1))
            session[.count] = 9
        }
        await a.sessions.deliver()
        #expect(a.sessions.statistics.unsentSessions == 0)
        try await b.request(client) { session in
            #expect(session[.count] == 9)
            #expect(session[.user] == "ann")
        }
    }

    @Test func `R13: a delivery that fails leaves the changes waiting`() async throws {
        let a = try cluster.node("a")
        let client = Client()
        try await a.request(client) { $0[.count] = 1 }
        await a.loseStore(cluster)
        try await a.request(client) { $0[.count] = 2 }
        await a.regainStore()
        a.store.next(.put, on: "d/").fails(.unavailable)
        await a.sessions.deliver()
        #expect(a.sessions.statistics.unsentSessions == 1)
        await a.sessions.deliver()
        #expect(a.sessions.statistics.unsentSessions == 0)
        try await cluster.node("b").request(client) { #expect($0[.count] == 2) }
    }
}
