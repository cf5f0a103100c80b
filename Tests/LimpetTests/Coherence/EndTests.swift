import Foundation
import Limpet
import LimpetTesting
import Testing

@testable import Limpet

/// A session ends once, everywhere, and for good.
struct EndTests {
    @Test func `a log-out on one node is final on the other, for old cookies as well`() async throws {
        let cluster = Cluster()
        let a = try cluster.node("a", saveInterval: .zero)
        let b = try cluster.node("b", saveInterval: .zero)
        let client = Client()
        try await a.request(client) { $0[.user] = "ann" }
        let cookieOfA = client.cookie
        try await b.request(client) { $0[.count] = 1 }
        let cookieOfB = client.cookie
        try await a.request(client) { $0.invalidate() }
        #expect(client.cookie == nil)
        #expect(a.events.all == ["created", "invalidated"])
        #expect(b.events.all.isEmpty)
        for node in [a, b] {
            for cookie in [cookieOfA, cookieOfB] {
                try await node.request(Client(), cookie: cookie) { session in
                    #expect(session.isNew)
                    #expect(session[.user] == nil)
                }
            }
        }
    }

    @Test func `the cookie is taken with the path that it was given with`() async throws {
        let a = try Cluster().node("a")
        let client = Client()
        try await a.request(client) { $0[.count] = 1 }
        try await a.request(client) { $0.invalidate() }
        #expect(client.setCookies.last == "session=; Path=/; HttpOnly; SameSite=Lax; Max-Age=0")
    }

    @Test func `a session of two log-outs at the same time ends once`() async throws {
        let cluster = Cluster()
        let a = try cluster.node("a")
        let b = try cluster.node("b")
        let client = Client()
        try await a.request(client) { $0[.count] = 1 }
        let cookie = client.cookie
        a.store.next(.put, on: "d/").runsFirst {
            do {
                try await b.request(Client(), cookie: cookie) { $0.invalidate() }
            } catch {
                Issue.record(error)
            }
        }
        try await a.request(client) { $0.invalidate() }
        #expect(a.events.all == ["created"])
        #expect(b.events.all == ["invalidated"])
    }

    @Test(arguments: [true, false])
    func `a log-out that is not answered is found out by its nonce`(happened: Bool) async throws {
        let cluster = Cluster()
        let a = try cluster.node("a")
        let client = Client()
        try await a.request(client) { $0[.count] = 1 }
        let cookie = client.cookie
        if happened {
            a.store.next(.put, on: "d/").failsAfterEffect()
        } else {
            a.store.next(.put, on: "d/").fails(.timeout, mayHaveTakenEffect: true)
        }
        try await a.request(client) { $0.invalidate() }
        #expect(a.events.all == ["created", "invalidated"])
        try await a.request(Client(), cookie: cookie) { #expect($0.isNew) }
    }

    @Test
    func `a log-out that the store cannot take is 503, and this node serves the session only as the store has it`()
        async throws
    {
        let cluster = Cluster()
        let a = try cluster.node("a")
        let client = Client()
        try await a.request(client) { $0[.count] = 1 }
        a.store.every().fails(.unavailable)
        await #expect(throws: SessionError.self) { try await a.request(client) { $0.invalidate() } }
        await #expect(throws: SessionError.self) { try await a.request(client) { _ in } }
        a.store.forgetScripts()
        try await a.request(client) { #expect($0.source == .store) }
    }

    @Test func `an id that no session has is never adopted`() async throws {
        let cluster = Cluster()
        let a = try cluster.node("a")
        let client = Client()
        let planted = "session=\(SessionID().text).a"
        try await a.request(client, cookie: planted) { session in
            #expect(session.isNew)
            session[.count] = 1
        }
        let cookie = try #require(client.cookie)
        #expect(cookie != planted)
        try await a.request(Client(), cookie: planted) { #expect($0.isNew) }
    }

    @Test func `a session that nobody asks for ends, and tells it once`() async throws {
        let cluster = Cluster()
        let a = try cluster.node("a")
        let client = Client()
        try await a.request(client) { $0[.count] = 1 }
        cluster.clock.advance(by: .seconds(1799))
        await a.sessions.scavenge()
        #expect(a.sessions.statistics.sessionsInMemory == 1)
        cluster.clock.advance(by: .seconds(1))
        await a.sessions.scavenge()
        await a.sessions.scavenge()
        #expect(a.sessions.statistics.sessionsInMemory == 0)
        #expect(a.events.all == ["created", "expired"])
        try await a.request(client) { #expect($0.isNew) }
    }

    @Test func `an expired session is not served, whether it was scavenged or not`() async throws {
        let cluster = Cluster()
        let a = try cluster.node("a")
        let b = try cluster.node("b")
        let client = Client()
        try await a.request(client) { session in
            session[.count] = 1
            session.maxInactive = .seconds(30)
        }
        let cookie = client.cookie
        cluster.clock.advance(by: .seconds(30))
        try await a.request(Client(), cookie: cookie) { #expect($0.isNew) }
        try await b.request(Client(), cookie: cookie) { #expect($0.isNew) }
        #expect(a.events.all == ["created", "expired"])
    }

    @Test func `a session that moved is not expired by the home that it left`() async throws {
        let cluster = Cluster()
        let a = try cluster.node("a")
        let b = try cluster.node("b")
        let client = Client()
        try await a.request(client) { session in
            session[.count] = 1
            session.maxInactive = .seconds(30)
        }
        cluster.clock.advance(by: .seconds(20))
        try await b.request(client) { _ in }
        cluster.clock.advance(by: .seconds(20))
        await a.sessions.scavenge()
        #expect(a.events.all == ["created"])
        try await b.request(client) { #expect($0[.count] == 1) }
    }

    @Test func `a session that is in use while the scavenger comes stays`() async throws {
        let cluster = Cluster()
        let a = try cluster.node("a")
        let client = Client()
        try await a.request(client) { session in
            session[.count] = 1
            session.maxInactive = .seconds(30)
        }
        try await a.request(client) { session in
            cluster.clock.advance(by: .seconds(31))
            await a.sessions.scavenge()
            #expect(session[.count] == 1)
        }
        #expect(a.sessions.statistics.sessionsInMemory == 1)
        cluster.clock.advance(by: .seconds(10))
        await a.sessions.scavenge()
        #expect(a.sessions.statistics.sessionsInMemory == 0)
    }
}
