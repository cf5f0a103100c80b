import LimpetTesting
import Testing

@testable import Limpet

/// R24: the session changes on another node, or the store loses something, while its id is being changed.
struct RotateConflictTests {
    /// The first of a node's puts of a record is the new id's, the second the tombstone of the old one.
    private static let tombstone = 1

    @Test(arguments: ["b", "c"])
    func `of two changes that come in between, one after the other, the newer one is carried over`(second: String)
        async throws
    {
        let cluster = Cluster(tellsTokens: true)
        let a = try cluster.node("a")
        let nodes = ["b": try cluster.node("b"), "c": try cluster.node("c")]
        let (first, second) = (try #require(nodes["b"]), try #require(nodes[second]))
        let client = Client()
        try await a.request(client) { $0[.count] = 1 }
        let cookie = client.cookie
        let other = Client()
        a.store.next(.put, on: "d/", skipping: Self.tombstone).runsFirst {
            do {
                try await first.request(other, cookie: cookie) { session in
                    session[.other] = 8
                    session[.count] = nil
                }
            } catch {
                Issue.record(error)
            }
        }
        // What came first is written over the new id's record, and the tombstone is tried again: by then there is a newer change, at
        // the same home under the same epoch, or at a third one's.
        a.store.next(.put, on: "d/", skipping: Self.tombstone + 2).runsFirst {
            do {
                try await second.request(other) { session in
                    #expect(session[.other] == 8)
                    session[.other] = nil
                    session[.count] = 5
                }
            } catch {
                Issue.record(error)
            }
        }
        try await cluster.whilePolling([]) {
            try await a.request(client) { session in
                session[.user] = "ann"
                session.rotateID()
            }
        }
        #expect(a.sessions.statistics.conflicts == 2)
        let third = try cluster.node("d")
        for node in [a, third] {
            try await node.request(Client(), cookie: client.cookie) { session in
                #expect(session[.user] == "ann")
                #expect(session[.other] == nil)
                #expect(session[.count] == 5)
            }
            try await node.request(Client(), cookie: cookie) { session in
                #expect(session.isReadOnly)
                #expect(session[.user] == nil)
                #expect(session[.other] == nil)
                #expect(session[.count] == 5)
            }
        }
    }

    @Test(arguments: [true, false], [true, false])
    func `a change is carried over to a new id whose record was evicted meanwhile`(
        tellsTokens: Bool, isEpochEvicted: Bool
    ) async throws {
        let cluster = Cluster(tellsTokens: tellsTokens)
        let a = try cluster.node("a")
        let b = try cluster.node("b")
        let client = Client()
        try await a.request(client) { $0[.count] = 1 }
        let cookie = client.cookie
        a.store.forgetCalls()
        a.store.next(.put, on: "d/", skipping: Self.tombstone).runsFirst {
            do {
                try await b.request(Client(), cookie: cookie) { session in
                    session[.other] = 8
                    session[.count] = nil
                }
                // The new id's: its epoch and its record were put before.
                for put in a.store.calls.filter({ $0.kind == .put }).prefix(2) {
                    let isEvicted = isEpochEvicted || put.description.hasPrefix("put d/")
                    if isEvicted { try await cluster.store.lose(try #require(put.keys.first).name) }
                }
            } catch {
                Issue.record(error)
            }
        }
        try await cluster.whilePolling([]) {
            try await a.request(client) { session in
                session[.user] = "ann"
                session.rotateID()
            }
        }
        #expect(a.sessions.statistics.republished == 1)
        for node in [b, a] {
            try await node.request(client) { session in
                #expect(session[.user] == "ann")
                #expect(session[.other] == 8)
                #expect(session[.count] == nil)
            }
        }
        #expect(a.events.all == ["created"])
    }
}
