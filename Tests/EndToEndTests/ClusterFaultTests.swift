import Foundation
import LimpetTesting
import Testing

/// Nodes and memcached servers that die, sleep and come back, under the load of many clients; the history of each is judged
/// as those of the simulator are.
@Suite(.serialized, .timeLimit(.minutes(2)))
struct ClusterFaultTests {
    private typealias Plan = ClusterClients.Plan

    private func startNodes(
        _ names: [String], _ memcached: [MemcachedServer], session: [String: Any] = [:]
    ) throws -> [String: NodeProcess] {
        Dictionary(
            uniqueKeysWithValues: try names.map { name in
                (name, try NodeProcess(name, memcached: memcached.map(\.port), session: session))
            })
    }

    /// Clients that are alone in their sessions, two devices with one session, and two tabs of a browser, with homes in turn.
    private func mixedClients(on nodes: [String], alone: Int, devices: Int, tabs: Int) -> [Plan] {
        var plans: [Plan] = []
        for session in 0..<(alone + devices + tabs) {
            let home = nodes[session % nodes.count]
            plans.append(Plan(session: session, jar: plans.count, home: home))
            if session >= alone {
                let isTab = session >= alone + devices
                plans.append(Plan(session: session, jar: isTab ? plans.count - 1 : plans.count, home: home))
            }
        }
        return plans
    }

