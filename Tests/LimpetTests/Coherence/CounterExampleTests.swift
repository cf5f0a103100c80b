import Foundation
import Limpet
import LimpetTesting
import Testing

@testable import Limpet

/// Interleavings that once broke a promise, each found by a reader of the code.
struct CounterExampleTests {
    @Test(arguments: [0, 60])
    func `a session that was logged out stays gone when its epoch has died before an old copy`(save: Int) async throws {
        let cluster = Cluster()
        let a = try cluster.node("a", saveInterval: .seconds(save))
        let b = try cluster.node("b", saveInterval: .seconds(save))
        let client = Client()
        try await a.request(client) { $0[.user] = "ann" }
        cluster.clock.advance(by: .seconds(29 * 60))
        try await b.request(client) { #expect($0[.user] == "ann") }  // clean takeover by b
        let cookieOfB = client.cookie
        cluster.clock.advance(by: .seconds(4 * 60))
        try await a.request(client) { #expect($0[.user] == "ann") }  // back to a: v is made anew
        try await a.request(client) { $0.invalidate() }
        #expect(client.cookie == nil)
        cluster.clock.advance(by: .seconds(7 * 60))
        try await b.request(Client(), cookie: cookieOfB) { session in
            #expect(session[.user] == nil)
            #expect(session.isNew)
        }
    }

    @Test func `a session that was logged out stays gone when its idle limit was raised`() async throws {
        let cluster = Cluster()
        let a = try cluster.node("a", saveInterval: .zero) { $0.maxInactive = .seconds(60) }
        let a60 = try cluster.node("c", saveInterval: .seconds(60)) { $0.maxInactive = .seconds(60) }
        let client = Client()
        try await a60.request(client) { $0[.user] = "ann" }
        try await a60.request(client) { $0.maxInactive = .seconds(86400) }
        let old = client.cookie
        cluster.clock.advance(by: .seconds(200))
        try await a.request(client) { #expect($0[.user] == "ann") }
        try await a.request(client) { $0.invalidate() }
        cluster.clock.advance(by: .seconds(400))
        try await a60.request(Client(), cookie: old) { #expect($0[.user] == nil) }
    }

    @Test func `the scavenger does not end what another node has just taken over`() async throws {
        let cluster = Cluster()
        let a = try cluster.node("a")
        let b = try cluster.node("b")
        let client = Client()
        try await a.request(client) { $0[.user] = "ann" }
        cluster.clock.advance(by: .seconds(1801))
        // Between a's look at the record and its tombstone, b (within the tolerance) takes it over and acknowledges a write.
        a.store.next(.put, on: "d/").runsFirst {
            do {
                try await b.request(client) { session in
                    #expect(session[.user] == "ann")
                    session[.count] = 1
                }
            } catch { Issue.record(error) }
        }
        await a.sessions.scavenge()
        try await b.request(client) { #expect($0[.count] == 1) }
        try await cluster.node("c").request(client) { #expect($0[.count] == 1) }
    }

    @Test func `after a loss of memory a request with an older route does not cost the only copy`() async throws {
        let cluster = Cluster()
        let a = try cluster.node("a")
        let b = try cluster.node("b")
        let client = Client()
        try await b.request(client) { $0[.user] = "ann" }
        let cookieOfB = client.cookie
        try await a.request(client) { $0[.count] = 7 }
        #expect(client.route == "a")
        await b.poll()
        try await cluster.store.lose("")
        try await cluster.whilePolling([a, b]) {
            try await a.request(Client(), cookie: cookieOfB) { #expect($0[.count] == 7) }
        }
        try await a.request(client) { #expect($0[.count] == 7) }
    }

    @Test func `the answer of a merge carries this node's route, whatever the client was told in between`() async throws
    {
        let cluster = Cluster()
        let a = try cluster.node("a")
        let b = try cluster.node("b")
        let client = Client()
        try await a.request(client) { $0[.count] = 1 }
        let cookie = client.cookie
        try await a.request(client) { session in
            session[.count] = 2
            try await b.request(client, cookie: cookie) { $0[.other] = 5 }
        }
        #expect(client.route == "a")
        try await (client.route == "a" ? a : b).request(client) { #expect($0[.count] == 2) }
    }

    @Test func `of two log-ins at once on two nodes the later does not take the good cookie`() async throws {
        let cluster = Cluster()
        let a = try cluster.node("a")
        let b = try cluster.node("b")
        let client = Client()
        try await a.request(client) { $0[.count] = 1 }
        let cookie = client.cookie
        var failed = false
        do {
            try await a.request(client) { session in
                session[.user] = "ann"
                session.rotateID()
                try await b.request(client, cookie: cookie) { session in
                    session[.other] = 9
                    session.rotateID()
                }
            }
        } catch { failed = true }
        #expect(client.cookie != nil, "acknowledged (failed: \(failed)) and the good cookie taken")
    }

    @Test func `a log-out that meets a change of the id elsewhere is not acknowledged`() async throws {
        let cluster = Cluster()
        let a = try cluster.node("a")
        let b = try cluster.node("b")
        let client = Client()
        try await a.request(client) { $0[.count] = 1 }
        let cookie = client.cookie
        let other = Client()
        var failed = false
        do {
            try await a.request(client) { session in
                session.invalidate()
                try await b.request(other, cookie: cookie) { session in session.rotateID() }
            }
        } catch { failed = true }
        if !failed {
            try await b.request(other) { #expect($0.isNew, "log-out acknowledged, session lives") }
        }
    }

    @Test func `a session that has expired here and lives elsewhere is found there`() async throws {
        let cluster = Cluster()
        let a = try cluster.node("a") { $0.maxInactive = .seconds(30) }
        let b = try cluster.node("b") { $0.maxInactive = .seconds(30) }
        let client = Client()
        try await a.request(client) { $0[.user] = "ann" }
        struct Oops: Error {}
        cluster.clock.advance(by: .seconds(20))
        await #expect(throws: Oops.self) { try await b.request(client) { _ in throw Oops() } }
        #expect(client.route == "a")
        cluster.clock.advance(by: .seconds(15))
        try await a.request(client) { #expect($0[.user] == "ann") }
    }

    @Test func `the id that a new session tells after its response is the stored one`() async throws {
        let cluster = Cluster()
        let a = try cluster.node("a")
        let client = Client()
        let session = try await a.request(client) { session -> Session in
            session[.count] = 1
            return session
        }
        let stored = try await a.request(client) { $0.id }
        #expect(session.id == stored)
    }

    @Test func `one unreadable record does not keep the others from ending`() async throws {
        let cluster = Cluster()
        let a = try cluster.node("a")
        for _ in 0..<20 { try await a.request(Client()) { $0[.count] = 1 } }
        let keys = a.store.calls.filter { $0.kind == .put }.map { $0.keys[0] }.filter { $0.name.contains(":d/") }
        cluster.clock.advance(by: .seconds(1801))
        // One session's record is unreadable.
        _ = try await cluster.store.put([1, 2, 3], for: keys[7], timeToLive: .seconds(100_000), if: .always)
        for _ in 0..<50 {
            await a.sessions.scavenge()
            cluster.clock.advance(by: .seconds(11))
        }
        #expect(a.sessions.statistics.sessionsInMemory == 1)
    }

    @Test func `a merge starts the epoch's time to live anew when that is due`() async throws {
        let cluster = Cluster()
        let a = try cluster.node("a")
        let b = try cluster.node("b")
        let client = Client()
        try await a.request(client) { $0[.user] = "ann" }
        cluster.clock.advance(by: .seconds(29 * 60))
        let cookie = client.cookie
        try await a.request(client) { session in
            session[.count] = 1
            try await b.request(Client(), cookie: cookie) { $0[.other] = 1 }
        }
        let calls = cluster.store.calls.filter { $0.kind == .touch }.count
        #expect(calls > 0)
    }

    @Test func `a value that cannot be encoded is in no description`() async throws {
        struct Secret: Codable, Sendable {
            var password = "hunter2"
            func encode(to encoder: any Encoder) throws {}
            init() {}
            init(from decoder: any Decoder) throws {}
        }
        let cluster = Cluster()
        let a = try cluster.node("a")
        do {
            try await a.request(Client()) { $0[SessionKey<Secret>("s")] = Secret() }
        } catch let error as SessionError {
            #expect(!error.description.contains("hunter2"), "\(error)")
        }
    }

    /// A rotation whose tombstone arrives late, when the store could not be read again.
    @Test func `the epoch outlives a session that moves again and again`() async throws {
        let cluster = Cluster()
        let nodes = [try cluster.node("a"), try cluster.node("b")]
        let client = Client()
        try await nodes[0].request(client) { $0[.user] = "ann" }
        // Ping-pong, half a minute apart, for 40 minutes.
        for round in 1...80 {
            cluster.clock.advance(by: .seconds(30))
            try await nodes[round % 2].request(client) { $0[.count] = round }
        }
        let touches = cluster.store.calls.filter { $0.kind == .touch }.count
        let puts = cluster.store.calls.filter { $0.kind == .put && $0.keys[0].name.contains(":v/") }.count
        #expect(touches > 0, "v was made \(puts) times and never touched")
        #expect(puts == 1)
    }

    @Test func `a session that was logged out stays gone when its next home had lowered the idle limit`() async throws {
        let cluster = Cluster()
        let a = try cluster.node("a")
        let b = try cluster.node("b")
        let client = Client()
        try await a.request(client) { $0[.user] = "ann" }
        let old = client.cookie
        try await b.request(client) { $0.maxInactive = .seconds(60) }
        cluster.clock.advance(by: .seconds(59))
        try await b.request(client) { $0[.count] = 1 }
        cluster.clock.advance(by: .seconds(59))
        try await b.request(client) { _ in }
        try await b.request(client) { $0.invalidate() }
        cluster.clock.advance(by: .seconds(400))
        try await a.request(Client(), cookie: old) { #expect($0[.user] == nil) }
    }

    @Test func `a session that was logged out stays gone when its epoch had been evicted`() async throws {
        let cluster = Cluster()
        let a = try cluster.node("a", saveInterval: .zero)
        let b = try cluster.node("b", saveInterval: .zero)
        let client = Client()
        try await a.request(client) { $0[.user] = "ann" }
        let old = client.cookie
        try await cluster.store.lose("v/")
        try await b.request(client) { $0[.count] = 1 }
        try await b.request(client) { $0.invalidate() }
        cluster.clock.advance(by: .seconds(330))
        try await a.request(Client(), cookie: old) { #expect($0[.user] == nil) }
    }

    @Test func `a request that is about to end its session finds it where another node has just taken it`() async throws
    {
        let cluster = Cluster()
        let a = try cluster.node("a") { $0.maxInactive = .seconds(30) }
        let b = try cluster.node("b") { $0.maxInactive = .seconds(30) }
        let client = Client()
        try await a.request(client) { $0[.user] = "ann" }
        let cookie = client.cookie
        cluster.clock.advance(by: .seconds(31))
        a.store.next(.get, on: "d/", skipping: 1).runsFirst {
            do { try await b.request(Client(), cookie: cookie) { $0[.count] = 1 } } catch { Issue.record(error) }
        }
        try await a.request(client) { session in
            #expect(session[.user] == "ann")
            #expect(session[.count] == 1)
        }
        #expect(a.events.all == ["created"])
    }

    @Test func `the scavenger looks again at what it is about to end`() async throws {
        let cluster = Cluster()
        let a = try cluster.node("a")
        let b = try cluster.node("b")
        let client = Client()
        try await a.request(client) { $0[.user] = "ann" }
        cluster.clock.advance(by: .seconds(1801))
        a.store.next(.get, on: "d/", skipping: 1).runsFirst {
            do { try await b.request(client) { $0[.count] = 1 } } catch { Issue.record(error) }
        }
        await a.sessions.scavenge()
        #expect(a.events.all == ["created"])
        try await b.request(client) { #expect($0[.count] == 1) }
        try await cluster.node("c").request(client) { #expect($0[.count] == 1) }
    }
}
