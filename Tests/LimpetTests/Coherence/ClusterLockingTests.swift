import HTTPTypes
import Limpet
import LimpetTesting
import Testing

@testable import Limpet

/// A session that is locked on all nodes.
struct ClusterLockingTests {
    private func node(
        _ name: String, in cluster: Cluster, timeout: Duration = .seconds(10),
        whenUnavailable: SessionConfiguration.Store.WhenUnavailable = .reject
    ) async throws -> Node {
        let node = try cluster.node(name) { configuration in
            configuration.lock.scope = .cluster
            configuration.lock.timeout = timeout
            configuration.store.whenUnavailable = whenUnavailable
        }
        await node.membership.beat()
        if !node.membership.isMember {
            cluster.clock.advance(by: .milliseconds(500))
            await node.membership.beat()
        }
        await node.poll()
        return node
    }

    private func nodes(_ names: String..., in cluster: Cluster) async throws -> [Node] {
        var nodes: [Node] = []
        for name in names { nodes.append(try await node(name, in: cluster)) }
        for node in nodes { await node.membership.beat() }
        return nodes
    }

    private func locksInStore(_ cluster: Cluster, _ node: Node, of client: Client) async throws -> ClusterLock? {
        let text = try #require(client.cookie?.split(separator: "=").last?.split(separator: ".").first)
        let id = try #require(SessionID(text.utf8))
        let key = node.sessions.coherence.names.keys(of: id).lock
        return try await cluster.store.get([key])[0].get().map { try ClusterLock(bytes: $0.bytes) }
    }

    @Test func `a node that holds the lock makes no store call`() async throws {
        let cluster = Cluster()
        let a = try await nodes("a", in: cluster)[0]
        let client = Client()
        try await a.request(client) { $0[.count] = 1 }
        a.store.forgetCalls()
        for _ in 0..<3 {
            try await a.request(client) { session in
                #expect(session[.count] == 1)
                #expect(session.source == .local)
            }
        }
        #expect(a.store.calls.isEmpty)
    }