    private func expectNoViolation(
        _ clients: ClusterClients, crashes: [(node: String, time: UInt64)] = [], isLinearizable: Bool = false,
        sourceLocation: SourceLocation = #_sourceLocation
    ) {
        let history = ClientHistory(requests: clients.requests, crashes: crashes, isLinearizable: isLinearizable)
        let violations = history.violations()
        let text = violations.prefix(5).joined(separator: "\n")
        #expect(
            violations.isEmpty, "\(violations.count) violations in \(clients.requests.count) requests:\n\(text)",
            sourceLocation: sourceLocation)
    }

    /// Waits until the nodes have sent what they kept while a store was gone: until then it is theirs alone (R25), and nobody
    /// else's to read. Each client has written since the store is back, so that a node that does not know that keeps something.
    private func waitUntilDelivered(_ nodes: some Collection<NodeProcess>) async throws {
        let deadline = ContinuousClock.now + .seconds(20)
        for node in nodes {
            while try await node.statistics().unsentSessions > 0 {
                try #require(ContinuousClock.now < deadline, "\(node.name) does not deliver")
                try await Task.sleep(for: .milliseconds(20))
            }
        }
    }

    @Test func `kill -9 of a home under load loses nothing, and its restart brings nothing old back`() async throws {
        let memcached = try await MemcachedServer.start()
        var nodes = try startNodes(["a", "b", "c"], [memcached])
        let plans = mixedClients(on: ["a", "b", "c"], alone: 6, devices: 3, tabs: 2)
        let clients = try await ClusterClients(plans, nodes: Array(nodes.values), strays: 0.1, ends: 0.05)
        try await clients.waitForAnswers(300, "before the crash")
        var crashes: [(node: String, time: UInt64)] = []
        for name in ["a", "b"] {
            guard let node = nodes[name] else { continue }
            let isHome = { (request: ClientRequest) in request.node == name && request.isStored }
            try await clients.waitForAnswers(10, "for a write at home", of: isHome)
            node.killHard()
            let crash = ClusterClients.now
            crashes.append((name, crash))
            try await clients.wait("to write elsewhere", from: plans.indices, since: crash, \.isStored)
            nodes[name] = try NodeProcess(name, memcached: [memcached.port], port: node.port)
            try await clients.waitForAnswers(100, "from the node that is back") { $0.node == name }
        }
        try await clients.finish()
        expectNoViolation(clients, crashes: crashes)
    }

    @Test func `a home that slept while its clients went elsewhere serves nothing from before`() async throws {
        let memcached = try await MemcachedServer.start()
        let nodes = try startNodes(["a", "b"], [memcached])
        let sleeper = try #require(nodes["a"])
        // In each session one client that goes elsewhere, and one that has the old cookie and asks the sleeper alone.
        let plans = (0..<8).flatMap { session in
            [
                Plan(session: session, jar: 2 * session, home: "a"),
                Plan(session: session, jar: 2 * session + 1, home: "a", isIdle: true),
            ]
        }
        let active = plans.indices.filter { !plans[$0].isIdle }
        let idle = plans.indices.filter { plans[$0].isIdle }
        let clients = try await ClusterClients(plans, nodes: Array(nodes.values), patience: 0.5)
        try await clients.waitForAnswers(200, "before the node sleeps")
        try sleeper.pause()
        let pause = ClusterClients.now
        try await clients.wait("to write elsewhere", from: active, since: pause, \.isStored)
        let moved = ClusterClients.now
        // What is read from now on may not be older than the writes that came before this.
        let later = moved + UInt64(ClientHistory(requests: []).staleness / .nanoseconds(1))
        try await clients.wait("for later writes", from: active, since: later, \.isStored)
        // These are on their way when the node wakes up: it answers them before its first poll can end.
        try await clients.letRead(idle)
        let asked = ClusterClients.now
        try sleeper.resume()
        try await clients.wait("for the node that woke up", from: idle, since: later)
        let answers = clients.requests.filter { idle.contains($0.client) }
        #expect(answers.count == idle.count)
        #expect(answers.allSatisfy { $0.node == "a" && $0.begin < asked && $0.isAnswered })
        try clients.stray(0.2)
        try await clients.waitForAnswers(200, "after the node slept")
        try await clients.finish()
        expectNoViolation(clients)
    }

    @Test func `a memcached that is killed and comes back empty logs nobody out`() async throws {
        let memcached = try await MemcachedServer.start()
        let nodes = try startNodes(["a", "b", "c"], [memcached])
        // Nobody strays before: what a session that has just moved can lose with the store's memory is another story.
        let plans = mixedClients(on: ["a", "b", "c"], alone: 12, devices: 0, tabs: 3)
        let clients = try await ClusterClients(plans, nodes: Array(nodes.values), ends: 0.02)
        try await clients.waitForAnswers(300, "before the store is lost")
        try await memcached.kill()
        let loss = ClusterClients.now
        // From an answer of which kind soever: a client that was refused asks again.
        try await clients.wait("while the store is gone", for: 5, from: plans.indices, since: loss) { _ in true }
        try await memcached.restart()
        let back = ClusterClients.now
        try await clients.wait("to write again", from: plans.indices, since: back, \.isStored)
        try await waitUntilDelivered(nodes.values)
        try clients.stray(0.3)
        try await clients.waitForAnswers(300, "on all nodes")
        try await clients.finish()
        #expect(clients.requests.contains { $0.begin > loss && $0.end < back })
        expectNoViolation(clients)
    }

    // `store.whenUnavailable` is `local` by default.
    @Test func `while memcached is gone, clients that stay at home write on, and all that they were told is kept`()
        async throws
    {
        let memcached = try await MemcachedServer.start()
        let nodes = try startNodes(["a", "b", "c"], [memcached])
        let homes = nodes.values.sorted { $0.name < $1.name }
        // Nobody strays: without the store, a session is at home or nowhere.
        let plans = mixedClients(on: homes.map(\.name), alone: 27, devices: 0, tabs: 3)
        let clients = try await ClusterClients(plans, nodes: homes, pause: 0.03)
        // Beside them visitors who write once while the store is gone, and not again: what others read of them later was kept.
        let visitors = homes.map { _ in HTTPClient() }
        for (visitor, home) in zip(visitors, homes) {
            let answer = try await visitor.request("PUT", port: home.port, "/attributes/x", body: "before")
            #expect(answer.status == 200)
        }
        try await clients.waitForAnswers(300, "before the store is lost")
        try await memcached.kill()
        let loss = ClusterClients.now
        // The first write on each of a node's four connections may have been sent before the end: its session waits for the store. So it
        // is not all clients that write on, but most, and some of each node.
        try await clients.wait("to write without the store") { all in
            let stored = all.requests.filter { $0.begin > loss && $0.isStored }
            let counts = Dictionary(grouping: stored, by: \.client).mapValues(\.count)
            return counts.values.count { $0 >= 10 } > plans.count / 2
                && Set(stored.map(\.node)).count == homes.count
        }
        for (visitor, home) in zip(visitors, homes) {
            let written = try await visitor.request("PUT", port: home.port, "/attributes/x", body: "meanwhile")
            #expect(written.status == 200)
            #expect(try written.json("previous") == "before")
            let read = try await visitor.request("GET", port: home.port, "/attributes/x")
            #expect(read.status == 200)
            #expect(try read.json("value") == "meanwhile")
            #expect(try await home.statistics().unsentSessions > 0)
        }
        try await memcached.restart()
        let back = ClusterClients.now
        // What was kept is delivered, by clients that come first or without any.
        for home in homes {
            while try await home.statistics().unsentSessions > 0 {}
            #expect(try await home.statistics().unsentDelivered > 0)
        }
        for (index, visitor) in visitors.enumerated() {
            let elsewhere = homes[(index + 1) % homes.count]
            let read = try await visitor.request("GET", port: elsewhere.port, "/attributes/x")
            #expect(read.status == 200)
            #expect(try read.json("value") == "meanwhile")
            #expect(visitor.route == elsewhere.name)
        }
        try await clients.wait("to write again", from: plans.indices, since: back, \.isStored)
        try clients.stray(0.5)
        try await clients.waitForAnswers(300, "on all nodes")
        try await clients.finish()
        expectNoViolation(clients)
    }

    @Test func `sessions whose home lives survive a memcached that has no room for them`() async throws {
        let memcached = try await MemcachedServer.start("-m", "2")
        let nodes = try startNodes(["a", "b"], [memcached])
        let plans = (0..<120).map { Plan(session: $0, jar: $0, home: $0 % 2 == 0 ? "a" : "b") }
        let clients = try await ClusterClients(plans, nodes: Array(nodes.values), pause: 0.3, padding: 20_000)
        try await clients.wait("for evictions") { _ in try evictions(memcached) > 300 }
        let now = ClusterClients.now
        try await clients.wait("to write", from: plans.indices, since: now, \.isStored)
        try await clients.finish()
        expectNoViolation(clients)
    }

    @Test func `a client that strays is not logged out by an eviction, as long as its home lives`() async throws {
        let memcached = try await MemcachedServer.start("-m", "2")
        let nodes = try startNodes(["a", "b", "c"], [memcached])
        // No session with two devices: theirs move all the time, and what has moved within the last poll is another story.
        let plans = mixedClients(on: ["a", "b", "c"], alone: 12, devices: 0, tabs: 3)
        let clients = try await ClusterClients(plans, nodes: Array(nodes.values), pause: 0.1)
        for _ in 0..<3 {
            try clients.stray(0.2)
            try await clients.waitForAnswers(200, "while they stray")
            try clients.stray(0)
            // A session that moves is with its new home alone after two polls.
            let later = ClusterClients.now + 500_000_000
            try await clients.wait("to stay where they are", from: plans.indices, since: later)
            try evictEverything(memcached)
            try clients.stray(0.5)
            try await clients.waitForAnswers(200, "after the eviction")
        }
        try await clients.finish()
        var republished = 0
        for node in nodes.values { republished += try await node.statistics().republished }
        #expect(republished > 0)
        expectNoViolation(clients)
    }

    /// Fills a memory of two megabytes with values of all sizes that sessions and nodes have, so that theirs are evicted.
    private func evictEverything(_ memcached: MemcachedServer) throws {
        var bytes = 8
        while bytes < 600 {
            let value = String(repeating: "x", count: bytes)
            // A slab has a megabyte; an item is some 60 bytes larger than its value.
            let lines = (0..<(1_300_000 / (bytes + 60))).map {
                "set fill/\(bytes)/\($0) 0 0 \(bytes) noreply\r\n\(value)\r\n"
            }
            _ = try memcached.ask(lines.joined() + "version\r\n")
            bytes += bytes / 8 + 8
        }
    }

    private func evictions(_ memcached: MemcachedServer) throws -> Int {
        try Int(memcached.statistics()["evictions"] ?? "") ?? 0
    }

    @Test(arguments: [0, 1])
    func `of two memcached servers one dies and is back empty: the other one's sessions never notice`(dies: Int)
        async throws
    {
        let servers = [try await MemcachedServer.start(), try await MemcachedServer.start()]
        let nodes = try startNodes(["a", "b", "c"], servers)
        let plans = mixedClients(on: ["a", "b", "c"], alone: 16, devices: 0, tabs: 0)
        let clients = try await ClusterClients(plans, nodes: Array(nodes.values))
        try await clients.waitForAnswers(300, "before one server dies")
        let keys = try servers[1 - dies].ask("lru_crawler metadump all\r\n", until: "END\r\n")
        let unharmed = Set(
            clients.requests.filter { $0.key.map(keys.contains) ?? false }.map(\.client))
        let harmed = Set(plans.indices).subtracting(unharmed)
        try #require(unharmed.count > 1 && harmed.count > 1)
        try await servers[dies].kill()
        let loss = ClusterClients.now
        try await clients.wait("while a server is gone", for: 20, from: unharmed, since: loss)
        try await clients.wait("while a server is gone", for: 5, from: harmed, since: loss) { _ in true }
        try await servers[dies].restart()
        let back = ClusterClients.now
        try await clients.wait("to write again", from: plans.indices, since: back, \.isStored)
        try await waitUntilDelivered(nodes.values)
        try clients.stray(0.3)
        try await clients.waitForAnswers(300, "on all nodes")
        try await clients.finish()
        let noticed = clients.requests.filter { unharmed.contains($0.client) && $0.begin < back && !$0.isAnswered }
        #expect(noticed.isEmpty)
        expectNoViolation(clients)
    }

    @Test func `without affinity each attribute is linearizable, also while a node dies`() async throws {
        let memcached = try await MemcachedServer.start()
        var nodes = try startNodes(["a", "b", "c"], [memcached], session: ["mode": "roaming"])
        let plans = mixedClients(on: ["a", "b", "c"], alone: 2, devices: 5, tabs: 3)
        let clients = try await ClusterClients(plans, nodes: Array(nodes.values), strays: 1)
        try await clients.waitForAnswers(400, "before the crash")
        let node = try #require(nodes["b"])
        node.killHard()
        let crash = ClusterClients.now
        try await clients.wait("to write elsewhere", from: plans.indices, since: crash, \.isStored)
        nodes["b"] = try NodeProcess("b", memcached: [memcached.port], port: node.port, session: ["mode": "roaming"])
        try await clients.waitForAnswers(100, "from the node that is back") { $0.node == "b" }
        try await clients.finish()
        expectNoViolation(clients, crashes: [("b", crash)], isLinearizable: true)
    }
}
