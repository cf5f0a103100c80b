import Limpet
import LimpetTesting
import Testing

@testable import Limpet

/// All sessions of the cluster end at once, and only when somebody says so.
struct GenerationTests {
    @Test func `only a higher generation is a clear`() {
        typealias Decision = GenerationDecision
        #expect(Decision(known: 3, read: 4, hasWaited: false) == .clear(4))
        #expect(Decision(known: 3, read: 3, hasWaited: false) == .keep)
        #expect(Decision(known: 3, read: 2, hasWaited: false) == .putBack(3))
        #expect(Decision(known: 3, read: nil, hasWaited: false) == .putBack(3))
        #expect(Decision(known: nil, read: 5, hasWaited: false) == .begin(5))
        #expect(Decision(known: nil, read: nil, hasWaited: false) == .wait)
        #expect(Decision(known: nil, read: nil, hasWaited: true) == .putBack(0))
    }

    /// Nodes that know the generation.
    private func nodes(_ names: String..., in cluster: Cluster) async throws -> [Node] {
        let nodes = try names.map { try cluster.node($0) }
        for _ in 0..<2 {
            for node in nodes { await node.membership.beat() }
            cluster.clock.advance(by: .milliseconds(500))
        }
        return nodes
    }

    @Test func `a clear ends all sessions, here at once and on the others with their next look`() async throws {
        let cluster = Cluster()
        let nodes = try await nodes("a", "b", in: cluster)
        let (a, b) = (nodes[0], nodes[1])
        let (ann, bob) = (Client(), Client())
        try await a.request(ann) { $0[.user] = "ann" }
        try await b.request(bob) { $0[.user] = "bob" }
        try await a.sessions.cluster.clear()
        #expect(a.sessions.statistics.sessionsInMemory == 0)
        try await a.request(Client(), cookie: ann.cookie) { #expect($0.isNew) }
        // The node that the cookie names is asked first.
        try await cluster.whilePolling([]) {
            try await a.request(Client(), cookie: bob.cookie) { #expect($0.isNew) }
        }
        await b.membership.beat()
        for client in [ann, bob] {
            try await cluster.whilePolling([]) {
                try await b.request(Client(), cookie: client.cookie) { #expect($0.isNew) }
            }
        }
        #expect(a.events.all == ["created", "cleared"])
        #expect(b.events.all == ["created", "cleared"])
        // Life goes on.
        try await b.request(bob) { $0[.user] = "bob again" }
        try await a.request(bob) { #expect($0[.user] == "bob again") }
        await a.membership.beat()
        #expect(a.events.all == ["created", "cleared"])
    }

    @Test(arguments: [false, true])
    func `a request that is inside during a clear stores nothing and loses its cookie`(rotates: Bool) async throws {
        let cluster = Cluster()
        let a = try await nodes("a", in: cluster)[0]
        let client = Client()
        try await a.request(client) { $0[.user] = "ann" }
        let cookie = client.cookie
        try await a.request(client) { session in
            try await a.sessions.cluster.clear()
            session[.count] = 1
            if rotates { session.rotateID() }
        }
        #expect(client.cookie == nil)
        #expect(a.sessions.statistics.sessionsInMemory == 0)
        try await a.request(Client(), cookie: cookie) { #expect($0.isNew) }
    }

    @Test func `a clear by a node that has not heard of the last one ends what was made since`() async throws {
        let cluster = Cluster()
        let nodes = try await nodes("a", "b", in: cluster)
        try await nodes[0].sessions.cluster.clear()
        let client = Client()
        try await nodes[0].request(client) { $0[.user] = "ann" }
        try await nodes[1].sessions.cluster.clear()
        await nodes[0].membership.beat()
        try await cluster.whilePolling(nodes) {
            try await nodes[0].request(client) { #expect($0.isNew) }
        }
    }

    @Test func `a commit that is on its way during a clear does not bring its session back`() async throws {
        let cluster = Cluster()
        let a = try await nodes("a", in: cluster)[0]
        let client = Client()
        try await a.request(client) { $0[.user] = "ann" }
        let cookie = client.cookie
        let hold = a.store.next(.put, on: "d/").isHeld()
        async let commit: Void = a.request(client) { $0[.count] = 1 }
        await hold.waitUntilHeld()
        try await a.sessions.cluster.clear()
        hold.release()
        try await commit
        #expect(a.sessions.statistics.sessionsInMemory == 0)
        try await a.request(Client(), cookie: cookie) { #expect($0.isNew) }
    }

    @Test func `a change of the id that is on its way during a clear does not outlive it`() async throws {
        let cluster = Cluster()
        let a = try await nodes("a", in: cluster)[0]
        let client = Client()
        try await a.request(client) { $0[.user] = "ann" }
        // The new id's epoch is put first, then its record.
        let hold = a.store.next(.put, on: "v/").isHeld()
        async let change: Void = a.request(client) { $0.rotateID() }
        await hold.waitUntilHeld()
        try await a.sessions.cluster.clear()
        hold.release()
        try await change
        try await a.request(client) { #expect($0.isNew) }
        #expect(a.sessions.statistics.sessionsInMemory == 0)
    }

    @Test func `a generation that the store has lost is put back, and ends nothing`() async throws {
        let cluster = Cluster()
        let a = try await nodes("a", in: cluster)[0]
        try await a.sessions.cluster.clear()
        let client = Client()
        try await a.request(client) { $0[.user] = "ann" }
        try await cluster.store.lose("g")
        await a.membership.beat()
        try await a.request(client) { #expect($0[.user] == "ann") }
        #expect(a.events.all == ["cleared", "created"])
        // Whoever starts now knows it.
        let b = try await nodes("b", in: cluster)[0]
        try await b.request(client) { #expect($0[.user] == "ann") }
    }

    @Test func `a node that takes a lost generation for a clear would log everybody out`() async throws {
        let cluster = Cluster()
        let a = try cluster.node("a", breaking: .r20)
        for _ in 0..<2 {
            await a.membership.beat()
            cluster.clock.advance(by: .milliseconds(500))
        }
        try await a.sessions.cluster.clear()
        let client = Client()
        try await a.request(client) { $0[.user] = "ann" }
        try await cluster.store.lose("g")
        await a.membership.beat()
        try await a.request(client) { #expect($0.isNew) }
    }

    @Test func `two nodes that put a lower generation right at the same time end nothing`() async throws {
        let cluster = Cluster()
        let nodes = try await nodes("a", "b", in: cluster)
        let (a, b) = (nodes[0], nodes[1])
        for _ in 0..<3 { try await a.sessions.cluster.clear() }
        await b.membership.beat()
        let client = Client()
        try await a.request(client) { $0[.user] = "ann" }
        // A server comes back with what it had before the clears.
        _ = try await cluster.store.put(
            Array("1".utf8), for: a.generationKey, timeToLive: .seconds(60), if: .always)
        let hold = a.store.next(.put, on: "g").isHeld()
        async let beat: Void = a.membership.beat()
        await hold.waitUntilHeld()
        await b.membership.beat()
        hold.release()
        await beat
        for node in nodes { await node.membership.beat() }
        #expect(try await cluster.store.get([a.generationKey])[0].get()?.bytes == Array("3".utf8))
        try await a.request(client) { #expect($0[.user] == "ann") }
        #expect(b.events.all == ["cleared"])
    }

    @Test func `a node that knows no generation lets others put it back first`() async throws {
        let cluster = Cluster()
        let a = try await nodes("a", in: cluster)[0]
        try await a.sessions.cluster.clear()
        try await cluster.store.lose("g")
        let b = try cluster.node("b")
        await b.membership.beat()
        #expect(b.store.count(.put, on: "g") == 0)
        cluster.clock.advance(by: .milliseconds(499))
        await b.membership.beat()
        #expect(b.store.count(.put, on: "g") == 0)
        await a.membership.beat()
        await b.membership.beat()
        let client = Client()
        try await b.request(client) { $0[.user] = "ann" }
        await a.membership.beat()
        await b.membership.beat()
        try await a.request(client) { #expect($0[.user] == "ann") }
        #expect(b.events.all == ["created"])
    }

    @Test(arguments: [false, true])
    func `a clear that is not answered is found out, and is one clear`(happened: Bool) async throws {
        let cluster = Cluster()
        let nodes = try await nodes("a", "b", in: cluster)
        if happened {
            nodes[0].store.next(.put, on: "g").failsAfterEffect()
        } else {
            nodes[0].store.next(.put, on: "g").fails(.timeout, mayHaveTakenEffect: true)
        }
        try await nodes[0].sessions.cluster.clear()
        await nodes[1].membership.beat()
        #expect(try await cluster.store.get([nodes[0].generationKey])[0].get()?.bytes == Array("1".utf8))
        #expect(nodes.map(\.events.all) == [["cleared"], ["cleared"]])
    }

    @Test func `a clear that finds the generation missing ends the sessions all the same`() async throws {
        let cluster = Cluster()
        let a = try await nodes("a", in: cluster)[0]
        try await a.sessions.cluster.clear()
        let client = Client()
        try await a.request(client) { $0[.user] = "ann" }
        try await cluster.store.lose("g")
        try await a.sessions.cluster.clear()
        try await a.request(client) { #expect($0.isNew) }
        #expect(try await cluster.store.get([a.generationKey])[0].get()?.bytes == Array("2".utf8))
    }

    @Test func `a node that starts waits for the generation before it looks for a session`() async throws {
        let cluster = Cluster()
        let a = try await nodes("a", in: cluster)[0]
        try await a.sessions.cluster.clear()
        let client = Client()
        try await a.request(client) { $0[.user] = "ann" }
        let b = try cluster.node("b")
        // Its first look is still on its way when the first request comes.
        let hold = b.store.next(.get, on: "m").isHeld()
        async let join: Void = b.membership.join()
        await hold.waitUntilHeld()
        try await b.request(client) { #expect($0[.user] == "ann") }
        hold.release()
        await join
    }
}

extension Node {
    var membership: Membership { sessions.coherence.membership }
    var generationKey: StoreKey { sessions.coherence.names.generationCounter }
}
