import HTTPTypes
import LimpetTesting
import Testing

@testable import Limpet

/// The store cannot be asked: what is read, kept and refused meanwhile (R25, R12).
struct OutageTests {
    private let cluster = Cluster(tellsTokens: true)

    private func node(
        _ name: String, _ whenUnavailable: SessionConfiguration.Store.WhenUnavailable = .local,
        mode: SessionConfiguration.Mode = .sticky, saveInterval: Duration = .seconds(60)
    ) throws -> Node {
        try cluster.node(name, saveInterval: saveInterval) { configuration in
            configuration.store.whenUnavailable = whenUnavailable
            configuration.mode = mode
        }
    }

    /// Expects the answer 503 with `Retry-After`.
    private func expectRefusal(
        _ node: Node, _ client: Client, sourceLocation: SourceLocation = #_sourceLocation,
        _ body: @Sendable (Session) -> Void = { _ in }
    ) async {
        let error = await #expect(throws: SessionError.self, sourceLocation: sourceLocation) {
            try await node.request(client, body)
        }
        #expect(error?.code == .storeUnavailable, sourceLocation: sourceLocation)
        #expect(error?.status == .serviceUnavailable, sourceLocation: sourceLocation)
        #expect(error?.retryAfterSeconds == 1, sourceLocation: sourceLocation)
    }

    // MARK: Reads

    @Test(arguments: [Duration.zero, .seconds(60)])
    func `local: a home reads its sessions on, however old, without asking`(saveInterval: Duration) async throws {
        let a = try node("a", saveInterval: saveInterval)
        let client = Client()
        try await a.request(client) { $0[.count] = 1 }
        await a.loseStore(cluster)
        cluster.clock.advance(by: .seconds(600))
        a.store.forgetCalls()
        for _ in 0..<3 { try await a.request(client) { #expect($0[.count] == 1) } }
        // An access time is due with each of them: one asks whether the server is back, with a read.
        #expect(a.store.calls.map(\.kind) == [.get])
    }

    @Test func `reject: a session is read while the watch vouches for it, and not after`() async throws {
        let a = try node("a", .reject)
        let client = Client()
        try await a.request(client) { $0[.count] = 1 }
        a.store.every().fails(.unavailable)
        try await a.request(client) { #expect($0[.count] == 1) }
        await a.loseStore(cluster)
        await expectRefusal(a, client)
    }

    @Test(arguments: SessionConfiguration.Store.WhenUnavailable.allCases)
    func `a session that is not here is 503, never a new one`(mode: SessionConfiguration.Store.WhenUnavailable)
        async throws
    {
        let a = try node("a", mode)
        let b = try node("b", mode)
        let client = Client()
        try await a.request(client) { $0[.count] = 1 }
        try await b.request(Client()) { _ in }
        await b.loseStore(cluster)
        await expectRefusal(b, client)
        // Nor is one that went elsewhere since, though a copy of it is here.
        try await a.request(client) { $0[.count] = 2 }
        await b.regainStore()
        try await b.request(client) { #expect($0[.count] == 2) }
        await a.loseStore(cluster)
        await expectRefusal(a, client)
    }

    @Test func `a copy that cannot be verified, the breaker still closed, is read by its home`() async throws {
        let a = try node("a", saveInterval: .zero)
        let strict = try node("s", .reject, saveInterval: .zero)
        let client = Client()
        let other = Client()
        try await a.request(client) { $0[.count] = 1 }
        try await strict.request(other) { $0[.count] = 1 }
        a.store.next(.get, on: "v/").fails(.timeout)
        try await a.request(client) { #expect($0[.count] == 1) }
        try await a.request(client) { #expect($0.source == .verified) }
        strict.store.next(.get, on: "v/").fails(.timeout)
        await expectRefusal(strict, other)
    }

    @Test func `in roaming mode nobody answers for what others may have changed`() async throws {
        let a = try node("a", mode: .roaming)
        let client = Client()
        try await a.request(client) { $0[.count] = 1 }
        await a.loseStore(cluster)
        await expectRefusal(a, client)
        await expectRefusal(a, Client()) { $0[.count] = 1 }
    }

    // MARK: Writes

    @Test func `local: what a home is told is kept, read, and delivered when the store is back`() async throws {
        let a = try node("a")
        let client = Client()
        try await a.request(client) { session in
            session[.count] = 1
            session[.user] = "ann"
        }
        await a.loseStore(cluster)
        try await a.request(client) { session in
            session[.count] = 2
            session[.user] = nil
        }
        try await a.request(client) { session in
            #expect(session[.count] == 2)
            #expect(session[.user] == nil)
            session[.other] = 3
            session.maxInactive = .seconds(3600)
        }
        #expect(a.sessions.statistics.unsentSessions == 1)
        #expect(a.sessions.statistics.commits == 1)
        await a.regainStore()
        a.store.forgetCalls()
        await a.sessions.deliver()
        // One commit for all of it, and the epoch's time to live, which could not be renewed either.
        #expect(a.store.shortCalls == ["put d unchanged", "touch v"])
        #expect(a.sessions.statistics.unsentSessions == 0)
        #expect(a.sessions.statistics.unsentDelivered == 1)
        #expect(a.sessions.statistics.unsentDropped == 0)
        try await node("b").request(client) { session in
            #expect(session[.count] == 2)
            #expect(session[.user] == nil)
            #expect(session[.other] == 3)
            #expect(session.maxInactive == .seconds(3600))
        }
    }

    @Test func `reject: a write is 503, and the session stays as it was`() async throws {
        let a = try node("a", .reject)
        let client = Client()
        try await a.request(client) { $0[.count] = 1 }
        await a.loseStore(cluster)
        await expectRefusal(a, client) { $0[.count] = 2 }
        await expectRefusal(a, Client()) { $0[.count] = 2 }
        #expect(a.sessions.statistics.unsentSessions == 0)
        await a.regainStore()
        try await a.request(client) { #expect($0[.count] == 1) }
    }

    @Test(arguments: [true, false])
    func `R12: a write that was sent is not kept, and its session not served until the store tells`(happened: Bool)
        async throws
    {
        let a = try node("a")
        let client = Client()
        try await a.request(client) { $0[.count] = 1 }
        if happened {
            a.store.next(.put, on: "d/").failsAfterEffect()
        } else {
            a.store.next(.put, on: "d/").fails(.timeout, mayHaveTakenEffect: true)
        }
        let error = await #expect(throws: SessionError.self) { try await a.request(client) { $0[.count] = 2 } }
        #expect(error?.code == .outcomeUnknown)
        #expect(a.sessions.statistics.unknownOutcomes == 1)
        #expect(a.sessions.statistics.unsentSessions == 0)
        await a.loseStore(cluster)
        await expectRefusal(a, client)
        await a.regainStore()
        try await a.request(client) { #expect($0[.count] == (happened ? 2 : 1)) }
        #expect(a.sessions.statistics.unknownOutcomesResolved == 1)
    }

    // MARK: Ends

    @Test func `a log-out or a change of the id is 503 while the store is down, and takes nothing away`() async throws {
        let a = try node("a")
        let client = Client()
        try await a.request(client) { $0[.count] = 1 }
        await a.loseStore(cluster)
        try await a.request(client) { $0[.count] = 2 }
        await expectRefusal(a, client) { $0.invalidate() }
        await expectRefusal(a, client) { $0.rotateID() }
        try await a.request(client) { #expect($0[.count] == 2) }
        await a.regainStore()
        let before = client.cookie
        try await a.request(client) { $0.rotateID() }
        #expect(client.cookie != before)
        try await node("b").request(client) { #expect($0[.count] == 2) }
        try await a.request(client) { $0.invalidate() }
        #expect(a.events.all == ["created", "invalidated"])
    }

    @Test func `a log-out during which the store comes back drops what waited`() async throws {
        let a = try node("a")
        let client = Client()
        try await a.request(client) { $0[.count] = 1 }
        await a.loseStore(cluster)
        let cookie = client.cookie
        try await a.request(client) { $0[.count] = 2 }
        try await a.request(client) { session in
            await a.regainStore()
            session.invalidate()
        }
        #expect(a.sessions.statistics.unsentSessions == 0)
        await a.sessions.deliver()
        try await a.request(Client(), cookie: cookie) { #expect($0.isNew) }
        #expect(a.events.all == ["created", "invalidated"])
    }

    @Test func `a session with changes that wait ends when nobody asks for it`() async throws {
        let a = try node("a")
        let client = Client()
        try await a.request(client) { $0[.count] = 1 }
        await a.loseStore(cluster)
        try await a.request(client) { $0[.count] = 2 }
        cluster.clock.advance(by: .seconds(1801))
        await a.sessions.scavenge()
        // Whether it has ended only the store can say.
        #expect(a.sessions.statistics.sessionsInMemory == 1)
        await expectRefusal(a, client)
        await a.regainStore()
        cluster.clock.advance(by: SessionManager.scavengeInterval)
        await a.sessions.scavenge()
        #expect(a.sessions.statistics.sessionsInMemory == 0)
        #expect(a.sessions.statistics.unsentSessions == 0)
        #expect(a.events.all == ["created", "expired"])
    }

    // MARK: More than one server

    @Test func `one of two servers: the sessions of the other notice nothing`() async throws {
        let made = Locked<TwoServers?>(nil)
        let cluster = Cluster(over: { manual in
            let servers = TwoServers(clock: manual)
            made.withLock { $0 = servers }
            return servers
        })
        let servers = try #require(made.withLock { $0 })
        let a = try cluster.node("a")
        let b = try cluster.node("b")
        let clients = (0..<20).map { _ in Client() }
        for client in clients { try await a.request(client) { $0[.count] = 1 } }
        let down = servers.servers[0].count(.put, on: "d/")
        servers.servers[0].every().fails(.unavailable)
        await a.failPolls(cluster)
        for client in clients { try await a.request(client) { $0[.count] = 2 } }
        #expect(a.sessions.statistics.unsentSessions == down)
        #expect(a.sessions.statistics.storeOutages == 1)
        var refused = 0
        for client in clients {
            do {
                try await b.request(Client(), cookie: client.cookie) { #expect($0[.count] == 2) }
            } catch let error as SessionError {
                #expect(error.code == .storeUnavailable)
                refused += 1
            }
        }
        #expect(refused == down)
        servers.servers[0].forgetScripts()
        await a.sessions.deliver()
        await b.poll()
        #expect(a.sessions.statistics.unsentSessions == 0)
        for client in clients { try await b.request(client) { #expect($0[.count] == 2) } }
    }
}

extension Node {
    /// The store answers this node no more, and it has noticed.
    func loseStore(_ cluster: Cluster) async {
        store.every().fails(.unavailable)
        await failPolls(cluster)
    }

    /// Polls until a breaker must have opened.
    func failPolls(_ cluster: Cluster) async {
        for _ in 0..<3 {
            await poll()
            cluster.clock.advance(by: .milliseconds(250))
        }
    }

    /// The store answers again, and this node has noticed.
    func regainStore() async {
        store.forgetScripts()
        await poll()
    }
}
