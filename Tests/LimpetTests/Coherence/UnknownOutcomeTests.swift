import Limpet
import LimpetTesting
import Testing

/// A write that nobody answered may have happened, or may happen later.
struct UnknownOutcomeTests {
    @Test(arguments: [true, false])
    func `a commit that is not answered is 503, and the next request knows the truth`(happened: Bool) async throws {
        let cluster = Cluster(tellsTokens: true)
        let a = try cluster.node("a")
        let client = Client()
        try await a.request(client) { $0[.count] = 1 }
        if happened {
            a.store.next(.put, on: "d/").failsAfterEffect()
        } else {
            a.store.next(.put, on: "d/").fails(.timeout, mayHaveTakenEffect: true)
        }
        let error = await #expect(throws: SessionError.self) { try await a.request(client) { $0[.count] = 2 } }
        #expect(error?.code == .outcomeUnknown)
        try await a.request(client) { session in
            #expect(session[.count] == (happened ? 2 : 1))
            #expect(session.source == .store)
        }
    }

    @Test func `a write that arrives late is fenced by the next request`() async throws {
        let cluster = Cluster(tellsTokens: true)
        let a = try cluster.node("a")
        let client = Client()
        try await a.request(client) { $0[.count] = 1 }
        let late = a.store.next(.put, on: "d/").failsThenTakesEffect()
        await #expect(throws: SessionError.self) { try await a.request(client) { $0[.count] = 99 } }
        try await a.request(client) { #expect($0[.count] == 1) }
        #expect(try await late.takeEffect() == false)
        try await cluster.node("b").request(client) { #expect($0[.count] == 1) }
    }

    @Test func `a commit that was never sent leaves the copy good`() async throws {
        let cluster = Cluster(tellsTokens: true)
        let a = try cluster.node("a")
        let client = Client()
        try await a.request(client) { $0[.count] = 1 }
        a.store.next(.put, on: "d/").fails(.unavailable)
        let error = await #expect(throws: SessionError.self) { try await a.request(client) { $0[.count] = 2 } }
        #expect(error?.code == .storeUnavailable)
        a.store.forgetCalls()
        try await a.request(client) { session in
            #expect(session[.count] == 1)
            #expect(session.source == .local)
        }
        #expect(a.store.calls.isEmpty)
    }

    @Test(arguments: ["v/", "d/"], [true, false])
    func `a creation that is not answered is found out`(key: String, happened: Bool) async throws {
        let cluster = Cluster()
        let a = try cluster.node("a")
        let client = Client()
        if happened {
            a.store.next(.put, on: key).failsAfterEffect()
        } else {
            a.store.next(.put, on: key).fails(.timeout, mayHaveTakenEffect: true)
        }
        try await a.request(client) { $0[.count] = 1 }
        #expect(a.events.all == ["created"])
        try await cluster.node("b").request(client) { #expect($0[.count] == 1) }
    }

    @Test func `no attempt begins when the store has taken too long already`() async throws {
        let cluster = Cluster(tellsTokens: true)
        let client = Client()
        try await cluster.node("a").request(client) { $0[.count] = 1 }
        let b = try cluster.node("b")
        b.store.every(.put, on: "d/").runsFirst { cluster.clock.advance(by: .milliseconds(500)) }
        b.store.every(.put, on: "d/").fails(.timeout, mayHaveTakenEffect: true)
        let error = await #expect(throws: SessionError.self) { try await b.request(client) { _ in } }
        #expect(error?.code == .outcomeUnknown)
        // Time-outs of 250 ms: two attempts took four of them.
        #expect(b.store.count(.put, on: "d/") == 2)
    }

    @Test func `a session that is too large is refused, and the old one stays`() async throws {
        let cluster = Cluster()
        let a = try cluster.node("a")
        let client = Client()
        try await a.request(client) { $0[.user] = "ann" }
        let error = await #expect(throws: SessionError.self) {
            try await a.request(client) { $0[.user] = String(repeating: "x", count: 3 << 20) }
        }
        #expect(error?.code == .tooLarge)
        #expect(error?.retryAfterSeconds == nil)
        try await a.request(client) { #expect($0[.user] == "ann") }
        try await cluster.node("b").request(client) { #expect($0[.user] == "ann") }
    }

    @Test func `an access time that cannot be saved fails no request and is saved with the next`() async throws {
        let cluster = Cluster()
        let a = try cluster.node("a")
        let client = Client()
        try await a.request(client) { $0[.count] = 1 }
        cluster.clock.advance(by: .seconds(61))
        a.store.next(.put, on: "a/").fails(.unavailable)
        try await a.request(client) { #expect($0[.count] == 1) }
        #expect(a.sessions.statistics.accessTimeSaveFailures == 1)
        try await a.request(client) { _ in }
        #expect(a.sessions.statistics.accessTimeSaves == 1)
    }

    @Test func `another key's value is noticed and not used`() async throws {
        let cluster = Cluster()
        let a = try cluster.node("a")
        let (ann, bob) = (Client(), Client())
        try await a.request(ann) { $0[.user] = "ann" }
        try await a.request(bob) { $0[.user] = "bob" }
        let keys = a.store.calls.filter { $0.description.contains("put d/") }.map { $0.keys[0] }
        let foreign = try #require(try await cluster.store.get([keys[0]])[0].get())
        _ = try await cluster.store.put(foreign.bytes, for: keys[1], timeToLive: .seconds(60), if: .always)
        let error = await #expect(throws: SessionError.self) {
            try await cluster.node("b").request(bob) { #expect($0[.user] != "ann") }
        }
        #expect(error?.code == .storeUnavailable)
    }
}
