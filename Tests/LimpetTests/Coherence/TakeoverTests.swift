import Foundation
import HTTPTypes
import Limpet
import LimpetTesting
import Testing

/// A session leaves a node that died, and its new home has all of it.
struct TakeoverTests {
    @Test func `another node takes the session over, with six operations, and the cookie names it`() async throws {
        let cluster = Cluster()
        let a = try cluster.node("a")
        let b = try cluster.node("b")
        let client = Client()
        let before = try await a.request(client) { session in
            session[.count] = 3
            return session.id
        }
        // There and back: the counters that tell each of the other's takeovers are there.
        for node in [b, a] { try await node.request(client) { _ in } }
        await a.poll()
        await b.poll()
        b.store.forgetCalls()
        try await b.request(client) { session in
            #expect(session[.count] == 3)
            #expect(session.source == .store)
            #expect(session.home == "b")
            #expect(session.id == before)
        }
        #expect(b.store.shortCalls == ["get d v a g", "increment v", "increment c c", "put d unchanged"])
        #expect(client.route == "b")
        #expect(b.sessions.statistics.takeovers == 2)
        b.store.forgetCalls()
        try await b.request(client) { #expect($0.source == .local) }
        #expect(b.store.calls.isEmpty)
    }

    @Test func `a takeover changes the epoch, so that the old home finds its copy stale`() async throws {
        let cluster = Cluster()
        let a = try cluster.node("a", saveInterval: .zero)
        let b = try cluster.node("b", saveInterval: .zero)
        let client = Client()
        try await a.request(client) { $0[.count] = 1 }
        let oldCookie = client.cookie
        try await b.request(client) { $0[.count] = 2 }
        try await a.request(client, cookie: oldCookie) { session in
            #expect(session[.count] == 2)
            #expect(session.source == .store)
        }
        #expect(a.sessions.statistics.takeovers == 1)
    }

    @Test func `a client that strays reads what it has written, on every node`() async throws {
        let cluster = Cluster()
        let nodes = [try cluster.node("a"), try cluster.node("b"), try cluster.node("c")]
        let client = Client()
        for number in 1...30 {
            let node = nodes[(number * 7) % 3]
            try await node.request(client) { session in
                #expect(session[.count, default: 0] == number - 1)
                session[.count] = number
            }
        }
    }

    @Test func `a node that was restarted does not trust what its name once had`() async throws {
        let cluster = Cluster()
        let client = Client()
        try await cluster.node("a").request(client) { $0[.count] = 4 }
        let restarted = try cluster.node("a")
        try await restarted.request(client) { session in
            #expect(session[.count] == 4)
            #expect(session.source == .store)
        }
        #expect(restarted.sessions.statistics.takeovers == 1)
        // The cookie named this node already.
        #expect(client.setCookies.count == 1)
    }

    @Test func `a takeover that meets another one begins anew and loses nothing`() async throws {
        let cluster = Cluster()
        let a = try cluster.node("a")
        let b = try cluster.node("b")
        let c = try cluster.node("c")
        let client = Client()
        try await a.request(client) { $0[.count] = 1 }
        let cookie = client.cookie
        // Between b's raise of the epoch and its swap, c takes the session over and changes it.
        b.store.next(.put, on: "d/").runsFirst {
            do {
                try await c.request(Client(), cookie: cookie) { $0[.count] = 2 }
            } catch {
                Issue.record(error)
            }
        }
        try await b.request(client) { #expect($0[.count] == 2) }
        #expect(b.sessions.statistics.conflicts == 1)
    }

    @Test func `an unavailable store at the takeover is an error and not a new session`() async throws {
        let cluster = Cluster()
        let a = try cluster.node("a")
        let b = try cluster.node("b")
        let client = Client()
        try await a.request(client) { $0[.count] = 1 }
        b.store.every().fails(.unavailable)
        let error = await #expect(throws: SessionError.self) {
            try await b.request(client) { _ in Issue.record("the handler must not run") }
        }
        #expect(error?.code == .storeUnavailable)
        #expect(error?.status == .serviceUnavailable)
        #expect(error?.retryAfterSeconds == 1)
        b.store.forgetScripts()
        try await b.request(client) { #expect($0[.count] == 1) }
    }

    @Test func `a takeover whose swap is lost in between is done again`() async throws {
        for afterEffect in [true, false] {
            let cluster = Cluster()
            let a = try cluster.node("a")
            let b = try cluster.node("b")
            let client = Client()
            try await a.request(client) { $0[.count] = 1 }
            if afterEffect {
                b.store.next(.put, on: "d/").failsAfterEffect()
            } else {
                b.store.next(.put, on: "d/").fails(.timeout, mayHaveTakenEffect: true)
            }
            try await b.request(client) { $0[.count, default: 0] += 1 }
            try await b.request(client) { #expect($0[.count] == 2) }
        }
    }

    @Test func `an epoch that was evicted is made anew, beyond the record's`() async throws {
        let cluster = Cluster()
        let a = try cluster.node("a", saveInterval: .zero)
        let client = Client()
        try await a.request(client) { $0[.count] = 1 }
        let before = try await a.request(client) { $0.epoch }
        try await cluster.store.lose("v/")
        let after = try await a.request(client) { session in
            #expect(session[.count] == 1)
            return session.epoch
        }
        #expect(try #require(after) > #require(before))
        try await a.request(client) { #expect($0.source == .verified) }
    }

    @Test func `a node whose clock is behind still makes a newer epoch`() async throws {
        let cluster = Cluster()
        let a = try cluster.node("a", saveInterval: .zero)
        let client = Client()
        try await a.request(client) { $0[.count] = 1 }
        let before = try await a.request(client) { $0.epoch }
        try await cluster.store.lose("v/")
        cluster.clock.stepWallClock(by: .seconds(-7))
        let after = try await a.request(client) { $0.epoch }
        #expect(try #require(after) > #require(before))
    }

    @Test func `the newest access time wins, from the record or from beside it`() async throws {
        let cluster = Cluster()
        let a = try cluster.node("a", saveInterval: .seconds(10))
        let b = try cluster.node("b", saveInterval: .seconds(10))
        let client = Client()
        try await a.request(client) { session in
            session[.count] = 1
            session.maxInactive = .seconds(100)
        }
        cluster.clock.advance(by: .seconds(90))
        try await a.request(client) { _ in }
        cluster.clock.advance(by: .seconds(90))
        try await b.request(client) { session in
            #expect(session[.count] == 1)
            #expect(session.lastAccessedAt.timeIntervalSince(session.createdAt) == 90)
        }
    }
}
