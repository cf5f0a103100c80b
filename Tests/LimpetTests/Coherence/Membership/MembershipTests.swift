import Limpet
import LimpetTesting
import Testing

@testable import Limpet

/// Nodes know of each other.
struct MembershipTests {
    /// Nodes that have joined.
    private func nodes(_ names: String..., in cluster: Cluster) async throws -> [Node] {
        var nodes: [Node] = []
        for name in names { nodes.append(try await cluster.member(name)) }
        for node in nodes { await node.membership.beat() }
        return nodes
    }

    private func names(_ node: Node) async throws -> [String] {
        try await node.sessions.cluster.nodes().map { "\($0.name) \($0.state)" }
    }

    @Test func `nodes that joined know each other, and how many sessions each has`() async throws {
        let cluster = Cluster()
        let nodes = try await nodes("b", "a", in: cluster)
        for _ in 0..<3 { try await nodes[0].request(Client()) { $0[.count] = 1 } }
        try await nodes[1].request(Client()) { $0[.count] = 1 }
        for node in nodes { await node.membership.beat() }
        for node in nodes {
            #expect(try await names(node) == ["a alive", "b alive"])
            #expect(try await node.sessions.cluster.nodes().map(\.sessions) == [1, 3])
            #expect(try await node.sessions.cluster.total() == 4)
        }
        #expect(try await nodes[0].membership.othersAlive() == ["a"])
        #expect(try await nodes[1].membership.othersAlive() == ["b"])
        let described = try await nodes[0].sessions.cluster.nodes()[1]
        #expect(described.incarnation.count == 16)
        #expect(described.startedAt != nil)
        #expect(described.lastBeatAt != nil)
    }

    @Test func `a beat is one read and one write`() async throws {
        let cluster = Cluster()
        let nodes = try await nodes("a", "b", in: cluster)
        nodes[0].store.forgetCalls()
        await nodes[0].membership.beat()
        #expect(nodes[0].store.shortCalls == ["get m g n n", "put n"])
        #expect(nodes[0].store.calls[1].timeToLive == .seconds(11))
    }

    @Test func `nodes that join at the same time are all in the directory`() async throws {
        let cluster = Cluster()
        let a = try await nodes("a", in: cluster)[0]
        let (b, c) = (try cluster.node("b"), try cluster.node("c"))
        // c joins between b's read of the directory and its swap.
        b.store.next(.put, on: "m").runsFirst { await c.membership.beat() }
        await b.membership.beat()
        #expect(try await a.sessions.cluster.nodes().map(\.name) == ["a", "b", "c"])
    }

    @Test func `the first node waits for two polls before it makes a directory`() async throws {
        let cluster = Cluster()
        let a = try cluster.node("a")
        await a.membership.beat()
        #expect(a.store.count(.put, on: "m") == 0)
        cluster.clock.advance(by: .milliseconds(500))
        await a.membership.beat()
        #expect(try await names(a) == ["a alive"])
    }

    @Test(arguments: [false, true])
    func `an entry whose swap is not answered is found out`(happened: Bool) async throws {
        let cluster = Cluster()
        let a = try await nodes("a", in: cluster)[0]
        let b = try cluster.node("b")
        if happened {
            b.store.next(.put, on: "m").failsAfterEffect()
        } else {
            b.store.next(.put, on: "m").fails(.timeout, mayHaveTakenEffect: true)
        }
        await b.membership.beat()
        #expect(try await names(a) == ["a alive", "b alive"])
    }

    @Test func `a directory that the store has lost is put back by all, with those who are not here to do so`()
        async throws
    {
        let cluster = Cluster()
        let nodes = try await nodes("a", "b", "c", in: cluster)
        // c has stopped for a while. A newcomer makes a directory of its own before the others notice the loss.
        try await cluster.store.loseMemory()
        let d = try cluster.node("d")
        await d.membership.beat()
        cluster.clock.advance(by: .milliseconds(500))
        await d.membership.beat()
        #expect(try await d.sessions.cluster.nodes().map(\.name) == ["d"])
        await nodes[0].membership.memoryLost(server: 0)
        await nodes[1].membership.memoryLost(server: 0)
        #expect(try await names(d) == ["a alive", "b alive", "c lapsed", "d alive"])
    }

