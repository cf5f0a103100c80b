import Limpet
import LimpetTesting
import Testing

@testable import Limpet

/// What becomes of the sessions of a node that is gone.
struct OrphanTests {
    private let cluster = Cluster()

    /// A session that lives for a minute, on a node that lists it and then gives no more signs of life. Idle limit, save
    /// interval and slack are 130 seconds.
    private func orphan(of node: Node, _ client: Client = Client()) async throws -> Client {
        try await node.request(client) { session in
            session[.count] = 1
            session.maxInactive = .seconds(60)
        }
        await node.coherence.writeRoster(atMost: 256)
        return client
    }

    /// Lets time pass, while these nodes live.
    private func pass(_ seconds: Int, _ nodes: [Undertaker]) async {
        for _ in 0..<seconds {
            cluster.clock.advance(by: .seconds(1))
            for node in nodes {
                await node.node.membership.beat()
                await node.bury()
            }
        }
    }

    @Test func `a session of a dead node is ended when nobody can have used it in time, and told once`() async throws {
        let (a, b, c) = (
            try await cluster.member("a"), Undertaker(try await cluster.member("b")),
            Undertaker(try await cluster.member("c"))
        )
        let client = try await orphan(of: a)
        await pass(129, [b, c])
        #expect(b.events + c.events == [])
        await pass(4, [b, c])
        #expect(b.events + c.events == ["expired"])
        try await cluster.whilePolling([]) { try await c.node.request(client) { #expect($0.isNew) } }
        // Nothing is left of the node.
        #expect(try await c.node.sessions.cluster.nodes().map(\.name) == ["b", "c"])
        #expect(try await storedPages(of: "a") == [])
        await pass(20, [b, c])
        #expect(b.events + c.events == ["expired"])
    }

    @Test func `a node that lives keeps its sessions, however long it was not looked at`() async throws {
        let (a, b) = (try await cluster.member("a"), Undertaker(try await cluster.member("b")))
        _ = try await orphan(of: a)
        for _ in 0..<60 {
            await a.membership.beat()
            await pass(2, [b])
        }
        #expect(b.node.store.count(on: "r/") == 0)
        // b stood still for a minute, a did not.
        cluster.clock.advance(by: .seconds(60))
        await b.node.membership.beat()
        await b.bury()
        #expect(b.node.store.count(on: "o/") == 0)
    }

    @Test func `a session that another node has taken over is that node's`() async throws {
        let (a, b, c) = (
            try await cluster.member("a"), Undertaker(try await cluster.member("b")),
            Undertaker(try await cluster.member("c"))
        )
        let client = try await orphan(of: a)
        await pass(100, [b])
        try await cluster.whilePolling([]) { try await c.node.request(client) { #expect($0[.count] == 1) } }
        await pass(55, [b])
        #expect(b.events == [])
        #expect(try await c.node.request(client) { $0[.count] } == 1)
        #expect(try await b.node.sessions.cluster.nodes().map(\.name).contains("a") == false)
    }

    @Test func `a session that is taken over while its end is decided lives`() async throws {
        let (a, b, c) = (
            try await cluster.member("a"), Undertaker(try await cluster.member("b")), try await cluster.member("c")
        )
        let client = try await orphan(of: a)
        await pass(129, [b])
        // A clock that is behind by what is tolerated: for c it is not expired.
        b.node.store.next(.get, on: "d/", skipping: 1).runsFirst {
            do {
                cluster.clock.stepWallClock(by: .seconds(-20))
                try await c.request(client) { #expect($0[.count] == 1) }
                cluster.clock.stepWallClock(by: .seconds(20))
            } catch {
                Issue.record(error)
            }
        }
        await pass(4, [b])
        #expect(b.events == [])
        #expect(try await c.request(client) { $0[.count] } == 1)
    }

    @Test func `who believes the list instead of the record ends sessions that live`() async throws {
        let (a, b, c) = (
            try await cluster.member("a"), Undertaker(try cluster.node("b", breaking: .r22)),
            try await cluster.member("c")
        )
        let client = try await orphan(of: a)
        await pass(50, [b])
        try await cluster.whilePolling([]) { try await c.request(client) { #expect($0[.count] == 1) } }
        await pass(20, [b])
        #expect(b.events == ["expired"])
    }

    @Test func `whoever ends the sessions may die as well`() async throws {
        let (a, b, c) = (
            try await cluster.member("a"), Undertaker(try await cluster.member("b")),
            Undertaker(try await cluster.member("c"))
        )
        _ = try await orphan(of: a)
        await pass(60, [b, c])
        #expect(b.node.store.count(.put, on: "o/a") > c.node.store.count(.put, on: "o/a"))
        await pass(100, [c])
        #expect(b.events + c.events == ["expired"])
        #expect(try await c.node.sessions.cluster.nodes().map(\.name) == ["c"])
    }

    @Test func `two who think that they are the one end a session once`() async throws {
        let (a, b, c) = (
            try await cluster.member("a"), Undertaker(try await cluster.member("b")),
            Undertaker(try await cluster.member("c"))
        )
        _ = try await orphan(of: a)
        await pass(129, [b, c])
        // b stops in the middle of its work, its claim lapses, and c takes it over.
        let hold = b.node.store.next(.put, on: "d/").isHeld()
        cluster.clock.advance(by: .seconds(2))
        async let stopped: Void = b.bury()
        await hold.waitUntilHeld()
        await pass(15, [c])
        hold.release()
        await stopped
        #expect(b.events + c.events == ["expired"])
    }

    @Test func `a node that is back keeps its name, and deals with what its earlier start had`() async throws {
        let (a, b) = (try await cluster.member("a"), Undertaker(try await cluster.member("b")))
        let (ann, bob) = (Client(), Client())
        _ = try await orphan(of: a, ann)
        _ = try await orphan(of: a, bob)
        await pass(60, [b])
        let again = Undertaker(try await cluster.member("a"))
        await again.node.coherence.writeRoster(atMost: 256)
        try await again.node.request(bob) { #expect($0[.count] == 1) }
        await pass(40, [b, again])
        try await again.node.request(bob) { #expect($0[.count] == 1) }
        await pass(33, [b, again])
        #expect(b.events + again.events == ["expired"])
        #expect(try await b.node.sessions.cluster.nodes().map(\.name) == ["a", "b"])
        #expect(try await again.node.request(bob) { $0[.count] } == 1)
        // The list has bob's session alone.
        await again.node.coherence.writeRoster(atMost: 256)
        #expect(try await storedPages(of: "a").flatMap(\.values).count == 1)
    }

    @Test func `a page that a node has written again is not deleted, nor its entry`() async throws {
        let (a, b) = (try await cluster.member("a"), Undertaker(try await cluster.member("b")))
        _ = try await orphan(of: a)
        await pass(129, [b])
        let again = try cluster.node("a")
        b.node.store.next(.delete, on: "r/a").runsFirst {
            await again.membership.beat()
            await again.coherence.writeRoster(atMost: 256)
        }
        await pass(4, [b])
        #expect(try await b.node.sessions.cluster.nodes().map(\.name) == ["a", "b"])
        #expect(try await storedPages(of: "a").flatMap(\.values).count == 1)
    }

    @Test func `a store that fails in the middle costs time and nothing else`() async throws {
        let (a, b) = (try await cluster.member("a"), Undertaker(try await cluster.member("b")))
        _ = try await orphan(of: a)
        await pass(129, [b])
        b.node.store.next(.put, on: "d/").failsAfterEffect()
        await pass(2, [b])
        b.node.store.every().fails(.unavailable)
        await pass(3, [b])
        b.node.store.forgetScripts()
        await pass(30, [b])
        #expect(b.events == ["expired"])
        #expect(try await b.node.sessions.cluster.nodes().map(\.name) == ["b"])
    }

    @Test func `the roster is written where something changed, and empty pages go`() async throws {
        let a = try await cluster.member("a")
        let client = try await orphan(of: a)
        #expect(a.store.count(.put, on: "r/") == 1)
        a.store.forgetCalls()
        try await a.request(client) { $0[.count] = 2 }
        await a.coherence.writeRoster(atMost: 256)
        #expect(a.store.count(on: "r/") == 0)
        // Half of its time to live: 60 s until the session expires, 70 s more to judge it, and six leases.
        cluster.clock.advance(by: .seconds(96))
        await a.coherence.writeRoster(atMost: 256)
        #expect(a.store.count(.put, on: "r/") == 1)
        try await cluster.whilePolling([]) { try await a.request(client) { $0.invalidate() } }
        await a.coherence.writeRoster(atMost: 256)
        #expect(a.store.count(.delete, on: "r/") == 1)
        #expect(try await storedPages(of: "a") == [])
    }

    @Test func `a beat writes so many pages at most, and the others with the next`() async throws {
        let a = try await cluster.member("a")
        for _ in 0..<400 { try await a.request(Client()) { $0[.count] = 1 } }
        var written = 0
        for _ in 0..<4 {
            a.store.forgetCalls()
            await a.coherence.writeRoster(atMost: 64)
            #expect(a.store.count(.put, on: "r/") <= 64)
            written += a.store.count(.put, on: "r/")
        }
        #expect(try await storedPages(of: "a").flatMap(\.values).count == 400)
        #expect(written == (try await storedPages(of: "a").count))
    }

    @Test func `a drained node saves what only it knows, and leaves what others need`() async throws {
        let (a, b) = (try await cluster.member("a"), Undertaker(try await cluster.member("b")))
        let client = try await orphan(of: a)
        cluster.clock.advance(by: .seconds(50))
        await b.node.membership.beat()
        // An access that is not saved yet: the session expires at 110 seconds.
        try await a.request(client) { #expect($0[.count] == 1) }
        await a.coherence.drain()
        #expect(a.sessions.statistics.accessTimeSaves == 1)
        #expect(try await b.node.sessions.cluster.nodes().map { "\($0.name) \($0.state)" } == ["a left", "b alive"])
        // Nobody waits for it to be through with anything.
        await pass(1, [b])
        await b.node.membership.noteThrough(server: 0, mark: 7)
        #expect(try await b.node.membership.isEveryoneThrough(server: 0, mark: 7))
        await pass(128, [b])
        #expect(b.events == [])
        await pass(4, [b])
        #expect(b.events == ["expired"])
        #expect(try await b.node.sessions.cluster.nodes().map(\.name) == ["b"])
    }

    @Test func `a node that leaves without saving lets sessions end early`() async throws {
        let (a, b) = (try cluster.node("a", breaking: .r21), Undertaker(try await cluster.member("b")))
        await a.membership.beat()
        let client = try await orphan(of: a)
        cluster.clock.advance(by: .seconds(59))
        try await a.request(client) { #expect($0[.count] == 1) }
        await a.coherence.drain()
        await pass(75, [b])
        #expect(b.events == ["expired"])
    }

    @Test func `a drained node comes back under its name and has its sessions`() async throws {
        let (a, b) = (try await cluster.member("a"), Undertaker(try await cluster.member("b")))
        let client = try await orphan(of: a)
        await a.coherence.drain()
        await pass(5, [b])
        let again = try await cluster.member("a")
        #expect(try await b.node.sessions.cluster.nodes().map { "\($0.name) \($0.state)" } == ["a alive", "b alive"])
        try await cluster.whilePolling([]) { try await again.request(client) { #expect($0[.count] == 1) } }
        #expect(b.events == [])
    }

    @Test func `a drain with a store that is gone ends, and says how much was not saved`() async throws {
        let log = LogLines()
        let a = try await cluster.member("a", log: log)
        for _ in 0..<40 { try await a.request(Client()) { $0[.count] = 1 } }
        for copy in a.coherence.local.roster.sessions { copy.withState { $0.record.accessedAt += 1 } }
        a.store.every().fails(.unavailable)
        await a.coherence.drain()
        #expect(
            log.all.contains(
                "warning: A node stops and could not save when its sessions were last asked for: they may end early"))
        #expect(
            log.all.contains(
                "warning: A node stops and could not tell the others; they find out when its presence ends"))
    }

    /// What the store lists of a node.
    private func storedPages(of name: String) async throws -> [Roster.Entries] {
        let reader = try cluster.node("reader")
        return try await reader.coherence.readRoster(of: name).values.map(\.entries)
    }
}

/// A node with what it knows of those whose sessions it ends.
private final class Undertaker: Sendable {
    let node: Node
    private let burials = Locked<[String: Burial]>([:])

    init(_ node: Node) {
        self.node = node
    }

    var events: [String] { node.events.all.filter { $0 != "created" } }

    func bury() async {
        var burials = burials.withLock { $0 }
        await node.coherence.bury(&burials)
        self.burials.withLock { $0 = burials }
    }
}

extension Node {
    var coherence: SessionCoherence { sessions.coherence }
}
