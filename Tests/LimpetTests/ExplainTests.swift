import Foundation
import LimpetTesting
import Testing

@testable import Limpet

/// What a node tells about one session.
struct ExplainTests {
    private func kinds(_ explanation: SessionExplanation) -> [String] {
        explanation.transitions.map { transition in
            "\(transition.kind)" + (transition.node.map { " \($0)" } ?? "")
        }
    }

    @Test func `it tells what the store has and what this node has`() async throws {
        let cluster = Cluster()
        let a = try cluster.node("a")
        let client = Client()
        let fingerprint = try await a.request(client) { session in
            session[.user] = "ann"
            session[.count] = 12
            return session.fingerprint
        }
        let created = Date(timeIntervalSince1970: Double(cluster.clock.wallMilliseconds()) / 1000)
        await a.poll()
        var told = try await a.sessions.explain(fingerprint)
        #expect(told.fingerprint == fingerprint)
        #expect(told.node == "a")
        #expect(told.stored.kind == .record)
        let record = try #require(told.stored.record)
        #expect(record.home == "a")
        #expect(record.epoch == told.epochCounter)
        #expect(record.createdAt == created)
        #expect(record.accessedAt == created)
        #expect(record.expiresAt == created + 1800)
        #expect(record.attributes == [.init(name: "count", bytes: 2), .init(name: "user", bytes: 5)])
        #expect(told.copy?.state == .trusted)
        #expect(told.copy?.epoch == record.epoch)
        #expect(told.copy?.differsFromStore == false)
        #expect(kinds(told) == ["created"])
        #expect(told.transitions[0].at == created)

        // The home knows more than the store, up to the save interval; then it verifies.
        cluster.clock.advance(by: .seconds(30))
        try await a.request(client) { _ in }
        told = try await a.sessions.explain(fingerprint)
        #expect(told.copy?.accessedAt == created + 30)
        #expect(told.stored.record?.accessedAt == created)
        cluster.clock.advance(by: .seconds(31))
        #expect(try await a.sessions.explain(fingerprint).copy?.state == .toBeVerified)
        try await a.request(client) { _ in }
        #expect(try await a.sessions.explain(fingerprint).stored.record?.accessedAt == created + 61)
    }

    @Test func `asking changes nothing`() async throws {
        let cluster = Cluster()
        let a = try cluster.node("a")
        let client = Client()
        let fingerprint = try await a.request(client) { session in
            session[.count] = 1
            return session.fingerprint
        }
        a.store.forgetCalls()
        let first = try await a.sessions.explain(fingerprint)
        let second = try await a.sessions.explain(fingerprint)
        #expect(first == second)
        #expect(a.store.shortCalls == ["get d v a", "get d v a"])
        #expect(try await cluster.node("b").sessions.explain(fingerprint).copy == nil)
    }