    @Test func `requests on two nodes count every one`() async throws {
        let cluster = Cluster()
        let nodes = try await nodes("a", "b", in: cluster)
        let client = Client()
        try await nodes[0].request(client) { $0[.count] = 0 }
        let cookie = client.cookie
        try await cluster.whilePolling(nodes) {
            for _ in 0..<5 {
                try await withThrowingTaskGroup(of: Void.self) { group in
                    for node in nodes {
                        group.addTask {
                            try await node.request(Client(), cookie: cookie) { session in
                                let count = session[.count] ?? 0
                                await Task.yield()
                                session[.count] = count + 1
                            }
                        }
                    }
                    try await group.waitForAll()
                }
            }
            try await nodes[0].request(Client(), cookie: cookie) { #expect($0[.count] == 10) }
        }
        #expect(nodes[0].sessions.statistics.locksHandedOver > 0)
        #expect(nodes.map(\.sessions.statistics.merges) == [0, 0])
        #expect(nodes.map(\.sessions.statistics.conflicts) == [0, 0])
    }

    @Test func `a contender waits until the request that is in has left`() async throws {
        let cluster = Cluster()
        let nodes = try await nodes("a", "b", in: cluster)
        let client = Client()
        try await nodes[0].request(client) { $0[.count] = 1 }
        let cookie = client.cookie
        let hold = nodes[0].store.next(.put, on: "d/").isHeld()
        async let slow: Void = nodes[0].request(Client(), cookie: cookie) { $0[.count] = 2 }
        await hold.waitUntilHeld()
        try await cluster.whilePolling(nodes) {
            async let read = nodes[1].request(Client(), cookie: cookie) { $0[.count] }
            while nodes[1].store.count(.put, on: "w/") == 0 { await Task.yield() }
            hold.release()
            let value = try await read
            #expect(value == 2)
        }
        try await slow
        #expect(nodes[1].sessions.statistics.clusterLockWaits == 1)
        #expect(nodes[0].sessions.statistics.locksHandedOver == 1)
    }

    @Test func `a contender is woken by its watch when the holder has let go, and need not look again by itself`()
        async throws
    {
        let cluster = Cluster()
        let nodes = try await nodes("a", "b", in: cluster)
        let client = Client()
        try await nodes[0].request(client) { $0[.count] = 1 }
        let cookie = client.cookie
        async let read = nodes[1].request(Client(), cookie: cookie) { $0[.count] }
        while nodes[1].store.count(.put, on: "w/") == 0 || cluster.clock.sleeperCount == 0 { await Task.yield() }
        // The clock stands still from now on.
        await nodes[0].poll()
        #expect(nodes[0].sessions.statistics.locksHandedOver == 1)
        await nodes[1].poll()
        let value = try await read
        #expect(value == 1)
    }

    @Test func `a node that has let a lock go may have it back as soon as the other one has had it`() async throws {
        let cluster = Cluster()
        let nodes = try await nodes("a", "b", in: cluster)
        let client = Client()
        try await nodes[0].request(client) { $0[.count] = 1 }
        let cookie = client.cookie
        // The clock stands still: nobody looks again by itself.
        for (holder, contender) in [(nodes[0], nodes[1]), (nodes[1], nodes[0])] {
            contender.store.forgetCalls()
            async let read = contender.request(Client(), cookie: cookie) { $0[.count] }
            while contender.store.count(.put, on: "w/") == 0 || cluster.clock.sleeperCount == 0 { await Task.yield() }
            await holder.poll()
            await contender.poll()
            let value = try await read
            #expect(value == 1)
            #expect(holder.sessions.statistics.locksHandedOver == 1)
        }
    }

    @Test func `who waits for a lock hears of a change before the next poll`() async throws {
        let cluster = Cluster()
        let nodes = try await nodes("a", "b", in: cluster)
        let coherence = nodes[1].sessions.coherence
        let id = SessionID()
        let keys = coherence.names.keys(of: id)
        let waits = coherence.clusterWaits
        waits.join(id, keys)
        let looks = Task { await coherence.runLooksForNews() }
        // What there is at first is news to a node that has not looked before.
        for hasNews in [true, false] {
            let nap = Task { try await waits.sleep(id, knowing: waits.news(of: id), atMost: .seconds(60)) }
            await cluster.clock.waitForSleepers(2)
            let count = waits.news(of: id)
            cluster.clock.advance(by: .milliseconds(25))
            if !hasNews {
                await cluster.clock.waitForSleepers(2)
                #expect(waits.news(of: id) == count)
                try await nodes[0].sessions.coherence.bump("b", keys)
                cluster.clock.advance(by: .milliseconds(25))
            }
            try await nap.value
            #expect(waits.news(of: id) == count + 1)
        }
        waits.leave(id)
        looks.cancel()
        await looks.value
    }

    @Test func `of many requests on one node one asks for the lock, and all come in when it has it`() async throws {
        let cluster = Cluster()
        let nodes = try await nodes("a", "b", in: cluster)
        let client = Client()
        try await nodes[0].request(client) { $0[.count] = 1 }
        let cookie = client.cookie
        await nodes[0].poll()
        nodes[1].store.forgetCalls()
        let hold = nodes[1].store.next(.get, on: "l/").isHeld()
        try await cluster.whilePolling([nodes[0]]) {
            try await withThrowingTaskGroup(of: Void.self) { group in
                for _ in 0..<20 {
                    group.addTask {
                        _ = try await nodes[1].sessions.withReadOnlySession([.cookie: cookie ?? ""], \HTTPFields.self) {
                            #expect($0[.count] == 1)
                            return [:]
                        }
                    }
                }
                await hold.waitUntilHeld()
                hold.release()
                try await group.waitForAll()
            }
        }
        #expect(nodes[1].store.count(.put, on: "l/") == 1)
        #expect(nodes[1].sessions.coherence.clusterWaits.count == 0)
    }

    @Test func `a request that is cancelled while it waits leaves nothing behind`() async throws {
        let cluster = Cluster()
        let nodes = try await nodes("a", "b", in: cluster)
        let client = Client()
        try await nodes[0].request(client) { $0[.count] = 1 }
        let cookie = client.cookie
        let waiting = Task { try await nodes[1].request(Client(), cookie: cookie) { _ in } }
        while nodes[1].store.count(.put, on: "w/") == 0 || cluster.clock.sleeperCount == 0 { await Task.yield() }
        waiting.cancel()
        await #expect(throws: CancellationError.self) { try await waiting.value }
        #expect(nodes[1].sessions.coherence.clusterWaits.count == 0)
        #expect(nodes[1].sessions.statistics.sessionsEntered == 0)
    }

    @Test func `an explanation tells who holds the lock, for how long, and who wants it`() async throws {
        let cluster = Cluster()
        let nodes = try await nodes("a", "b", in: cluster)
        let client = Client()
        let fingerprint = try await nodes[0].request(client) { session in
            session[.count] = 1
            return session.fingerprint
        }
        cluster.clock.advance(by: .seconds(2))
        let here = try await nodes[0].sessions.explain(fingerprint)
        #expect(here.clusterLock?.holder == "a")
        #expect(here.clusterLock?.heldSeconds == 2)
        #expect(here.clusterLock?.wantedBy == nil)
        let cookie = client.cookie
        async let read = nodes[1].request(Client(), cookie: cookie) { $0[.count] }
        while nodes[1].store.count(.put, on: "w/") == 0 || cluster.clock.sleeperCount == 0 { await Task.yield() }
        let there = try await nodes[1].sessions.explain(fingerprint)
        #expect(there.clusterLock?.holder == "a")
        #expect(there.clusterLock?.heldSeconds == nil)
        #expect(there.clusterLock?.wantedBy == "b")
        #expect(there.description.contains("locked by a; b wants it"))
        await nodes[0].poll()
        await nodes[1].poll()
        let value = try await read
        #expect(value == 1)
        #expect(try await nodes[0].sessions.explain(fingerprint).clusterLock?.holder == "b")
    }

    @Test func `a request waits no longer than it may`() async throws {
        let cluster = Cluster()
        let a = try await node("a", in: cluster)
        let b = try await node("b", in: cluster, timeout: .seconds(6))
        let client = Client()
        try await a.request(client) { $0[.count] = 1 }
        // It lives, and its watch hears nothing.
        b.store.next(1000, .get, on: "n/a").runsFirst { await a.membership.beat() }
        try await cluster.whilePolling([b]) {
            let error = await #expect(throws: SessionError.self) { try await b.request(client) { _ in } }
            #expect(error?.code == .lockTimeout)
        }
    }

    @Test func `a dead holder's locks fall with its lease, and not before`() async throws {
        let cluster = Cluster()
        let nodes = try await nodes("a", "b", in: cluster)
        let client = Client()
        try await nodes[0].request(client) { $0[.count] = 1 }
        let start = cluster.clock.monotonicNanoseconds()
        try await cluster.whilePolling([nodes[1]]) {
            try await nodes[1].request(client) { #expect($0[.count] == 1) }
        }
        let waited = cluster.clock.monotonicNanoseconds() - start
        #expect(waited >= Duration.seconds(5).nanoseconds)
        #expect(waited < Duration.seconds(7).nanoseconds)
    }

    @Test func `a holder that was stopped cannot write over what came after, nor beside it`() async throws {
        let cluster = Cluster()
        let nodes = try await nodes("a", "b", in: cluster)
        let client = Client()
        try await nodes[0].request(client) { $0[.count] = 1 }
        let cookie = client.cookie
        let (isIn, entered) = AsyncStream.makeStream(of: Void.self)
        let (goesOn, resume) = AsyncStream.makeStream(of: Void.self)
        async let stopped: Void = nodes[0].request(Client(), cookie: cookie) { session in
            entered.finish()
            for await _ in goesOn {}
            session[.other] = 1
        }
        for await _ in isIn {}
        try await cluster.whilePolling([nodes[1]]) {
            // Only reads: what fences the write that is on its way is the taking of the lock.
            try await nodes[1].request(Client(), cookie: cookie) { #expect($0[.count] == 1) }
        }
        resume.finish()
        do {
            try await stopped
            Issue.record("the write was acknowledged")
        } catch let error as SessionError {
            #expect(error.code == .conflict)
            #expect(error.status == .serviceUnavailable)
        }
        try await nodes[1].request(Client(), cookie: cookie) { #expect($0[.other] == nil) }
    }

    @Test func `a node whose lease ended asks before it serves from memory`() async throws {
        let cluster = Cluster()
        let a = try await nodes("a", in: cluster)[0]
        let client = Client()
        try await a.request(client) { $0[.count] = 1 }
        cluster.clock.advance(by: .milliseconds(3500))
        await a.poll()
        try await a.request(client) { #expect($0.source == .store) }
        #expect(a.sessions.statistics.lostLeases == 1)
        try await a.request(client) { #expect($0.source == .local) }
    }

    @Test func `a lock that the store lost is believed by nobody once another node reads`() async throws {
        let cluster = Cluster()
        let nodes = try await nodes("a", "b", in: cluster)
        let client = Client()
        try await nodes[0].request(client) { $0[.count] = 1 }
        let cookie = client.cookie
        try await cluster.store.lose("l/")
        let start = cluster.clock.monotonicNanoseconds()
        try await cluster.whilePolling(nodes) {
            try await nodes[1].request(Client(), cookie: cookie) { $0[.count] = 2 }
        }
        #expect(cluster.clock.monotonicNanoseconds() - start >= Duration.milliseconds(500).nanoseconds)
        #expect(nodes[0].sessions.statistics.locksLost == 1)
        try await cluster.whilePolling(nodes) {
            try await nodes[0].request(Client(), cookie: cookie) { #expect($0[.count] == 2) }
        }
    }

    @Test(arguments: [true, false])
    func `a lock whose taking was not answered is found out`(happened: Bool) async throws {
        let cluster = Cluster()
        let nodes = try await nodes("a", "b", in: cluster)
        let client = Client()
        try await nodes[0].request(client) { $0[.count] = 1 }
        let cookie = client.cookie
        if happened {
            nodes[1].store.next(.put, on: "l/").failsAfterEffect()
        } else {
            nodes[1].store.next(.put, on: "l/").fails(.timeout, mayHaveTakenEffect: true)
        }
        try await cluster.whilePolling(nodes) {
            try await nodes[1].request(Client(), cookie: cookie) { $0[.count] = 2 }
            try await nodes[0].request(Client(), cookie: cookie) { #expect($0[.count] == 2) }
        }
    }

    @Test func `a letting go that arrives late does not take what was taken again`() async throws {
        let cluster = Cluster()
        let nodes = try await nodes("a", "b", in: cluster)
        let client = Client()
        try await nodes[0].request(client) { $0[.count] = 1 }
        let cookie = client.cookie
        // b leaves a mark, and is gone before a lets go.
        let late = nodes[0].store.next(.put, on: "l/").failsThenTakesEffect()
        let impatient = Task { try await nodes[1].request(Client(), cookie: cookie) { _ in } }
        while nodes[1].store.count(.put, on: "w/") == 0 || cluster.clock.sleeperCount == 0 { await Task.yield() }
        impatient.cancel()
        await #expect(throws: CancellationError.self) { try await impatient.value }
        await nodes[0].poll()
        try await cluster.whilePolling(nodes) {
            try await nodes[0].request(Client(), cookie: cookie) { #expect($0[.count] == 1) }
        }
        #expect(try await late.takeEffect() == false)
        guard case .held(let holding)? = try await locksInStore(cluster, nodes[0], of: client) else {
            Issue.record("the lock is gone")
            return
        }
        #expect(holding.node.name == "a")
    }

    @Test func `a node that stops gives up as many locks as it has time for`() async throws {
        let cluster = Cluster()
        let a = try await nodes("a", in: cluster)[0]
        for _ in 0..<20 { try await a.request(Client()) { $0[.count] = 1 } }
        a.store.forgetCalls()
        a.store.next(.put, on: "l/").runsFirst { cluster.clock.advance(by: .seconds(15)) }
        await a.sessions.drain()
        // Those that were begun together.
        #expect(a.store.count(.put, on: "l/") == 16)
    }

    @Test func `a node that stops gives its locks up`() async throws {
        let cluster = Cluster()
        let nodes = try await nodes("a", "b", in: cluster)
        let client = Client()
        try await nodes[0].request(client) { $0[.count] = 1 }
        await nodes[0].sessions.drain()
        #expect(try await locksInStore(cluster, nodes[1], of: client) == .free)
        // Nobody polls, and nothing waits.
        try await nodes[1].request(client) { #expect($0[.count] == 1) }
        #expect(nodes[1].sessions.statistics.clusterLockWaits == 0)
    }

    @Test func `an id that does not exist leaves nothing behind`() async throws {
        let cluster = Cluster()
        let a = try await nodes("a", in: cluster)[0]
        let id = SessionID()
        try await cluster.whilePolling([a]) {
            try await a.request(Client(), cookie: "session=\(id.text).a") { #expect($0.isNew) }
        }
        let key = a.sessions.coherence.names.keys(of: id).lock
        #expect(try await cluster.store.get([key])[0].get() == nil)
        #expect(a.sessions.coherence.clusterLocks.count == 0)
    }

    @Test func `a home goes on while the store is down, if it may`() async throws {
        let cluster = Cluster()
        let a = try await node("a", in: cluster, whenUnavailable: .local)
        let client = Client()
        try await a.request(client) { $0[.count] = 1 }
        a.store.every().fails(.unavailable)
        for _ in 0..<10 { await a.poll() }
        cluster.clock.advance(by: .seconds(20))
        try await a.request(client) { session in
            #expect(session[.count] == 1)
            session[.count] = 2
        }
        a.store.forgetScripts()
        #expect(a.sessions.statistics.unsentSessions == 1)
    }
}
