import LimpetTesting
import Testing

@testable import Limpet

/// Each poll reads the directory of nodes, too: what changes there is known a poll later, without waiting for a heartbeat.
struct DirectoryWatchTests {
    private let cluster = Cluster()

    /// Nodes that have joined and know each other.
    private func members(_ names: String...) async throws -> [Node] {
        var nodes: [Node] = []
        for name in names { nodes.append(try await cluster.member(name)) }
        for node in nodes { await node.poll() }
        return nodes
    }

    /// The others that a node knows to be alive, without asking now.
    private func known(_ node: Node, sourceLocation: SourceLocation = #_sourceLocation) async throws -> [String] {
        let asked = node.store.calls.count
        let others = try await node.membership.othersAlive()
        #expect(node.store.calls.count == asked, sourceLocation: sourceLocation)
        return others
    }

    private func names(_ node: Node) async throws -> [String] {
        try await node.sessions.cluster.nodes().map { "\($0.name) \($0.state)" }
    }

    @Test func `a node that has just joined is known to the others after one poll`() async throws {
        let a = try await members("a")[0]
        _ = try await cluster.member("b")
        #expect(try await known(a) == [])
        await a.poll()
        #expect(try await known(a) == ["b"])
        // Once is enough.
        a.store.forgetCalls()
        await a.poll()
        #expect(a.store.shortCalls == ["get c b g m"])
    }

    @Test(arguments: [[0, 1, 2], [0, 2, 1], [2, 1, 0]])
    func `a directory that was evicted is whole again after one poll of each, with the newest node`(order: [Int])
        async throws
    {
        var nodes = try await members("a", "b")
        // a and b have not heard of c yet.
        nodes.append(try await cluster.member("c"))
        try await cluster.store.lose("m")
        for index in order { await nodes[index].poll() }
        #expect(try await names(nodes[0]) == ["a alive", "b alive", "c alive"])
        for node in nodes { await node.poll() }
        #expect(try await known(nodes[0]) == ["b", "c"])
        #expect(try await known(nodes[1]) == ["a", "c"])
        #expect(try await known(nodes[2]) == ["a", "b"])
    }

    @Test func `a directory that cannot be read is looked at when it changes, and not with every poll`() async throws {
        let a = try await members("a")[0]
        let directory = a.sessions.coherence.names.directory
        for damaged: [UInt8] in [[0xFF], [0xFF, 0xFF]] {
            _ = try await cluster.store.put(damaged, for: directory, timeToLive: .seconds(3600), if: .always)
            a.store.forgetCalls()
            await a.poll()
            #expect(a.store.shortCalls == ["get c b g m", "get m g n"])
            a.store.forgetCalls()
            for _ in 0..<3 { await a.poll() }
            #expect(a.store.shortCalls == Array(repeating: "get c b g m", count: 3))
        }
        // Once somebody has removed it, it is whole again.
        try await cluster.store.lose("m")
        await a.poll()
        #expect(try await names(a) == ["a alive"])
    }

    @Test func `a node that has left does not come back with a last poll`() async throws {
        let nodes = try await members("a", "b")
        try await nodes[1].membership.leave()
        // The directory has changed since, and then all is lost.
        _ = try await cluster.member("c")
        await nodes[1].poll()
        #expect(try await names(nodes[0]) == ["a alive", "c alive"])
        await nodes[0].poll()
        try await cluster.store.loseMemory()
        await nodes[1].poll()
        #expect(try await names(nodes[0]) == [])
        await nodes[0].poll()
        #expect(try await names(nodes[0]) == ["a alive", "c lapsed"])
    }
}
