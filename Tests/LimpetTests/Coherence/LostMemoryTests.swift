import LimpetTesting
import Testing

@testable import Limpet

/// The store was restarted, or has evicted a key: the home still has the session.
struct LostMemoryTests {
    @Test func `a home puts its session back when it verifies`() async throws {
        let cluster = Cluster()
        let a = try cluster.node("a", saveInterval: .zero)
        let b = try cluster.node("b", saveInterval: .zero)
        let client = Client()
        try await a.request(client) { $0[.count] = 1 }
        let before = try await a.request(client) { $0.epoch }
        try await cluster.store.loseMemory()
        try await a.request(client) { session in
            #expect(session[.count] == 1)
            #expect(session.epoch != before)
        }
        #expect(a.sessions.statistics.republished == 1)
        try await a.request(client) { #expect($0.source == .verified) }
        try await b.request(client) { #expect($0[.count] == 1) }
    }

    @Test func `a commit onto lost memory stores the session and the change before it answers`() async throws {
        let cluster = Cluster()
        let a = try cluster.node("a")
        let client = Client()
        try await a.request(client) { $0[.count] = 1 }
        try await cluster.store.loseMemory()
        try await a.request(client) { session in
            #expect(session.source == .local)
            session[.other] = 2
        }
        try await cluster.node("b").request(client) { session in
            #expect(session[.count] == 1)
            #expect(session[.other] == 2)
        }
    }

    @Test func `what is put back lives no longer than it would have`() async throws {
        let cluster = Cluster()
        let a = try cluster.node("a")
        let client = Client()
        try await a.request(client) { session in
            session[.count] = 1
            session.maxInactive = .seconds(1800)
        }
        cluster.clock.advance(by: .seconds(600))
        try await cluster.store.loseMemory()
        a.store.forgetCalls()
        await a.poll()
        #expect(a.sessions.statistics.republished == 1)
        let puts = a.store.calls.filter { ["put d/", "put v/"].contains($0.description.prefix(6)) }
        // What is left of its 1800 seconds, the save interval, and the slack.
        #expect(puts.map(\.timeToLive) == [.seconds(1200 + 60 + 10), .seconds(1200 + 60 + 10)])
        let keys = puts.flatMap(\.keys)
        for values in [2, 0] {
            var found = 0
            for result in await cluster.store.get(keys) where try result.get() != nil { found += 1 }
            #expect(found == values)
            cluster.clock.advance(by: .seconds(1200 + 60 + 10 + 1))
        }
    }

    @Test func `a record that was evicted alone is put back by its home`() async throws {
        let cluster = Cluster()
        let a = try cluster.node("a")
        let client = Client()
        try await a.request(client) { $0[.count] = 1 }
        try await cluster.store.lose("d/")
        try await a.request(client) { $0[.count] = 2 }
        try await cluster.node("b").request(client) { #expect($0[.count] == 2) }
    }

    @Test func `a node that is not home puts nothing back`() async throws {
        let cluster = Cluster()
        let a = try cluster.node("a", saveInterval: .zero)
        let b = try cluster.node("b", saveInterval: .zero)
        let client = Client()
        try await a.request(client) { $0[.count] = 1 }
        let oldCookie = client.cookie
        try await b.request(client) { $0[.count] = 2 }
        try await cluster.store.lose("d/")
        // a has a copy under an epoch of the same making that is not the store's: the session moved.
        try await cluster.whilePolling([a]) {
            try await a.request(Client(), cookie: oldCookie) { #expect($0.isNew) }
        }
        // b's epoch is the store's; its next commit finds the record missing.
        try await b.request(client) { $0[.count, default: 0] += 1 }
        try await a.request(Client(), cookie: oldCookie) { #expect($0[.count] == 3) }
        #expect(a.sessions.statistics.republished == 0)
        #expect(b.sessions.statistics.republished == 1)
    }

    @Test func `a home that finds the session put back by another makes way`() async throws {
        let cluster = Cluster()
        let a = try cluster.node("a", saveInterval: .zero)
        let b = try cluster.node("b", saveInterval: .zero)
        let client = Client()
        try await a.request(client) { $0[.count] = 1 }
        let oldCookie = client.cookie
        try await b.request(client) { $0[.count] = 2 }
        try await cluster.store.loseMemory()
        // Between a's finding nothing and its put, b puts its newer session back.
        a.store.next(.put, on: "d/").runsFirst {
            do {
                try await b.request(Client(), cookie: client.cookie) { #expect($0[.count] == 2) }
            } catch {
                Issue.record(error)
            }
        }
        try await a.request(Client(), cookie: oldCookie) { #expect($0[.count] == 2) }
    }

    @Test func `an old home that finds the session put back by another drops its copy before that is lost, too`()
        async throws
    {
        let cluster = Cluster()
        let (a, b) = (try cluster.node("a"), try cluster.node("b"))
        let client = Client()
        try await a.request(client) { $0[.count] = 1 }
        try await b.request(client) { $0[.count] = 2 }
        // Before a has heard that the session moved.
        for key in ["d/", "v/"] { try await cluster.store.lose(key) }
        a.store.next(.put, on: "d/").runsFirst {
            do {
                try await b.request(client) { $0[.count] = 3 }
            } catch {
                Issue.record(error)
            }
        }
        for _ in 0..<2 {
            await a.poll()
            cluster.clock.advance(by: .milliseconds(250))
        }
        try await cluster.store.lose("d/")
        try await cluster.store.lose("c/")
        for _ in 0..<3 {
            await a.poll()
            await b.poll()
            cluster.clock.advance(by: .milliseconds(250))
        }
        #expect(a.sessions.statistics.republished == 0)
        try await b.request(client) { #expect($0[.count] == 3) }
    }

    @Test func `another node that takes itself for home hears of what was put back`() async throws {
        let cluster = Cluster()
        let (a, b) = (try await cluster.member("a"), try await cluster.member("b"))
        await a.membership.beat()
        let client = Client()
        try await a.request(client) { $0[.count] = 1 }
        let oldCookie = client.cookie
        // b makes the epoch anew, so that a cannot know that the session moved when the record is gone, too.
        try await cluster.store.lose("v/")
        try await b.request(client) { $0[.count] = 2 }
        try await cluster.store.lose("d/")
        try await a.request(Client(), cookie: oldCookie) { $0[.count] = 3 }
        cluster.clock.advance(by: .milliseconds(250))
        await b.poll()
        #expect(b.sessions.statistics.staleCopiesDropped == 1)
        try await b.request(client) { #expect($0[.count] == 3) }
    }

    @Test func `a poll does not drop a copy that a request puts back at this moment`() async throws {
        let cluster = Cluster(tellsTokens: true)
        let (a, b) = (try cluster.node("a"), try cluster.node("b"))
        let client = Client()
        try await a.request(client) { $0[.count] = 1 }
        try await cluster.store.loseMemory()
        // The first put finds that there is nothing to swap.
        let hold = a.store.next(.put, on: "d/", skipping: 1).isHeldAfterEffect()
        async let answer: Void = a.request(client) { $0[.count] = 2 }
        await hold.waitUntilHeld()
        await a.poll()
        hold.release()
        try await answer
        #expect(a.sessions.statistics.staleCopiesDropped == 0)
        try await cluster.store.loseMemory()
        await a.poll()
        try await b.request(client) { #expect($0[.count] == 2) }
    }

    @Test func `a home that takes its own session over puts it back when the record is evicted meanwhile`() async throws
    {
        let cluster = Cluster()
        let a = try cluster.node("a")
        let client = Client()
        try await a.request(client) { $0[.count] = 1 }
        // Nobody knows whether it was stored: the next request takes the session over.
        a.store.next(.put, on: "d/").fails(.timeout, mayHaveTakenEffect: true)
        _ = await #expect(throws: SessionError.self) { try await a.request(client) { $0[.count] = 2 } }
        a.store.next(.put, on: "d/").runsFirst {
            do { try await cluster.store.lose("d/") } catch { Issue.record(error) }
        }
        try await a.request(client) { #expect($0[.count] == 1) }
        #expect(a.sessions.statistics.republished == 1)
    }

    @Test func `a lost key is noticed when the access time is saved`() async throws {
        let cluster = Cluster()
        let a = try cluster.node("a", saveInterval: .seconds(60))
        let client = Client()
        try await a.request(client) { $0[.count] = 1 }
        cluster.clock.advance(by: .seconds(61))
        a.store.next(.touch, on: "d/").runsFirst {
            do { try await cluster.store.lose("d/") } catch { Issue.record(error) }
        }
        try await a.request(client) { _ in }
        // Not verified any more: the next request asks. The epoch is there, so it is the next commit that puts it back.
        try await a.request(client) { session in
            #expect(session.source == .verified)
            session[.count] = 2
        }
        #expect(a.sessions.statistics.republished == 1)
        try await cluster.node("b").request(client) { #expect($0[.count] == 2) }
    }

    @Test func `R19: every home puts back what it has, without being asked`() async throws {
        let cluster = Cluster()
        let (a, b) = (try cluster.node("a"), try cluster.node("b"))
        let clients = (0..<200).map { _ in Client() }
        for (number, client) in clients.enumerated() {
            try await (number % 2 == 0 ? a : b).request(client) { $0[.count] = number }
        }
        try await cluster.store.loseMemory()
        await a.poll()
        await b.poll()
        #expect(a.sessions.statistics.republished == 100)
        #expect(a.sessions.statistics.memoryLosses == 1)
        let c = try cluster.node("c")
        for (number, client) in clients.enumerated() {
            try await c.request(client) { #expect($0[.count] == number) }
        }
    }

    @Test func `R19: what an old home has is not put back, once its watch has seen that the session moved`()
        async throws
    {
        let cluster = Cluster()
        let (a, b) = (try cluster.node("a"), try cluster.node("b"))
        let client = Client()
        try await a.request(client) { $0[.count] = 1 }
        try await b.request(client) { $0[.count] = 2 }
        await a.poll()
        try await cluster.store.loseMemory()
        await a.poll()
        await b.poll()
        #expect(a.sessions.statistics.republished == 0)
        try await a.request(client) { #expect($0[.count] == 2) }
    }

    @Test func `the sweep leaves a session alone that a request is in, and comes back to it`() async throws {
        let cluster = Cluster()
        let a = try cluster.node("a")
        let client = Client()
        try await a.request(client) { $0[.count] = 1 }
        try await a.request(client) { session in
            try await cluster.store.loseMemory()
            await a.poll()
            #expect(a.sessions.statistics.republished == 0)
            session[.count] = 2
        }
        #expect(a.sessions.statistics.republished == 1)
        try await cluster.store.loseMemory()
        try await a.request(client) { _ in
            await a.poll()
        }
        await a.poll()
        #expect(a.sessions.statistics.republished == 2)
        try await cluster.node("b").request(client) { #expect($0[.count] == 2) }
    }
}
