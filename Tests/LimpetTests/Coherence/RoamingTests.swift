import LimpetTesting
import Testing

@testable import Limpet

/// `session.mode` `roaming`: a balancer without affinity.
struct RoamingTests {
    private func nodes(_ cluster: Cluster, _ names: [String] = ["a", "b", "c"]) throws -> [Node] {
        try names.map { try cluster.node($0) { $0.mode = .roaming } }
    }

    @Test func `a read where there is a copy is one small read of the store`() async throws {
        let cluster = Cluster()
        let nodes = try nodes(cluster)
        let client = Client()
        try await nodes[0].request(client) { $0[.count] = 1 }
        for node in nodes {
            try await node.request(client) { _ in }
            node.store.forgetCalls()
            try await node.request(client) { session in
                #expect(session[.count] == 1)
                #expect(session.source == .verified)
                #expect(session.home == "a")
            }
            #expect(node.store.shortCalls == ["get v"])
        }
        // Nobody was told another route: the session has not moved.
        #expect(client.setCookies.count == 1)
    }

    @Test func `a commit is two operations at home, and three elsewhere`() async throws {
        let cluster = Cluster(tellsTokens: true)
        let nodes = try nodes(cluster)
        let client = Client()
        try await nodes[0].request(client) { $0[.count] = 1 }
        nodes[0].store.forgetCalls()
        try await nodes[0].request(client) { $0[.count] = 2 }
        #expect(nodes[0].store.shortCalls == ["get v", "increment v", "put d unchanged"])
        // The counter that tells is made by the first who needs it.
        try await nodes[1].request(client) { $0[.count] = 0 }
        try await nodes[0].request(client) { $0[.count] = 2 }
        try await nodes[1].request(client) { _ in }
        nodes[1].store.forgetCalls()
        try await nodes[1].request(client) { $0[.count] = 3 }
        #expect(nodes[1].store.shortCalls == ["get v", "increment v", "increment c c", "put d unchanged"])
        #expect(client.route == "b")
    }

