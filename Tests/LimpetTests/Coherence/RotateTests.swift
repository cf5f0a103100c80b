import LimpetTesting
import Testing

@testable import Limpet

/// A session gets another id, and the old one is read-only for a moment.
struct RotateTests {
    /// A session with a count, whose id was changed by a log-in; with the cookie before.
    private func logIn(
        _ node: Node, _ client: Client, oldIDReadable: Duration = .seconds(10)
    ) async throws -> String {
        try await node.request(client) { $0[.count] = 1 }
        let before = try #require(client.cookie)
        try await node.request(client) { session in
            session[.user] = "ann"
            session[.count] = 2
            session.rotateID(oldIDReadable: oldIDReadable)
        }
        return before
    }

    @Test func `a change of the id keeps the attributes, and the old id never leads to the new one`() async throws {
        let cluster = Cluster()
        let a = try cluster.node("a", saveInterval: .zero)
        let b = try cluster.node("b", saveInterval: .zero)
        let client = Client()
        let before = try await logIn(a, client)
        #expect(client.cookie != before)
        for node in [a, b] {
            try await node.request(client) { session in
                #expect(session[.count] == 2)
                #expect(session[.user] == "ann")
                #expect(!session.isReadOnly)
            }
            try await node.request(Client(), cookie: before) { session in
                #expect(session[.count] == 1)
                #expect(session[.user] == nil)
            }
        }
        cluster.clock.advance(by: .seconds(20))
        for node in [a, b] {
            try await node.request(Client(), cookie: before) { #expect($0.isNew) }
        }
        #expect(a.events.all == ["created"])
        #expect(a.sessions.statistics.sessionsInMemory == 1)
    }

    @Test func `the old id reads the session as it was, with one read and without a cookie`() async throws {
        let cluster = Cluster()
        let a = try cluster.node("a")
        let b = try cluster.node("b")
        let client = Client()
        let before = try await logIn(a, client)
        for node in [a, b] {
            try await node.request(Client(), cookie: "session=\(SessionID().text).z") { _ in }
            node.store.forgetCalls()
            let other = Client()
            for _ in 0..<2 {
                try await node.request(other, cookie: before) { session in
                    #expect(session[.count] == 1)
                    #expect(session[.user] == nil)
                    #expect(session.isReadOnly)
                    #expect(!session.isNew)
                    #expect(session.source == .store)
                    #expect(session.home == "a")
                }
            }
            #expect(other.setCookies.isEmpty)
            #expect(node.store.shortCalls == ["get d v a g", "get d v a g"])
            #expect(node.sessions.statistics.oldIDReads == 2)
        }
        #expect(b.sessions.statistics.sessionsInMemory == 0)
    }

    @Test(arguments: ["a", "b"])
    func `what the old id's request did is refused, and touches neither session nor cookie`(at name: String)
        async throws
    {
        let cluster = Cluster()
        let nodes = ["a": try cluster.node("a"), "b": try cluster.node("b")]
        let (a, node) = (try #require(nodes["a"]), try #require(nodes[name]))
        let client = Client()
        let before = try await logIn(a, client)
        let deeds: [@Sendable (Session) -> Void] = [
            { $0[.count] = 99 }, { $0[.count] = nil }, { $0.maxInactive = .seconds(1) }, { $0.rotateID() },
            { $0.invalidate() },
        ]
        for deed in deeds {
            let other = Client()
            let error = await #expect(throws: SessionError.self) {
                try await node.request(other, cookie: before) { deed($0) }
            }
            #expect(error?.code == .conflict)
            #expect(error?.retryAfterSeconds == 1)
            #expect(other.setCookies.isEmpty)
        }
        // A write that changes nothing is none.
        try await node.request(Client(), cookie: before) { $0[.count] = 1 }
        try await node.request(client) { session in
            #expect(session[.count] == 2)
            #expect(session[.user] == "ann")
        }
        #expect(a.events.all == ["created"])
    }

    @Test func `a page's five parallel requests all have their session while the log-in changes its id`() async throws {
        let cluster = Cluster()
        let a = try cluster.node("a")
        let b = try cluster.node("b")
        let client = Client()
        try await a.request(client) { $0[.count] = 1 }
        let before = try #require(client.cookie)
        // The log-in is in the session; four others wait for it on its node, and one comes to another node after it.
        let others = (0..<5).map { _ in Client() }
        try await withThrowingTaskGroup(of: Void.self) { group in
            let hold = a.store.next(.put, on: "d/", skipping: 1).isHeldAfterEffect()
            group.addTask {
                try await a.request(client) { session in
                    session[.user] = "ann"
                    session.rotateID()
                }
            }
            await hold.waitUntilHeld()
            for other in others {
                let node = other === others[4] ? b : a
                group.addTask { try await node.request(other, cookie: before) { #expect($0[.count] == 1) } }
            }
            while a.sessions.statistics.lockWaits < 4 { await Task.yield() }
            hold.release()
            try await group.waitForAll()
        }
        #expect(others.allSatisfy { $0.setCookies.isEmpty })
        #expect(a.sessions.statistics.created + b.sessions.statistics.created == 1)
        #expect(client.cookie != before)
        try await a.request(client) { session in
            #expect(session[.user] == "ann")
            #expect(session[.count] == 1)
        }
    }

    @Test func `the time is counted by the node that changed the id, and others allow for their clocks`() async throws {
        let cluster = Cluster()
        let a = try cluster.node("a")
        let b = try cluster.node("b")
        let before = try await logIn(a, Client())
        func isRead(_ node: Node) async throws -> Bool {
            try await node.request(Client(), cookie: before) { !$0.isNew }
        }
        cluster.clock.advance(by: .milliseconds(9_999))
        #expect(try await isRead(a))
        cluster.clock.advance(by: .milliseconds(1))
        #expect(try await !isRead(a))
        #expect(try await isRead(b))
        cluster.clock.advance(by: .milliseconds(9_999))
        #expect(try await isRead(b))
        cluster.clock.advance(by: .milliseconds(1))
        #expect(try await !isRead(b))
    }

    @Test func `an old id that must not be read is dead at once, and of several calls the shortest counts`()
        async throws
    {
        let cluster = Cluster()
        let a = try cluster.node("a")
        let b = try cluster.node("b")
        for oldIDReadable in [Duration.zero, .seconds(-1)] {
            let before = try await logIn(a, Client(), oldIDReadable: oldIDReadable)
            for node in [a, b] { try await node.request(Client(), cookie: before) { #expect($0.isNew) } }
        }
        let client = Client()
        try await a.request(client) { $0[.count] = 1 }
        let before = client.cookie
        try await a.request(client) { session in
            session.rotateID(oldIDReadable: .zero)
            session.rotateID()
        }
        try await a.request(Client(), cookie: before) { #expect($0.isNew) }
    }

    @Test func `the old id is read no longer than the session would have lived`() async throws {
        let cluster = Cluster()
        let a = try cluster.node("a") { $0.maxInactive = .seconds(2) }
        let before = try await logIn(a, Client())
        cluster.clock.advance(by: .milliseconds(1_999))
        try await a.request(Client(), cookie: before) { #expect(!$0.isNew) }
        cluster.clock.advance(by: .milliseconds(1))
        try await a.request(Client(), cookie: before) { #expect($0.isNew) }
    }

    @Test func `a session of the largest size changes its id, without a readable old one`() async throws {
        let cluster = Cluster()
        let a = try cluster.node("a")
        let client = Client()
        // Found once: the largest value that the store takes beside the rest of the record.
        func fits(_ count: Int) async throws -> Bool {
            do {
                try await a.request(client) { $0[.user] = String(repeating: "x", count: count) }
                return true
            } catch let error as SessionError where error.code == .tooLarge {
                return false
            }
        }
        var (small, large) = (1, 3 << 20)
        while large - small > 1 {
            let middle = (small + large) / 2
            if try await fits(middle) { small = middle } else { large = middle }
        }
        #expect(try await fits(small))
        let before = client.cookie
        try await a.request(client) { session in
            session[.user] = "ann"
            session.rotateID()
        }
        try await a.request(client) { #expect($0[.user] == "ann") }
        try await a.request(Client(), cookie: before) { #expect($0.isNew) }
    }

    @Test func `an expiry that meets a change of the id finds what the old id may read`() async throws {
        let cluster = Cluster()
        let a = try cluster.node("a") { $0.maxInactive = .seconds(30) }
        let b = try cluster.node("b") { $0.maxInactive = .seconds(30) }
        let client = Client()
        try await a.request(client) { $0[.count] = 1 }
        let before = client.cookie
        cluster.clock.advance(by: .seconds(20))
        try await b.request(client) { $0.maxInactive = .seconds(60) }
        cluster.clock.advance(by: .seconds(10))
        try await b.request(client) { $0.rotateID() }
        // The copy here has expired.
        try await a.request(Client(), cookie: before) { #expect($0[.count] == 1) }
    }

    @Test func `a request that finds its session expired while another one changes the id reads on`() async throws {
        let cluster = Cluster()
        let a = try cluster.node("a") { $0.maxInactive = .seconds(30) }
        let b = try cluster.node("b") { $0.maxInactive = .seconds(30) }
        let client = Client()
        try await a.request(client) { $0[.count] = 1 }
        let before = client.cookie
        // Late enough for a foreign judge, who tolerates a save interval and the slack. The clock was wrong.
        cluster.clock.stepWallClock(by: .seconds(100))
        b.store.next(.get, on: "d/", skipping: 1).runsFirst {
            cluster.clock.stepWallClock(by: .seconds(-80))
            do { try await a.request(client) { $0.rotateID() } } catch { Issue.record(error) }
        }
        try await b.request(Client(), cookie: before) { #expect($0[.count] == 1) }
        #expect(a.events.all + b.events.all == ["created"])
    }

    @Test func `a change on another node during the change of the id is carried over`() async throws {
        let cluster = Cluster(tellsTokens: true)
        let a = try cluster.node("a")
        let b = try cluster.node("b")
        let client = Client()
        try await a.request(client) { $0[.count] = 1 }
        let cookie = client.cookie
        // a's put of the tombstone is its second put of a record.
        a.store.next(.put, on: "d/", skipping: 1).runsFirst {
            do {
                try await b.request(Client(), cookie: cookie) { session in
                    session[.other] = 8
                    session[.count] = nil
                }
            } catch {
                Issue.record(error)
            }
        }
        try await a.request(client) { session in
            session[.user] = "ann"
            session.rotateID()
        }
        try await b.request(client) { session in
            #expect(session[.user] == "ann")
            #expect(session[.other] == 8)
            #expect(session[.count] == nil)
        }
        // The old id reads what the other node had acknowledged.
        try await b.request(Client(), cookie: cookie) { session in
            #expect(session[.other] == 8)
            #expect(session[.count] == nil)
            #expect(session[.user] == nil)
        }
    }

    @Test(arguments: [true, false])
    func `a change of the id that is not answered is found out`(happened: Bool) async throws {
        let cluster = Cluster()
        let a = try cluster.node("a")
        let client = Client()
        try await a.request(client) { $0[.count] = 1 }
        let before = client.cookie
        if happened {
            a.store.next(.put, on: "d/", skipping: 1).failsAfterEffect()
        } else {
            a.store.next(.put, on: "d/", skipping: 1).fails(.timeout, mayHaveTakenEffect: true)
        }
        try await a.request(client) { $0.rotateID() }
        try await a.request(client) { #expect($0[.count] == 1) }
        try await a.request(Client(), cookie: before) { #expect($0.isReadOnly) }
    }

    @Test func `a session that ends elsewhere while its id changes has ended`() async throws {
        let cluster = Cluster()
        let a = try cluster.node("a")
        let b = try cluster.node("b")
        let client = Client()
        try await a.request(client) { $0[.count] = 1 }
        let cookie = client.cookie
        try await a.request(client) { session in
            try await b.request(Client(), cookie: cookie) { $0.invalidate() }
            session.rotateID()
        }
        #expect(client.cookie == nil)
        #expect(a.events.all + b.events.all == ["created", "invalidated"])
        #expect(a.sessions.statistics.sessionsInMemory == 0)
    }

    @Test func `a write to an old id whose change is not here yet fails, and leaves the new cookie alone`() async throws
    {
        let cluster = Cluster()
        let a = try cluster.node("a")
        let b = try cluster.node("b")
        let client = Client()
        try await a.request(client) { $0[.count] = 1 }
        let cookie = client.cookie
        let error = await #expect(throws: SessionError.self) {
            try await a.request(Client(), cookie: cookie) { session in
                try await b.request(client) { $0.rotateID() }
                session[.count] = 2
            }
        }
        #expect(error?.code == .conflict)
        try await b.request(client) { #expect($0[.count] == 1) }
    }

    // MARK: A change of the id whose request fails

    /// What arrives of the tombstone, and when.
    enum Arrival: CaseIterable {
        case atOnce, beforeTheNextRequest, afterTheNextRequest, never
    }

    @Test(arguments: Arrival.allCases, [Duration.zero, .seconds(10)])
    func `a session whose change of the id was answered with 503 is as it was`(
        arrival: Arrival, oldIDReadable: Duration
    ) async throws {
        let cluster = Cluster(tellsTokens: true)
        let a = try cluster.node("a")
        let client = Client()
        try await a.request(client) { $0[.count] = 1 }
        let before = client.cookie
        var late: LateEffect?
        let put = a.store.next(.put, on: "d/", skipping: 1)
        switch arrival {
        case .atOnce: put.failsAfterEffect()
        case .never: put.fails(.timeout, mayHaveTakenEffect: true)
        case .beforeTheNextRequest, .afterTheNextRequest: late = put.failsThenTakesEffect()
        }
        // The store cannot be asked what became of it.
        a.store.next(.get, on: "d/").fails(.unavailable)
        let error = await #expect(throws: SessionError.self) {
            try await a.request(client) { session in
                session[.user] = "ann"
                session.rotateID(oldIDReadable: oldIDReadable)
            }
        }
        #expect(error?.code == .storeUnavailable)
        #expect(client.cookie == before)
        if arrival == .beforeTheNextRequest { #expect(try await late?.takeEffect() == true) }
        try await a.request(client) { session in
            #expect(session[.count] == 1)
            #expect(session[.user] == nil)
            #expect(!session.isReadOnly)
            session[.count] = 2
        }
        if arrival == .afterTheNextRequest { #expect(try await late?.takeEffect() == false) }
        try await cluster.node("b").request(Client(), cookie: client.cookie) { #expect($0[.count] == 2) }
        // The next attempt is one like any other.
        try await a.request(client) { session in
            session[.user] = "ann"
            session.rotateID()
        }
        #expect(client.cookie != before)
        try await a.request(client) { #expect($0[.user] == "ann") }
        #expect(a.events.all == ["created"])
    }

    @Test(arguments: Arrival.allCases)
    func `a session whose change of the id failed is there for a client that goes elsewhere`(arrival: Arrival)
        async throws
    {
        let cluster = Cluster(tellsTokens: true)
        let a = try cluster.node("a")
        let b = try cluster.node("b")
        let client = Client()
        try await a.request(client) { $0[.count] = 1 }
        var late: LateEffect?
        let put = a.store.next(.put, on: "d/", skipping: 1)
        switch arrival {
        case .atOnce: put.failsAfterEffect()
        case .never: put.fails(.timeout, mayHaveTakenEffect: true)
        case .beforeTheNextRequest, .afterTheNextRequest: late = put.failsThenTakesEffect()
        }
        a.store.every(.get, on: "d/").fails(.unavailable)
        await #expect(throws: SessionError.self) { try await a.request(client) { $0.rotateID() } }
        if arrival == .beforeTheNextRequest { #expect(try await late?.takeEffect() == true) }
        // While the store is out of reach nothing is known, and nothing forgotten.
        await a.sessions.scavenge()
        a.store.forgetScripts()
        await a.sessions.scavenge()
        if arrival == .afterTheNextRequest { #expect(try await late?.takeEffect() == false) }
        try await b.request(client) { session in
            #expect(session[.count] == 1)
            #expect(!session.isReadOnly)
            session[.count] = 2
        }
        // It is settled once.
        a.store.forgetCalls()
        await a.sessions.scavenge()
        #expect(a.store.calls.isEmpty)
        try await a.request(client) { #expect($0[.count] == 2) }
    }

    @Test func `a session that ended after a failed change of its id stays gone`() async throws {
        let cluster = Cluster(tellsTokens: true)
        let a = try cluster.node("a")
        let b = try cluster.node("b")
        let client = Client()
        try await a.request(client) { $0[.count] = 1 }
        let before = client.cookie
        a.store.next(.put, on: "d/", skipping: 1).fails(.timeout, mayHaveTakenEffect: true)
        a.store.next(.get, on: "d/").fails(.unavailable)
        await #expect(throws: SessionError.self) { try await a.request(client) { $0.rotateID() } }
        try await b.request(client) { $0.invalidate() }
        await a.sessions.scavenge()
        for node in [a, b] { try await node.request(Client(), cookie: before) { #expect($0.isNew) } }
        #expect(a.events.all + b.events.all == ["created", "invalidated"])
    }
}
