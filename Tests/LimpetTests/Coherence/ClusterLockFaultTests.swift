import HTTPTypes
import LimpetTesting
import Testing

@testable import Limpet

/// R23 over the store, where something goes wrong: sessions that have ended, nodes that lose what they hold, and stores that fail.
struct ClusterLockFaultTests {
    private func nodes(in cluster: Cluster) async throws -> (a: Node, b: Node) {
        var nodes: [Node] = []
        for name in ["a", "b"] {
            let node = try cluster.node(name) { configuration in
                configuration.lock.scope = .cluster
                configuration.store.whenUnavailable = .reject
            }
            await node.membership.beat()
            if !node.membership.isMember {
                cluster.clock.advance(by: .milliseconds(500))
                await node.membership.beat()
            }
            await node.poll()
            nodes.append(node)
        }
        for node in nodes { await node.membership.beat() }
        return (nodes[0], nodes[1])
    }

    @Test func `a holder that was stopped cannot give the session a new id over what came after`() async throws {
        let cluster = Cluster()
        let (a, b) = try await nodes(in: cluster)
        let client = Client()
        try await a.request(client) { $0[.count] = 5 }
        let cookie = client.cookie
        let (isIn, entered) = AsyncStream.makeStream(of: Void.self)
        let (goesOn, resume) = AsyncStream.makeStream(of: Void.self)
        async let stopped: Void = a.request(Client(), cookie: cookie) { session in
            let count = session[.count, default: 0]
            entered.finish()
            for await _ in goesOn {}
            session[.count] = count + 1
            session.rotateID()
        }
        for await _ in isIn {}
        try await cluster.whilePolling([b]) {
            try await b.request(Client(), cookie: cookie) { $0[.count, default: 0] += 1 }
        }
        resume.finish()
        do {
            try await stopped
            Issue.record("the change of the id was acknowledged")
        } catch let error as SessionError {
            #expect(error.code == .conflict)
        }
        try await b.request(Client(), cookie: cookie) { #expect($0[.count] == 6) }
    }

    @Test(arguments: ["invalidated", "rotated"])
    func `nobody waits for the lock of an id that is over`(how: String) async throws {
        let cluster = Cluster()
        let (a, b) = try await nodes(in: cluster)
        let client = Client()
        try await a.request(client) { $0[.count] = 1 }
        let old = client.cookie
        try await a.request(client) { session in
            if how == "rotated" { session.rotateID() } else { session.invalidate() }
        }
        // The clock stands still.
        for node in [a, b, a, b] {
            try await node.request(Client(), cookie: old) { session in
                #expect(session.isReadOnly == (how == "rotated"))
                #expect(session.isNew == (how == "invalidated"))
            }
        }
        #expect(a.sessions.coherence.clusterLocks.count <= 1)
        #expect(b.sessions.coherence.clusterLocks.count == 0)
    }

    @Test func `a lock that a request could not make sure of is given up when somebody wants it`() async throws {
        let cluster = Cluster()
        let (a, b) = try await nodes(in: cluster)
        let client = Client()
        try await a.request(client) { $0[.count] = 1 }
        let cookie = client.cookie
        // Longer than a node relies on its lease.
        cluster.clock.advance(by: .seconds(4))
        a.store.next(.put, on: "n/a").fails(.connectionLost)
        await #expect(throws: SessionError.self) { try await a.request(Client(), cookie: cookie) { _ in } }
        for node in [a, b] { await node.membership.beat() }
        let start = cluster.clock.monotonicNanoseconds()
        try await cluster.whilePolling([a, b]) {
            try await b.request(Client(), cookie: cookie) { #expect($0[.count] == 1) }
        }
        #expect(cluster.clock.monotonicNanoseconds() - start < Duration.seconds(2).nanoseconds)
    }

    @Test func `a lock and a mark that cannot be read trouble no other session`() async throws {
        let cluster = Cluster()
        let (a, b) = try await nodes(in: cluster)
        let clients = [Client(), Client()]
        for client in clients { try await a.request(client) { $0[.count] = 1 } }
        let keys = try clients.map { client in
            let text = try #require(client.cookie?.split(separator: "=").last?.split(separator: ".").first)
            return a.sessions.coherence.names.keys(of: try #require(SessionID(text.utf8)))
        }
        for key in [keys[0].lock, keys[1].want] {
            _ = try await cluster.store.put([0xFF], for: key, timeToLive: .seconds(60), if: .always)
        }
        for key in keys { try await b.sessions.coherence.bump("a", key) }
        await a.poll()
        #expect(a.sessions.statistics.failedPolls == 0)
        #expect(a.sessions.statistics.locksLost == 1)
        try await cluster.whilePolling([a, b]) {
            try await b.request(clients[1]) { #expect($0[.count] == 1) }
        }
    }

    @Test func `a reader that has to load does not wait for one that waits for it to leave`() async throws {
        let cluster = Cluster()
        let (a, b) = try await nodes(in: cluster)
        let client = Client()
        try await a.request(client) { $0[.count] = 1 }
        let fields: HTTPFields = [.cookie: try #require(client.cookie)]
        let cookie = client.cookie
        let read = { @Sendable () async throws -> Int? in
            let value = Value()
            _ = try await a.sessions.withReadOnlySession(fields, \HTTPFields.self) { session in
                value.set(session[.count])
                return [:]
            }
            return value.get()
        }
        // The watch is not fresh: the first reader compares its copy with the store.
        cluster.clock.advance(by: .milliseconds(600))
        let hold = a.store.next(.get, on: "v/").isHeld()
        let first = Task { try await read() }
        await hold.waitUntilHeld()
        let contender = Task { try await b.request(Client(), cookie: cookie) { $0[.count] } }
        while b.store.count(.put, on: "w/") == 0 { await Task.yield() }
        await a.poll()
        let second = Task { try await read() }
        while a.sessions.coherence.clusterWaits.count == 0 { await Task.yield() }
        // What it compares with is gone: it has to load.
        try await cluster.store.lose("v/")
        let start = cluster.clock.monotonicNanoseconds()
        try await cluster.whilePolling([a, b]) {
            hold.release()
            let values = try await (first.value, second.value, contender.value)
            #expect(values == (1, 1, 1))
        }
        // Sooner than by the end of a's lease, for it gives no sign of life here.
        #expect(cluster.clock.monotonicNanoseconds() - start < Duration.seconds(2).nanoseconds)
    }
}

private final class Value: Sendable {
    private let value = Locked<Int?>(nil)
    func set(_ new: Int?) { value.withLock { $0 = new } }
    func get() -> Int? { value.withLock { $0 } }
}