    @Test func `R6: the old home is told of a commit elsewhere before there is something to put back`() async throws {
        let cluster = Cluster(tellsTokens: true)
        let nodes = try nodes(cluster)
        let (a, b) = (nodes[0], nodes[1])
        let client = Client()
        try await a.request(client) { $0[.count] = 1 }
        b.store.next(.put, on: "d/").runsFirst {
            a.store.forgetCalls()
            await a.poll()
            // The poll has found a counter changed, and the epoch.
            #expect(a.store.count(.get, on: "v/") > 0)
        }
        try await b.request(client) { $0[.count] = 2 }
        await a.poll()
        #expect(a.sessions.statistics.sessionsInMemory == 0)
        // The old home has nothing to put back any more.
        try await cluster.store.loseMemory()
        await a.poll()
        await b.poll()
        #expect(a.sessions.statistics.republished == 0)
        try await a.request(client) { #expect($0[.count] == 2) }
    }

    @Test(arguments: [true, false])
    func `R6: when the old home cannot be told, nothing is stored, as the answer says`(isSent: Bool) async throws {
        let cluster = Cluster(tellsTokens: true)
        let nodes = try nodes(cluster)
        let (a, b) = (nodes[0], nodes[1])
        let client = Client()
        try await a.request(client) { $0[.count] = 1 }
        let cookie = client.cookie
        b.store.every(.increment, on: "c/").fails(isSent ? .timeout : .unavailable, mayHaveTakenEffect: isSent)
        let error = await #expect(throws: SessionError.self) { try await b.request(client) { $0[.count] = 2 } }
        #expect(error?.code == (isSent ? .outcomeUnknown : .storeUnavailable))
        #expect(client.cookie == cookie)
        #expect(b.store.count(.put, on: "d/") == 0)
        b.store.forgetScripts()
        for node in nodes { try await node.request(Client(), cookie: cookie) { #expect($0[.count] == 1) } }
    }

    @Test(arguments: [["d/"], ["d/", "v/"]])
    func `R18: a home whose record is lost while it commits puts it back, and knows the epoch that it raised itself`(
        lost: [String]
    ) async throws {
        let cluster = Cluster(tellsTokens: true)
        let nodes = try nodes(cluster)
        let client = Client()
        try await nodes[0].request(client) { $0[.count] = 1 }
        nodes[0].store.next(.put, on: "d/").runsFirst {
            for key in lost {
                do { try await cluster.store.lose(key) } catch { Issue.record(error) }
            }
        }
        try await nodes[0].request(client) { $0[.count] = 2 }
        #expect(nodes[0].sessions.statistics.republished == 1)
        try await nodes[1].request(client) { #expect($0[.count] == 2) }
    }

    @Test func `R17: what a home reads just before another node ends the session is looked at again`()
        async throws
    {
        let cluster = Cluster(tellsTokens: true)
        let nodes = try nodes(cluster)
        let (a, b) = (nodes[0], nodes[1])
        let client = Client()
        try await a.request(client) { $0[.count] = 1 }
        let cookie = client.cookie
        // Between b's raising the epoch, which a hears of, and the end.
        b.store.next(.put, on: "d/").runsFirst {
            await a.poll()
            do {
                try await a.request(Client(), cookie: cookie) { #expect($0[.count] == 1) }
            } catch {
                Issue.record(error)
            }
        }
        try await b.request(client) { $0.invalidate() }
        cluster.clock.advance(by: .milliseconds(250))
        await a.poll()
        #expect(a.sessions.statistics.sessionsInMemory == 0)
        try await cluster.store.loseMemory()
        await a.poll()
        #expect(a.sessions.statistics.republished == 0)
    }

    /// Before the home raises the epoch itself, and after.
    @Test(arguments: [(StoreCall.Kind.increment, "v/"), (.put, "d/")])
    func `R18: a home does not put back what another node has changed while it committed`(
        before kind: StoreCall.Kind, of key: String
    ) async throws {
        let cluster = Cluster(tellsTokens: true)
        let nodes = try nodes(cluster)
        let (a, b) = (nodes[0], nodes[1])
        let client = Client()
        try await a.request(client) { $0[.count] = 1 }
        let cookie = client.cookie
        a.store.next(kind, on: key).runsFirst {
            do { try await b.request(Client(), cookie: cookie) { $0[.count] = 3 } } catch { Issue.record(error) }
        }
        a.store.next(.put, on: "d/").runsFirst {
            do { try await cluster.store.lose("d/") } catch { Issue.record(error) }
        }
        let error = await #expect(throws: SessionError.self) { try await a.request(client) { $0[.count] = 2 } }
        #expect(error?.code == .conflict)
        #expect(a.sessions.statistics.republished == 0)
    }

    @Test func `every read sees every write that was acknowledged before it, wherever both go`() async throws {
        let cluster = Cluster()
        let nodes = try nodes(cluster)
        let client = Client()
        for number in 1...60 {
            try await nodes[number * 7 % 3].request(client) { $0[.count] = number }
            for node in nodes {
                try await node.request(client) { #expect($0[.count] == number) }
            }
        }
    }

    @Test func `changes of two nodes at once are both there`() async throws {
        let cluster = Cluster()
        let nodes = try nodes(cluster)
        let client = Client()
        try await nodes[0].request(client) { $0[.user] = "ann" }
        let cookie = client.cookie
        try await nodes[1].request(client) { session in
            session[.count] = 1
            try await nodes[2].request(Client(), cookie: cookie) { $0[.other] = 2 }
        }
        for node in nodes {
            try await node.request(client) { session in
                #expect(session[.count] == 1)
                #expect(session[.other] == 2)
            }
        }
    }

    @Test func `R4: a copy has the epoch of its record and not the one that was read beside it`() async throws {
        let cluster = Cluster()
        let nodes = try nodes(cluster)
        let client = Client()
        try await nodes[0].request(client) { $0[.count] = 1 }
        // Between a's raise of the epoch and its swap, b reads the old record and the new epoch.
        nodes[0].store.next(.put, on: "d/").runsFirst {
            do {
                try await nodes[1].request(Client(), cookie: client.cookie) { #expect($0[.count] == 1) }
            } catch {
                Issue.record(error)
            }
        }
        try await nodes[0].request(client) { $0[.count] = 2 }
        try await nodes[1].request(client) { #expect($0[.count] == 2) }
    }

    @Test func `an epoch that was evicted is made again by whoever reads`() async throws {
        let cluster = Cluster()
        let nodes = try nodes(cluster)
        let client = Client()
        try await nodes[0].request(client) { $0[.count] = 1 }
        try await cluster.store.lose("v/")
        try await nodes[1].request(client) { _ in }
        try await nodes[1].request(client) { #expect($0.source == .verified) }
        try await nodes[0].request(client) { #expect($0[.count] == 1) }
    }

    @Test func `a session that was used on another node does not expire at home`() async throws {
        let cluster = Cluster()
        let nodes = try nodes(cluster)
        let client = Client()
        try await nodes[0].request(client) { $0[.count] = 1 }
        for _ in 0..<80 {
            cluster.clock.advance(by: .seconds(30))
            try await nodes[1].request(client) { #expect($0[.count] == 1) }
            await nodes[0].sessions.scavenge()
        }
        try await nodes[0].request(client) { #expect($0[.count] == 1) }
        #expect(nodes[0].events.all == ["created"])
        cluster.clock.advance(by: .seconds(1800 + 60 + 10))
        try await cluster.whilePolling(nodes) {
            try await nodes[2].request(client) { #expect($0.isNew) }
        }
    }
}