    @Test func `the others are through when each has said so`() async throws {
        let cluster = Cluster()
        let nodes = try await nodes("a", "b", in: cluster)
        let (a, b) = (nodes[0].membership, nodes[1].membership)
        cluster.clock.advance(by: .milliseconds(500))
        #expect(try await a.isEveryoneThrough(server: 0, mark: 7) == false)
        await a.noteThrough(server: 0, mark: 7)
        #expect(try await a.isEveryoneThrough(server: 0, mark: 7) == false)
        await b.noteThrough(server: 0, mark: 6)
        #expect(try await a.isEveryoneThrough(server: 0, mark: 7) == false)
        await b.noteThrough(server: 0, mark: 7)
        #expect(try await a.isEveryoneThrough(server: 0, mark: 7))
        #expect(try await a.isEveryoneThrough(server: 1, mark: 7) == false)
    }

    @Test func `a node that is gone is waited for for a whole lease`() async throws {
        let cluster = Cluster()
        let a = try await nodes("a", "b", in: cluster)[0].membership
        await a.noteThrough(server: 0, mark: 7)
        // The store lost b's presence: b may be there and put it back in a moment.
        try await cluster.store.lose("n/b")
        for _ in 0..<4 {
            #expect(try await a.isEveryoneThrough(server: 0, mark: 7) == false)
            cluster.clock.advance(by: .milliseconds(2499))
        }
        #expect(try await a.isEveryoneThrough(server: 0, mark: 7) == false)
        cluster.clock.advance(by: .milliseconds(4))
        #expect(try await a.isEveryoneThrough(server: 0, mark: 7))
    }

    @Test func `a restarted node is not through because its earlier start was`() async throws {
        let cluster = Cluster()
        let nodes = try await nodes("a", "b", in: cluster)
        cluster.clock.advance(by: .milliseconds(500))
        for node in nodes { await node.membership.noteThrough(server: 0, mark: 7) }
        #expect(try await nodes[0].membership.isEveryoneThrough(server: 0, mark: 7))
        let again = try cluster.node("b")
        // It stands in the directory, its presence is on its way.
        let hold = again.store.next(.put, on: "n/b").isHeld()
        async let beat: Void = again.membership.beat()
        await hold.waitUntilHeld()
        #expect(try await nodes[0].membership.isEveryoneThrough(server: 0, mark: 7) == false)
        hold.release()
        await beat
        await again.membership.noteThrough(server: 0, mark: 7)
        #expect(try await nodes[0].membership.isEveryoneThrough(server: 0, mark: 7))
    }

    @Test func `a node that does not know the directory for two polls yet does not say that all are through`()
        async throws
    {
        let cluster = Cluster()
        let nodes = try await nodes("a", "b", in: cluster)
        cluster.clock.advance(by: .seconds(1))
        try await cluster.store.loseMemory()
        // a puts the directory back; c, who knows nobody, has only that to go by.
        await nodes[0].membership.noteThrough(server: 0, mark: 8)
        #expect(try await nodes[0].membership.isEveryoneThrough(server: 0, mark: 8) == false)
        cluster.clock.advance(by: .milliseconds(500))
        // b is known, and not through.
        #expect(try await nodes[0].membership.isEveryoneThrough(server: 0, mark: 8) == false)
        await nodes[1].membership.noteThrough(server: 0, mark: 8)
        #expect(try await nodes[0].membership.isEveryoneThrough(server: 0, mark: 8))
    }

