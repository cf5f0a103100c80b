import Foundation
import Limpet
import LimpetTesting
import Testing

/// The path without the store, and what a change costs.
struct StickyTests {
    @Test func `a sticky read makes no store call`() async throws {
        let node = try Cluster().node("a")
        let client = Client()
        try await node.request(client) { $0[.count] = 7 }
        node.store.forgetCalls()
        for _ in 0..<100 {
            try await node.request(client) { session in
                #expect(session[.count] == 7)
                #expect(session.source == .local)
                #expect(session.home == "a")
            }
        }
        #expect(node.store.calls.isEmpty)
        #expect(node.sessions.statistics.localHits == 100)
    }

    @Test func `a request without a cookie makes no store call and gets no cookie until it writes`() async throws {
        let node = try Cluster().node("a")
        let client = Client()
        try await node.request(client) { session in
            #expect(session.isNew)
            #expect(session[.count] == nil)
            session[.count] = nil
            session.maxInactive = .seconds(5)
        }
        #expect(node.store.calls.isEmpty)
        #expect(client.setCookies.isEmpty)
        #expect(node.sessions.statistics.sessionsInMemory == 0)
        #expect(node.events.all.isEmpty)
    }

    @Test func `the first value stores the session, epoch before record, and sets the cookie`() async throws {
        let node = try Cluster().node("a")
        let client = Client()
        let id = try await node.request(client) { session in
            session[.count] = 1
            return session.id
        }
        #expect(node.store.shortCalls == ["put v absent", "put d absent"])
        #expect(client.route == "a")
        #expect(client.setCookies.count == 1)
        #expect(client.setCookies[0].hasSuffix("; Path=/; HttpOnly; SameSite=Lax"))
        #expect(node.events.all == ["created"])
        // The id that the handler saw is the one that the client has.
        try await node.request(client) { #expect($0.id == id) }
    }

    @Test func `a dirty commit is one store call where the store tells the token`() async throws {
        let node = try Cluster(tellsTokens: true).node("a")
        let client = Client()
        try await node.request(client) { $0[.count] = 1 }
        node.store.forgetCalls()
        for number in 2...5 { try await node.request(client) { $0[.count] = number } }
        #expect(node.store.shortCalls == Array(repeating: "put d unchanged", count: 4))
        #expect(client.setCookies.count == 1)
    }

    @Test func `a commit that overtakes the token's refresh reads first`() async throws {
        let node = try Cluster().node("a")
        let client = Client()
        try await node.request(client) { $0[.count] = 1 }
        node.store.forgetCalls()
        try await node.request(client) { $0[.count] = 2 }
        #expect(node.store.shortCalls == ["get d", "put d unchanged"])
    }

    @Test func `a running manager reads tokens behind the answers, many sessions in one call`() async throws {
        let cluster = Cluster()
        let node = try cluster.node("a")
        let clients = (0..<20).map { _ in Client() }
        let hold = node.store.next(.get, on: "d/").isHeld()
        let running = Task { try await node.sessions.run() }
        // Watch, membership, roster, burials and the look for expired sessions sleep: it is running. Nobody has put a generation back.
        await cluster.clock.waitForSleepers(5)
        cluster.clock.advance(by: .milliseconds(500))
        await cluster.clock.waitForSleepers(5)
        // The first refresh is held at the store until all sessions wait for the second.
        try await node.request(clients[0]) { $0[.count] = 1 }
        await hold.waitUntilHeld()
        for client in clients.dropFirst() { try await node.request(client) { $0[.count] = 1 } }
        let second = node.store.next(.get, on: "d/").isHeldAfterEffect()
        hold.release()
        await second.waitUntilHeld()
        second.release()
        #expect(node.store.calls.filter { $0.description.hasPrefix("get d/") }.map(\.keys.count) == [1, 19])
        // Stops the refresh, so that its last adoption is done.
        running.cancel()
        try await running.value
        node.store.forgetCalls()
        for client in clients { try await node.request(client) { $0[.count] = 2 } }
        #expect(node.store.shortCalls == Array(repeating: "put d unchanged", count: 20))
    }

    @Test func `equal bytes are not dirty`() async throws {
        let node = try Cluster().node("a")
        let client = Client()
        try await node.request(client) { session in
            session[.count] = 5
            session[.user] = "ann"
        }
        node.store.forgetCalls()
        try await node.request(client) { session in
            session[.count] = 6
            session[.count] = 5
            session[.user] = "ann"
            session[.other] = 1
            session[.other] = nil
        }
        #expect(node.store.calls.isEmpty)
    }

    @Test func `a handler that throws drops its changes`() async throws {
        struct Failure: Error {}
        let node = try Cluster().node("a")
        let client = Client()
        try await node.request(client) { $0[.count] = 1 }
        node.store.forgetCalls()
        await #expect(throws: Failure.self) {
            try await node.request(client) { session in
                session[.count] = 2
                session.invalidate()
                throw Failure()
            }
        }
        #expect(node.store.calls.isEmpty)
        try await node.request(client) { #expect($0[.count] == 1) }
        #expect(node.sessions.statistics.lockWaits == 0)
    }

    @Test func `access times are written on the save interval, without the record`() async throws {
        let cluster = Cluster()
        let node = try cluster.node("a")
        let client = Client()
        try await node.request(client) { $0[.count] = 1 }
        node.store.forgetCalls()
        cluster.clock.advance(by: .seconds(59))
        await node.poll()
        node.store.forgetCalls()
        try await node.request(client) { _ in }
        #expect(node.store.calls.isEmpty)
        cluster.clock.advance(by: .seconds(1))
        await node.poll()
        node.store.forgetCalls()
        try await node.request(client) { #expect($0.source == .verified) }
        #expect(node.store.shortCalls == ["get v", "put a", "touch v", "touch d"])
        #expect(node.sessions.statistics.accessTimeSaves == 1)
        // Idle limit, save interval and slack.
        #expect(node.store.calls[2].timeToLive == .seconds(1800 + 60 + 10))
        node.store.forgetCalls()
        try await node.request(client) { #expect($0.source == .local) }
        #expect(node.store.calls.isEmpty)
    }

    @Test func `a save interval of 0 compares the epoch at every request`() async throws {
        let node = try Cluster().node("a", saveInterval: .zero)
        let client = Client()
        try await node.request(client) { $0[.count] = 1 }
        node.store.forgetCalls()
        for _ in 0..<3 { try await node.request(client) { #expect($0.source == .verified) } }
        #expect(node.store.count(.get, on: "v/") == 3)
        #expect(node.store.count(.get, on: "d/") == 0)
    }

    @Test func `last accessed is when the request before came`() async throws {
        let cluster = Cluster()
        let node = try cluster.node("a")
        let client = Client()
        let created = try await node.request(client) { session in
            session[.count] = 1
            return session.createdAt
        }
        cluster.clock.advance(by: .seconds(5))
        try await node.request(client) { #expect($0.lastAccessedAt == created) }
        cluster.clock.advance(by: .seconds(7))
        try await node.request(client) { session in
            #expect(session.lastAccessedAt.timeIntervalSince(created) == 5)
            #expect(session.createdAt == created)
        }
    }

    @Test func `ten parallel requests of one session count to exactly ten`() async throws {
        let node = try Cluster().node("a")
        let client = Client()
        try await node.request(client) { $0[.count] = 0 }
        try await withThrowingTaskGroup(of: Void.self) { group in
            for _ in 0..<10 {
                group.addTask {
                    try await node.request(client) { session in
                        let count = session[.count, default: 0]
                        await Task.yield()
                        session[.count] = count + 1
                    }
                }
            }
            try await group.waitForAll()
        }
        try await node.request(client) { #expect($0[.count] == 10) }
    }
}
