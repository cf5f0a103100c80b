import Limpet
import LimpetTesting
import Testing

/// A request may have its session for so long, and no longer.
struct LongRequestTests {
    @Test func `a request that has its session for longer than is allowed changes nothing`() async throws {
        let cluster = Cluster()
        let a = try cluster.node("a") { $0.maxRequest = .seconds(20) }
        let client = Client()
        try await a.request(client) { $0[.count] = 1 }
        let cookie = client.cookie
        let deeds: [@Sendable (Session) -> Void] = [
            { $0[.count] = 2 }, { $0[.count] = nil }, { $0.maxInactive = .seconds(1) }, { $0.rotateID() },
            { $0.invalidate() },
        ]
        for deed in deeds {
            let error = await #expect(throws: SessionError.self) {
                try await a.request(client) { session in
                    deed(session)
                    cluster.clock.advance(by: .milliseconds(20_001))
                    a.store.forgetCalls()
                }
            }
            #expect(error?.code == .requestTooLong)
            #expect(error?.retryAfterSeconds == 1)
            #expect(a.store.calls.isEmpty)
        }
        #expect(client.cookie == cookie)
        try await a.request(client) { #expect($0[.count] == 1) }
        #expect(a.events.all == ["created"])
    }

    @Test func `a request that takes as long as is allowed is kept`() async throws {
        let cluster = Cluster()
        let a = try cluster.node("a") { $0.maxRequest = .seconds(20) }
        let client = Client()
        try await a.request(client) { session in
            session[.count] = 1
            cluster.clock.advance(by: .seconds(20))
        }
        try await a.request(client) { session in
            session[.count] = 2
            cluster.clock.advance(by: .seconds(20))
        }
        try await cluster.node("b").request(client) { #expect($0[.count] == 2) }
    }

    @Test func `the time is not the wall clock's`() async throws {
        let cluster = Cluster()
        let a = try cluster.node("a") { $0.maxRequest = .seconds(20) }
        let client = Client()
        try await a.request(client) { session in
            session[.count] = 1
            cluster.clock.stepWallClock(by: .seconds(60))
        }
        try await a.request(client) { #expect($0[.count] == 1) }
    }

    @Test func `a session that a request took too long to create is not created`() async throws {
        let cluster = Cluster()
        let a = try cluster.node("a") { $0.maxRequest = .seconds(20) }
        let client = Client()
        let error = await #expect(throws: SessionError.self) {
            try await a.request(client) { session in
                session[.count] = 1
                cluster.clock.advance(by: .seconds(21))
            }
        }
        #expect(error?.code == .requestTooLong)
        #expect(client.cookie == nil)
        #expect(a.store.calls.isEmpty)
    }

    @Test func `a long request that has only read answers, and saves no access time`() async throws {
        let cluster = Cluster()
        let a = try cluster.node("a") { $0.maxRequest = .seconds(20) }
        let client = Client()
        try await a.request(client) { $0[.count] = 1 }
        cluster.clock.advance(by: .seconds(61))
        try await a.request(client) { session in
            #expect(session[.count] == 1)
            cluster.clock.advance(by: .seconds(21))
        }
        #expect(a.sessions.statistics.accessTimeSaves == 0)
        // The next one does.
        try await a.request(client) { #expect($0[.count] == 1) }
        #expect(a.sessions.statistics.accessTimeSaves == 1)
    }

    @Test func `a session that was ended while a request had it for too long does not come back`() async throws {
        let cluster = Cluster()
        let a = try cluster.node("a") { $0.maxRequest = .seconds(20) }
        let b = try cluster.node("b") { $0.maxRequest = .seconds(20) }
        let client = Client()
        try await a.request(client) { session in
            session[.user] = "ann"
            session.maxInactive = .seconds(30)
        }
        let cookie = client.cookie
        let error = await #expect(throws: SessionError.self) {
            try await a.request(client, cookie: cookie) { session in
                session[.count] = 1
                try await b.request(Client(), cookie: cookie) { $0.invalidate() }
                // The tombstone is gone, and the epoch.
                cluster.clock.advance(by: .seconds(7200))
            }
        }
        #expect(error?.code == .requestTooLong)
        try await a.request(Client(), cookie: cookie) { #expect($0.isNew) }
    }
}
