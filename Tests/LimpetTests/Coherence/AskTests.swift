import LimpetTesting
import Testing

@testable import Limpet

/// R19: a session that the store does not have may be in another node's memory.
struct AskTests {
    /// Nodes that know each other.
    private func members(_ names: String..., in cluster: Cluster) async throws -> [Node] {
        var nodes: [Node] = []
        for name in names { nodes.append(try await cluster.member(name)) }
        for _ in 0..<3 {
            for node in nodes {
                await node.membership.beat()
                await node.poll()
            }
            cluster.clock.advance(by: .milliseconds(250))
        }
        return nodes
    }

    @Test func `a visitor who strays is not logged out when the record was evicted`() async throws {
        let cluster = Cluster()
        let nodes = try await members("a", "b", in: cluster)
        let client = Client()
        try await nodes[0].request(client) { $0[.count] = 7 }
        try await cluster.store.lose("d/")
        try await cluster.whilePolling(nodes) {
            try await nodes[1].request(client) { session in
                #expect(session[.count] == 7)
                #expect(session.home == "b")
            }
        }
        #expect(nodes[0].sessions.statistics.republished == 1)
    }

    @Test func `nor when nothing of the session is left in the store`() async throws {
        let cluster = Cluster()
        let nodes = try await members("a", "b", in: cluster)
        let client = Client()
        try await nodes[0].request(client) { $0[.count] = 7 }
        for key in ["d/", "v/", "a/"] { try await cluster.store.lose(key) }
        try await cluster.whilePolling(nodes) {
            try await nodes[1].request(client) { #expect($0[.count] == 7) }
        }
    }

    @Test func `nor when the presence of its home was evicted with it`() async throws {
        let cluster = Cluster()
        let nodes = try await members("a", "b", in: cluster)
        let client = Client()
        try await nodes[0].request(client) { $0[.count] = 7 }
        for key in ["d/", "v/", "a/", "n/a"] { try await cluster.store.lose(key) }
        try await cluster.whilePolling(nodes) {
            try await nodes[1].request(client) { #expect($0[.count] == 7) }
        }
    }

    @Test func `nor when its home has looked at the record in vain, and waits with the next look`() async throws {
        let cluster = Cluster()
        let nodes = try await members("a", "b", in: cluster)
        let client = Client()
        try await nodes[0].request(client) { $0[.count] = 7 }
        try await cluster.store.lose("v/")
        // Somebody's change in the bucket: the home finds no epoch beside the record, again and again.
        try await cluster.store.lose("c/a")
        for _ in 0..<20 {
            await nodes[0].poll()
            cluster.clock.advance(by: .milliseconds(250))
        }
        try await cluster.store.lose("d/")
        try await cluster.whilePolling(nodes) {
            try await nodes[1].request(client) { #expect($0[.count] == 7) }
        }
    }

    @Test func `nor when the store evicts it once more before the visitor has seen that it was put back`() async throws
    {
        let cluster = Cluster()
        let nodes = try await members("a", "b", in: cluster)
        let client = Client()
        try await nodes[0].request(client) { $0[.count] = 7 }
        try await cluster.store.lose("d/")
        // The first look is the visitor's own; the others are after it asked.
        nodes[1].store.next(4, .get, on: "d/").runsFirst {
            do { try await cluster.store.lose("d/") } catch { Issue.record(error) }
        }
        try await cluster.whilePolling(nodes) {
            try await nodes[1].request(client) { #expect($0[.count] == 7) }
        }
        #expect(nodes[0].sessions.statistics.republished == 4)
    }

    @Test func `nor when the counters that ask for it are evicted, too`() async throws {
        let cluster = Cluster()
        let nodes = try await members("a", "b", in: cluster)
        let client = Client()
        try await nodes[0].request(client) { $0[.count] = 7 }
        try await cluster.store.lose("d/")
        // Its root counter tells the home that there is something; what, it does not find.
        nodes[0].store.next(.get, on: "c/a/").runsFirst {
            do { try await cluster.store.lose("c/a/") } catch { Issue.record(error) }
        }
        try await cluster.whilePolling(nodes) {
            try await nodes[1].request(client) { #expect($0[.count] == 7) }
        }
    }

    @Test func `nor when its home is not known yet, and joins while the others are asked`() async throws {
        let cluster = Cluster()
        let b = try await cluster.member("b")
        // a has begun, and is in nobody's directory yet.
        let a = try cluster.node("a")
        let client = Client()
        try await a.request(client) { $0[.count] = 7 }
        try await cluster.store.lose("d/")
        b.store.next(.get, on: "d/", skipping: 1).runsFirst { await a.membership.beat() }
        try await cluster.whilePolling([a, b]) {
            try await b.request(client) { #expect($0[.count] == 7) }
        }
    }

    @Test func `nor after a loss of memory, whoever asks first`() async throws {
        let cluster = Cluster()
        let nodes = try await members("a", "b", "c", in: cluster)
        let client = Client()
        try await nodes[0].request(client) { $0[.count] = 7 }
        let old = client.cookie
        try await nodes[1].request(client) { $0[.count] = 8 }
        await nodes[0].poll()
        try await cluster.store.loseMemory()
        // The cookie names a, the session is at home on b, and c is asked.
        try await cluster.whilePolling(nodes) {
            try await nodes[2].request(Client(), cookie: old) { #expect($0[.count] == 8) }
        }
    }

    @Test func `a session that is nowhere is not found, and answers are not withheld for good`() async throws {
        let cluster = Cluster()
        let nodes = try await members("a", "b", in: cluster)
        let client = Client()
        try await nodes[0].request(client) { $0[.count] = 7 }
        try await nodes[0].request(client) { $0.invalidate() }
        let cookie = "session=\(String(repeating: "A", count: 24)).a"
        try await cluster.whilePolling(nodes) {
            try await nodes[1].request(Client(), cookie: cookie) { #expect($0.isNew) }
        }
        // At home nobody is asked.
        try await nodes[0].request(Client(), cookie: cookie) { #expect($0.isNew) }
    }

    @Test func `as long as a node is not through with a loss, a session that is missing is an error`() async throws {
        let cluster = Cluster()
        let nodes = try await members("a", "b", "c", in: cluster)
        let client = Client()
        try await nodes[0].request(client) { $0[.count] = 7 }
        try await cluster.store.loseMemory()
        // a is stopped.
        await #expect(throws: SessionError.self) {
            try await cluster.whilePolling([nodes[1], nodes[2]]) {
                try await nodes[1].request(Client(), cookie: client.cookie) { _ in }
            }
        }
        try await cluster.whilePolling(nodes) {
            try await nodes[1].request(Client(), cookie: client.cookie) { #expect($0[.count] == 7) }
        }
    }

    @Test(arguments: ["m", "n/a"])
    func `a store that fails while the others are asked is an error of the session's`(key: String) async throws {
        let cluster = Cluster()
        let nodes = try await members("a", "b", in: cluster)
        let client = Client()
        try await nodes[0].request(client) { $0[.count] = 7 }
        try await cluster.store.loseMemory()
        nodes[1].store.next(100, .get, on: key).fails(.connectionLost)
        await #expect(throws: SessionError.self) {
            try await nodes[1].request(Client(), cookie: client.cookie) { _ in }
        }
    }

    @Test func `nor is it another error when who is asked cannot be found out`() async throws {
        let cluster = Cluster()
        let nodes = try await members("a", "b", in: cluster)
        let client = Client()
        try await nodes[0].request(client) { $0[.count] = 7 }
        try await cluster.store.lose("d/")
        // What is known of the others is too old to go by.
        cluster.clock.advance(by: .milliseconds(250))
        nodes[1].store.next(100, .get, on: "n/a").fails(.connectionLost)
        await #expect(throws: SessionError.self) {
            try await nodes[1].request(Client(), cookie: client.cookie) { _ in }
        }
    }

    @Test func `what is put back between the look at the store and the news of it is found`() async throws {
        let cluster = Cluster()
        let nodes = try await members("a", "b", in: cluster)
        let client = Client()
        try await nodes[0].request(client) { $0[.count] = 7 }
        let old = client.cookie
        try await nodes[1].request(client) { $0[.count] = 8 }
        for node in nodes { await node.poll() }
        try await cluster.store.loseMemory()
        await nodes[0].poll()
        // a has found nothing in the store, and asks how far the others are: b puts the session back just before.
        nodes[0].store.next(.get, on: "b").runsFirst { await nodes[1].poll() }
        try await cluster.whilePolling([nodes[0]]) {
            try await nodes[0].request(Client(), cookie: old) { #expect($0[.count] == 8) }
        }
    }

    @Test func `that all are through is news, and no answer for who looked before: the last one has just put it back`()
        async throws
    {
        let cluster = Cluster()
        let nodes = try await members("a", "b", in: cluster)
        let client = Client()
        try await nodes[0].request(client) { $0[.count] = 7 }
        let old = client.cookie
        try await nodes[1].request(client) { $0[.count] = 8 }
        for node in nodes { await node.poll() }
        try await cluster.store.loseMemory()
        await nodes[0].poll()
        // The directory is there again for long enough to go by it.
        cluster.clock.advance(by: .milliseconds(500))
        await nodes[0].poll()
        nodes[0].store.next(.get, on: "b").runsFirst { await nodes[1].poll() }
        // Nobody has to be asked, or waited for.
        try await nodes[0].request(Client(), cookie: old) { #expect($0[.count] == 8) }
    }

    @Test func `a copy that was on its way when the memory was lost is waited for`() async throws {
        let cluster = Cluster()
        let nodes = try await members("a", "b", in: cluster)
        let client = Client()
        try await nodes[0].request(client) { $0[.count] = 7 }
        let old = client.cookie
        let hold = nodes[1].store.next(.put, on: "d/").isHeldAfterEffect()
        async let takeover: Void = nodes[1].request(client) { _ in }
        await hold.waitUntilHeld()
        await nodes[0].poll()
        try await cluster.store.loseMemory()
        for node in nodes { await node.poll() }
        // b has swept an empty table, and may be the only one that has the session.
        await #expect(throws: SessionError.self) {
            try await cluster.whilePolling(nodes) {
                try await nodes[0].request(Client(), cookie: old) { _ in }
            }
        }
        hold.release()
        try await takeover
        try await cluster.whilePolling(nodes) {
            try await nodes[0].request(Client(), cookie: old) { #expect($0[.count] == 7) }
        }
    }

    @Test func `a session whose home is busy with it is an error, and not a log-out`() async throws {
        let cluster = Cluster()
        let nodes = try await members("a", "b", in: cluster)
        let client = Client()
        try await nodes[0].request(client) { $0[.count] = 7 }
        try await nodes[0].request(client) { _ in
            try await cluster.store.lose("d/")
            await #expect(throws: SessionError.self) {
                try await cluster.whilePolling(nodes) {
                    try await nodes[1].request(Client(), cookie: client.cookie) { _ in }
                }
            }
        }
        try await cluster.whilePolling(nodes) {
            try await nodes[1].request(Client(), cookie: client.cookie) { #expect($0[.count] == 7) }
        }
    }

    @Test func `R15: an end that finds no record tells all nodes`() async throws {
        let cluster = Cluster()
        let nodes = try await members("a", "b", in: cluster)
        let client = Client()
        try await nodes[0].request(client) { $0[.count] = 7 }
        let other = Client()
        try await nodes[0].request(client) { session in
            try await nodes[1].request(other, cookie: client.cookie) { _ in }
            try await cluster.store.lose("d/")
            session.invalidate()
        }
        await nodes[1].poll()
        try await nodes[1].request(other) { #expect($0.isNew) }
    }

    @Test func `a takeover of unknown outcome leaves a copy that can be put back`() async throws {
        let cluster = Cluster()
        let nodes = try await members("a", "b", in: cluster)
        let client = Client()
        try await nodes[0].request(client) { $0[.count] = 7 }
        nodes[1].store.next(.put, on: "d/").failsAfterEffect()
        nodes[1].store.next(.get, on: "d/", skipping: 1).runsFirst {
            // The old home drops its copy; then the memory is lost.
            await nodes[0].poll()
            do { try await cluster.store.loseMemory() } catch { Issue.record(error) }
        }
        try await cluster.whilePolling(nodes) {
            try await nodes[1].request(client) { #expect($0[.count] == 7) }
        }
    }
}