    @Test func `a store that cannot be asked is never taken for a node that is gone`() async throws {
        let cluster = Cluster()
        let nodes = try await nodes("a", "b", in: cluster)
        await nodes[0].membership.noteThrough(server: 0, mark: 7)
        cluster.clock.advance(by: .seconds(60))
        nodes[0].store.next(.get, on: "n/b").fails(.unavailable)
        await #expect(throws: StoreError.self) {
            try await nodes[0].membership.isEveryoneThrough(server: 0, mark: 7)
        }
        nodes[0].store.next(.get).fails(.unavailable)
        await #expect(throws: SessionError.self) { try await nodes[0].sessions.cluster.nodes() }
    }

    @Test func `a clock that differs by more than the slack is said once`() async throws {
        let cluster = Cluster()
        let log = LogLines()
        let a = try await cluster.member("a", log: log)
        let b = try await cluster.member("b")
        for difference in [Duration.seconds(9), .seconds(11), .seconds(11)] {
            await a.membership.beat()
            cluster.clock.stepWallClock(by: difference)
            await b.membership.beat()
            cluster.clock.stepWallClock(by: .zero - difference)
            await a.membership.beat()
            #expect(
                log.all.count { $0.hasPrefix("warning: Another node's clock") } == (difference > .seconds(10) ? 1 : 0))
        }
    }

    @Test func `two processes under one name are said once, a restart is not`() async throws {
        let cluster = Cluster()
        let log = LogLines()
        let first = try await cluster.member("a", log: log)
        let second = try await cluster.member("a", log: log)
        #expect(!log.all.contains { $0.hasPrefix("error") })
        for _ in 0..<5 {
            for node in [first, second] { await node.membership.beat() }
        }
        // Each of the two says it.
        #expect(log.all.count { $0.hasPrefix("error: Another process uses this node's name") } == 2)
        let restarted = LogLines()
        let third = try await cluster.member("b", log: restarted)
        for _ in 0..<3 { await third.membership.beat() }
        let fourth = try await cluster.member("b", log: restarted)
        for _ in 0..<5 { await fourth.membership.beat() }
        #expect(restarted.all == [])
    }

    @Test func `a failing store is said once, and the next beat that succeeds puts all right`() async throws {
        let cluster = Cluster()
        let log = LogLines()
        let a = try await cluster.member("a", log: log)
        a.store.every().fails(.unavailable)
        for _ in 0..<5 {
            await a.membership.beat()
            cluster.clock.advance(by: .seconds(3))
        }
        #expect(log.all.count { $0.hasPrefix("warning: A node cannot take part") } == 1)
        a.store.forgetScripts()
        await a.membership.beat()
        #expect(try await names(a) == ["a alive"])
        #expect(log.all.count { $0.hasPrefix("warning: A node cannot take part") } == 1)
    }

    @Test func `a node that has nothing left leaves without a trace`() async throws {
        let cluster = Cluster()
        let nodes = try await nodes("a", "b", in: cluster)
        try await nodes[1].membership.leave()
        #expect(try await names(nodes[0]) == ["a alive"])
        // And is remembered by nobody: a loss of memory does not bring it back.
        await nodes[0].membership.beat()
        try await cluster.store.loseMemory()
        await nodes[0].membership.beat()
        #expect(try await names(nodes[0]) == ["a alive"])
    }

    @Test func `one session's home and epoch can be asked for`() async throws {
        let cluster = Cluster()
        let nodes = try await nodes("a", "b", in: cluster)
        let client = Client()
        let id = try await nodes[0].request(client) { session in
            session[.count] = 1
            return session.id
        }
        let home = try await nodes[1].sessions.cluster.home(of: id)
        #expect(home?.node == "a")
        #expect(home?.isAlive == true)
        #expect(try await nodes[0].request(client) { $0.epoch } == home?.epoch)
        // A restart of the home is another one.
        let again = try await cluster.member("a")
        #expect(try await nodes[1].sessions.cluster.home(of: id)?.isAlive == false)
        try await again.request(client) { _ in }
        #expect(try await nodes[1].sessions.cluster.home(of: id)?.isAlive == true)
        #expect(try await nodes[1].sessions.cluster.home(of: SessionID()) == nil)
    }

    @Test func `a running node joins, beats, and stays`() async throws {
        let cluster = Cluster()
        let a = try cluster.node("a")
        let put = a.store.next(2, .put, on: "n/a").isHeldAfterEffect()
        let running = Task { await a.membership.run() }
        await put.waitUntilHeld(1)
        put.release()
        await cluster.clock.waitForSleepers(1)
        cluster.clock.advance(by: .milliseconds(500))
        await put.waitUntilHeld(2)
        await cluster.clock.waitForSleepers(1)
        #expect(try await names(a) == ["a alive"])
        let third = a.store.next(.put, on: "n/a").isHeldAfterEffect()
        cluster.clock.advance(by: .milliseconds(2500))
        await third.waitUntilHeld()
        third.release()
        running.cancel()
        await running.value
    }
}

extension Cluster {
    /// A node that has joined.
    func member(_ name: String, log: LogLines = LogLines()) async throws -> Node {
        let node = try node(name, log: log)
        await node.membership.beat()
        if !node.membership.isMember {
            clock.advance(by: .milliseconds(500))
            await node.membership.beat()
        }
        return node
    }
}