    @Test func `it tells what happened here, and with whom`() async throws {
        let cluster = Cluster(tellsTokens: true)
        let a = try cluster.node("a")
        let b = try cluster.node("b")
        let client = Client()
        let fingerprint = try await a.request(client) { session in
            session[.count] = 1
            return session.fingerprint
        }
        try await b.request(client) { $0[.count] = 2 }
        // a has not noticed yet.
        var told = try await a.sessions.explain(fingerprint)
        #expect(told.copy?.differsFromStore == true)
        #expect(told.stored.record?.home == "b")
        let cookie = client.cookie
        try await b.request(client) { session in
            session[.count] = 3
            try await a.request(Client(), cookie: cookie) { $0[.other] = 1 }
        }
        #expect(
            kinds(try await b.sessions.explain(fingerprint)) == [
                "takenOver a", "committed", "conflict", "committed", "merged a",
            ])
        told = try await a.sessions.explain(fingerprint)
        #expect(kinds(told) == ["created", "foundStale", "takenOver b", "committed"])
        await a.poll()
        told = try await a.sessions.explain(fingerprint)
        #expect(kinds(told).last == "dropped")
        #expect(told.copy == nil)
        try await b.request(client) { $0.invalidate() }
        told = try await b.sessions.explain(fingerprint)
        #expect(kinds(told).last == "ended")
        #expect(told.stored == .init(kind: .ended, reason: "invalidated"))
    }

    @Test func `it tells of a change of the id, on either side and never both`() async throws {
        let cluster = Cluster()
        let a = try cluster.node("a")
        let client = Client()
        let old = try await a.request(client) { session in
            session[.count] = 1
            return session.fingerprint
        }
        let cookie = client.cookie
        try await a.request(client) { $0.rotateID() }
        let new = try await a.request(client) { $0.fingerprint }
        try await a.request(Client(), cookie: cookie) { #expect($0.isReadOnly) }
        await #expect(throws: SessionError.self) { try await a.request(Client(), cookie: cookie) { $0[.count] = 2 } }
        let told = try await a.sessions.explain(old)
        #expect(told.stored.kind == .readableOldID)
        #expect(
            told.stored.readableUntil
                == Date(timeIntervalSince1970: Double(cluster.clock.wallMilliseconds()) / 1000 + 10))
        #expect(told.stored.record?.attributes == [.init(name: "count", bytes: 1)])
        #expect(kinds(told) == ["created", "idChanged", "readByOldID", "readByOldID", "writeRefused"])
        #expect(kinds(try await a.sessions.explain(new)) == ["idGiven"])
        #expect(!"\(told)".contains("\(new)"))
        #expect(a.sessions.statistics.writesRefused == 1)
    }

    @Test func `a copy that must not be read is told so`() async throws {
        let cluster = Cluster(tellsTokens: true)
        let a = try cluster.node("a")
        let client = Client()
        let fingerprint = try await a.request(client) { session in
            session[.count] = 1
            return session.fingerprint
        }
        a.store.next(.put, on: "d/").failsAfterEffect()
        await #expect(throws: SessionError.self) { try await a.request(client) { $0[.count] = 2 } }
        let told = try await a.sessions.explain(fingerprint)
        #expect(told.copy?.state == .suspect)
        #expect(kinds(told) == ["created", "unknownOutcome"])
    }

    @Test func `what the store has lost is not there, and is told to be put back`() async throws {
        let cluster = Cluster(tellsTokens: true)
        let a = try cluster.node("a")
        let client = Client()
        let fingerprint = try await a.request(client) { session in
            session[.count] = 1
            return session.fingerprint
        }
        try await cluster.store.lose("d/")
        try await cluster.store.lose("v/")
        var told = try await a.sessions.explain(fingerprint)
        #expect(told.stored == .init(kind: .nothing))
        #expect(told.epochCounter == nil)
        #expect(told.copy?.differsFromStore == true)
        try await a.request(client) { $0[.count] = 2 }
        told = try await a.sessions.explain(fingerprint)
        #expect(kinds(told) == ["created", "conflict", "republished", "committed"])
        #expect(told.copy?.differsFromStore == false)
    }

    @Test func `an entry that cannot be read is told, a store that cannot be asked is an error`() async throws {
        let cluster = Cluster()
        let a = try cluster.node("a")
        let client = Client()
        let fingerprint = try await a.request(client) { session in
            session[.count] = 1
            return session.fingerprint
        }
        let key = StoreNames(prefix: "limpet", contextPath: "/", virtualHost: "", servers: { _ in 0 })
            .keys(ofDigest: fingerprint.digest, generation: 0).data
        _ = try await cluster.store.put([1, 2, 3], for: key, timeToLive: .seconds(100), if: .always)
        #expect(try await a.sessions.explain(fingerprint).stored == .init(kind: .unreadable))
        a.store.next(.get, on: "d/").fails(.unavailable)
        let error = await #expect(throws: SessionError.self) { try await a.sessions.explain(fingerprint) }
        #expect(error?.code == .storeUnavailable)
    }

    @Test func `it can be read by people and machines, and holds neither id nor value`() async throws {
        let cluster = Cluster()
        let a = try cluster.node("a")
        let client = Client()
        let id = try await a.request(client) { session in
            session[.user] = "ann"
            return session.id
        }
        let told = try await a.sessions.explain(id)
        let json = try JSONEncoder().encode(told)
        #expect(try JSONDecoder().decode(SessionExplanation.self, from: json) == told)
        let text = "\(told)\n" + String(decoding: json, as: UTF8.self)
        #expect(!text.contains(id.text))
        #expect(!text.contains("ann"))
        let lines = "\(told)".split(separator: "\n").map(String.init)
        #expect(lines[0] == "session \(told.fingerprint), as node a knows it at 2026-01-01T00:00:00.000Z")
        #expect(lines[1] == "store: record")
        #expect(lines[4] == "  attribute user: 5 bytes")
        #expect(lines.last == "2026-01-01T00:00:00.000Z created")
    }

    @Test func `a session that nobody knows is explained as well`() async throws {
        let told = try await Cluster().node("a").sessions.explain(SessionID())
        #expect(told.stored == .init(kind: .nothing))
        #expect(told.copy == nil)
        #expect(told.transitions.isEmpty)
    }

    @Test func `the oldest is forgotten first, and sticky reads leave no trace`() async throws {
        let history = SessionHistory()
        let digests: [[UInt8]] = [[UInt8](repeating: 1, count: 32), [UInt8](repeating: 2, count: 32)]
        func add(_ count: Int, _ digest: [UInt8]) {
            for index in 0..<count {
                history.add(
                    .init(kind: .committed, at: Date(timeIntervalSince1970: Double(index)), node: nil), of: digest)
            }
        }
        add(1000, digests[0])
        add(100, digests[1])
        let first = history.transitions(of: digests[0])
        #expect(first.count == SessionHistory.capacity - 100)
        #expect(first.map(\.at) == first.map(\.at).sorted())
        #expect(first.last?.at == Date(timeIntervalSince1970: 999))
        #expect(history.transitions(of: digests[1]).count == 100)

        let cluster = Cluster()
        let a = try cluster.node("a")
        let client = Client()
        let fingerprint = try await a.request(client) { session in
            session[.count] = 1
            return session.fingerprint
        }
        for _ in 0..<10 { try await a.request(client) { _ in } }
        #expect(kinds(try await a.sessions.explain(fingerprint)) == ["created"])
    }
}
