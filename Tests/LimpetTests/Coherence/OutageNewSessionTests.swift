import LimpetTesting
import Logging
import Testing

@testable import Limpet

/// Sessions that begin while the store is down (R25), and how many may wait.
struct OutageNewSessionTests {
    private let cluster = Cluster(tellsTokens: true)

    @Test func `local: a session begins, and is stored when the store is back`() async throws {
        let a = try cluster.node("a")
        try await a.request(Client()) { _ in }
        await a.loseStore(cluster)
        let client = Client()
        try await a.request(client) { $0[.count] = 1 }
        #expect(client.route == "a")
        try await a.request(client) { session in
            #expect(!session.isNew)
            #expect(session[.count] == 1)
            session[.other] = 2
        }
        // It is told when the store has it.
        #expect(a.events.all == [])
        await a.regainStore()
        a.store.forgetCalls()
        await a.sessions.deliver()
        #expect(a.store.shortCalls == ["put v absent", "put d absent"])
        #expect(a.events.all == ["created"])
        #expect(a.sessions.statistics.unsentDelivered == 1)
        try await cluster.node("b").request(client) { session in
            #expect(session[.count] == 1)
            #expect(session[.other] == 2)
        }
    }

    @Test func `the next request stores it, if that is first`() async throws {
        let a = try cluster.node("a")
        try await a.request(Client()) { _ in }
        await a.loseStore(cluster)
        let client = Client()
        try await a.request(client) { $0[.count] = 1 }
        await a.regainStore()
        try await a.request(client) { $0[.count, default: 0] += 1 }
        #expect(a.events.all == ["created"])
        try await cluster.node("b").request(client) { #expect($0[.count] == 2) }
    }

    @Test func `one that ends before it was stored just ends, and nobody is told`() async throws {
        let a = try cluster.node("a")
        try await a.request(Client()) { _ in }
        await a.loseStore(cluster)
        let (first, second) = (Client(), Client())
        try await a.request(first) { $0[.count] = 1 }
        try await a.request(second) { $0[.count] = 1 }
        let cookie = first.cookie
        try await a.request(first) { $0.invalidate() }
        #expect(first.cookie == nil)
        cluster.clock.advance(by: .seconds(1801))
        await a.sessions.scavenge()
        #expect(a.sessions.statistics.sessionsInMemory == 0)
        #expect(a.sessions.statistics.unsentSessions == 0)
        await a.regainStore()
        await a.sessions.deliver()
        try await a.request(Client(), cookie: cookie) { #expect($0.isNew) }
        #expect(a.events.all == [])
    }

    @Test(arguments: ["v/", "d/"], [true, false])
    func `R12: one whose storing nobody answered is found out, and told once`(key: String, happened: Bool) async throws
    {
        let a = try cluster.node("a")
        try await a.request(Client()) { _ in }
        await a.loseStore(cluster)
        let client = Client()
        try await a.request(client) { $0[.count] = 1 }
        await a.regainStore()
        if happened {
            a.store.next(2, .put, on: key).failsAfterEffect()
        } else {
            a.store.next(2, .put, on: key).fails(.timeout, mayHaveTakenEffect: true)
        }
        await a.sessions.deliver()
        #expect(a.sessions.statistics.unsentSessions == 1)
        try await a.request(client) { #expect($0[.count] == 1) }
        #expect(a.sessions.statistics.unsentSessions == 0)
        #expect(a.events.all == ["created"])
        try await cluster.node("b").request(client) { #expect($0[.count] == 1) }
    }

    @Test func `beyond the bound a write is 503, and those that wait may still change`() async throws {
        let a = try cluster.node("a")
        try await a.request(Client()) { _ in }
        await a.loseStore(cluster)
        let client = Client()
        try await a.request(client) { $0[.count] = 1 }
        for _ in 1..<UnsentSessions.capacity { try await a.request(Client()) { $0[.count] = 1 } }
        #expect(a.sessions.statistics.unsentSessions == UnsentSessions.capacity)
        let error = await #expect(throws: SessionError.self) { try await a.request(Client()) { $0[.count] = 1 } }
        #expect(error?.code == .storeUnavailable)
        try await a.request(client) { $0[.count] = 2 }
        await a.regainStore()
        await a.sessions.deliver()
        #expect(a.sessions.statistics.unsentSessions == 0)
        #expect(a.sessions.statistics.created == UnsentSessions.capacity)
        try await cluster.node("b").request(client) { #expect($0[.count] == 2) }
    }

    @Test func `an outage is said once, not with each request`() async throws {
        let log = LogLines()
        let store = ScriptedStore(MemoryStore(clock: cluster.clock))
        let a = Node(
            store: store, events: EventLog(),
            sessions: try SessionManager(
                store: store, configuration: SessionConfiguration(), clock: cluster.clock,
                logger: Logger(label: "test", factory: { _ in log })))
        let client = Client()
        try await a.request(client) { $0[.count] = 1 }
        await a.loseStore(cluster)
        cluster.clock.advance(by: .seconds(600))
        for _ in 0..<50 {
            try await a.request(client) { $0[.count, default: 0] += 1 }
            try await a.request(client) { _ in }
            await #expect(throws: SessionError.self) {
                try await a.request(Client(), cookie: "session=\(SessionID().text).b") { _ in }
            }
        }
        #expect(log.all.count < 5)
        #expect(log.all.contains("warning: A server of the store does not answer and is left alone for a while"))
    }
}

/// What waits, as values.
struct UnsentTests {
    private func record(_ count: Int?) throws -> SessionRecord {
        SessionRecord(
            home: NodeIdentity(name: "a", incarnation: 1), epoch: Epoch(5), createdAt: 0, accessedAt: 0,
            lastAccessedAt: 0,
            cookieSetAt: 0, maxInactive: 1000,
            attributes: try count.map { ["count": try Attribute(encoding: $0)] } ?? [:])
    }

    private func changes(_ count: Int?) throws -> SessionChanges {
        var changes = SessionChanges()
        changes.attributes.updateValue(try count.map { try Attribute(encoding: $0) }, forKey: "count")
        return changes
    }

    private func apply(
        _ changed: Int?, to now: Int?, since then: Int?, mayBeThere: Bool
    ) throws -> Int? {
        var record = try record(now)
        Unsent(try changes(changed), planting: .stored, mayBeThere: mayBeThere).apply(
            to: &record, since: try self.record(then))
        return record.attributes["count"]?.value(Int.self) { _ in }
    }

    @Test func `changes that were never sent go on whatever is there`() throws {
        #expect(try apply(2, to: 1, since: 1, mayBeThere: false) == 2)
        #expect(try apply(2, to: 9, since: 1, mayBeThere: false) == 2)
        #expect(try apply(nil, to: 9, since: 1, mayBeThere: false) == nil)
    }

    @Test func `changes that may have been there go only on what was there before`() throws {
        #expect(try apply(2, to: 1, since: 1, mayBeThere: true) == 2)
        #expect(try apply(2, to: nil, since: nil, mayBeThere: true) == 2)
        #expect(try apply(nil, to: 1, since: 1, mayBeThere: true) == nil)
        #expect(try apply(2, to: 9, since: 1, mayBeThere: true) == 9)
        #expect(try apply(2, to: nil, since: 1, mayBeThere: true) == nil)
        #expect(try apply(nil, to: 9, since: 1, mayBeThere: true) == 9)
    }

    @Test func `later changes win, removals included`() throws {
        let merged = try changes(1).merging(try changes(nil))
        #expect(merged.attributes.keys.contains("count"))
        var record = try record(7)
        merged.apply(to: &record)
        #expect(record.attributes.isEmpty)
    }
}
