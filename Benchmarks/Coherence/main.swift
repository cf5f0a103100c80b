import Limpet
import LimpetTesting

#if canImport(Glibc)
    import Glibc
#elseif canImport(Darwin)
    import Darwin
#endif

// What it costs to keep many memories true, with a real memcached: `README.md` tells what is measured and holds the last figures.
// `BenchmarkCoherence operations|takeover|drop|handover|watch`: one of them, with a memcached of its own, since the nodes of one would still
// deal with what those of another have left.

let wanted = CommandLine.arguments.dropFirst().first ?? ""
let clock = ContinuousClock()
let memcached = try await MemcachedServer.start("-m", "512")

/// Runs nodes as long as the body.
func running(_ nodes: Node..., body: () async throws -> Void) async throws {
    try await withThrowingTaskGroup { group in
        for node in nodes { group.addTask { try await node.sessions.run() } }
        try await body()
        group.cancelAll()
    }
}

func milliseconds(_ duration: Duration) -> String {
    let hundredths = Int((duration / .microseconds(10)).rounded())
    return "\(hundredths / 100).\(hundredths % 100 < 10 ? "0" : "")\(hundredths % 100) ms"
}

func report(_ name: String, _ times: [Duration]) {
    let sorted = times.sorted()
    print(
        "\(name): \(times.count) times, median \(milliseconds(sorted[times.count / 2])),",
        "99 % \(milliseconds(sorted[times.count * 99 / 100])), maximum \(milliseconds(sorted[times.count - 1]))")
}

// MARK: Operations of a request

/// How often each sequence of calls was seen.
func report(_ name: String, _ calls: [Calls]) {
    var counts: [String: Int] = [:]
    for call in calls { counts[call.text, default: 0] += 1 }
    for (text, count) in counts.sorted(by: { $0.value > $1.value }) { print("\(name): \(count) × \(text)") }
}

let rounds = 100

func measureOperations() async throws {
    let (a, b) = (try Node("a", memcached: memcached.address), try Node("b", memcached: memcached.address))
    try await running(a, b) {
        var client = Client()
        report("sticky, create", [try await a.write(&client)])
        var written = 1
        try await a.waitForTokens(written)
        // The first request may come before the first poll: it verifies.
        while try await a.request(&client).text != "–" {}
        var calls: [Calls] = []
        for _ in 0..<rounds { calls.append(try await a.request(&client)) }
        report("sticky, read", calls)
        calls = []
        for _ in 0..<rounds {
            calls.append(try await a.write(&client))
            written += 1
            try await a.waitForTokens(written)
        }
        report("sticky, commit", calls)
        let behind = a.store.readBehind.withLock { $0 }
        print("sticky, behind the answers: \(behind.records) records in \(behind.calls) reads")
        calls = []
        for _ in 0..<rounds { calls.append(try await a.write(&client)) }
        report("sticky, commit right behind a commit", calls)
        calls = []
        for _ in 0..<rounds {
            var client = Client()
            try await a.write(&client)
            calls.append(try await b.request(&client))
        }
        report("sticky, takeover", calls)
        calls = []
        for _ in 0..<rounds {
            var client = Client()
            try await a.write(&client)
            try await b.request(&client)
            calls.append(try await a.request(&client))
        }
        report("sticky, takeover back before the first node's watch has dropped its copy", calls)
        report("sticky, log-in", [try await a.request(&client) { $0.rotateID() }])
        report("sticky, log-out", [try await a.request(&client) { $0.invalidate() }])
    }
    let (c, d) = (
        try Node("c", memcached: memcached.address, mode: .roaming),
        try Node("d", memcached: memcached.address, mode: .roaming)
    )
    try await running(c, d) {
        var client = Client()
        try await c.write(&client)
        try await c.waitForTokens(1)
        var calls: [Calls] = []
        for _ in 0..<rounds { calls.append(try await c.request(&client)) }
        report("roaming, read", calls)
        calls = []
        for round in 0..<rounds {
            calls.append(try await c.write(&client))
            try await c.waitForTokens(2 + round)
        }
        report("roaming, commit", calls)
        calls = []
        var reads: [Calls] = []
        for round in 0..<rounds {
            let (reader, writer) = round % 2 == 0 ? (d, c) : (c, d)
            reads.append(try await reader.request(&client))
            calls.append(try await reader.write(&client))
            reads.append(try await writer.request(&client))
        }
        report("roaming, read of what another node wrote", reads)
        report("roaming, commit on another node than the last", calls)
    }
}

// MARK: Takeovers

/// The first nodes of a cluster wait for others before they serve.
func beginCluster(_ a: Node, _ b: Node) async throws {
    var first = Client()
    try await a.write(&first)
    try await b.request(&first)
}

func measureTakeovers() async throws {
    let (a, b) = (try Node("a", memcached: memcached.address), try Node("b", memcached: memcached.address))
    try await running(a, b) {
        try await beginCluster(a, b)
        var times: [Duration] = []
        for _ in 0..<1000 {
            var client = Client()
            try await a.write(&client)
            let start = clock.now
            try await b.request(&client)
            times.append(clock.now - start)
        }
        report("takeover, one at a time", times)
    }
}

func measureDrops() async throws {
    let (a, b) = (try Node("a", memcached: memcached.address), try Node("b", memcached: memcached.address))
    try await running(a, b) {
        try await beginCluster(a, b)
        var times: [Duration] = []
        for _ in 0..<100 {
            var client = Client()
            try await a.write(&client)
            // Any moment between two polls.
            try await Task.sleep(for: .milliseconds(.random(in: 0..<250)))
            let before = a.sessions.statistics.staleCopiesDropped
            let start = clock.now
            try await b.request(&client)
            while a.sessions.statistics.staleCopiesDropped == before { try await Task.sleep(for: .microseconds(200)) }
            times.append(clock.now - start)
        }
        report("from a takeover's request to the end of the stale copy", times)
    }
}

// MARK: The cluster's lock

func measureHandovers() async throws {
    let (a, b) = (
        try Node("a", memcached: memcached.address, lock: .cluster),
        try Node("b", memcached: memcached.address, lock: .cluster)
    )
    try await running(a, b) {
        var client = Client()
        try await a.write(&client)
        try await b.write(&client)
        var times: [Duration] = []
        for round in 0..<200 {
            // Any moment between two polls.
            try await Task.sleep(for: .milliseconds(.random(in: 0..<250)))
            let node = round % 2 == 0 ? a : b
            let start = clock.now
            try await node.write(&client)
            times.append(clock.now - start)
        }
        report("a request on the other node, which has the session's lock", times)
        times = []
        for _ in 0..<1000 {
            let start = clock.now
            try await b.write(&client)
            times.append(clock.now - start)
        }
        report("a request on the same node", times)
    }
    // Both want it all the time.
    let (c, d) = (
        try Node("c", memcached: memcached.address, lock: .cluster),
        try Node("d", memcached: memcached.address, lock: .cluster)
    )
    try await running(c, d) {
        var first = Client()
        try await c.write(&first)
        try await d.write(&first)
        let client = first
        let end = ContinuousClock.now + .seconds(20)
        let times = try await withThrowingTaskGroup(of: [Duration].self) { group in
            for node in [c, d, c, d] { group.addTask { try await node.keepWriting(client, until: end) } }
            return try await group.reduce(into: []) { $0 += $1 }
        }
        report("two clients on each of two nodes, for 20 s, all in one session", times)
        let handed = c.sessions.statistics.locksHandedOver + d.sessions.statistics.locksHandedOver
        print("handed over \(handed) times")
    }
}

// MARK: The watch

func processorTime() -> Duration {
    var usage = rusage()
    #if canImport(Glibc)
        let status = getrusage(__rusage_who_t(RUSAGE_SELF.rawValue), &usage)
    #else
        let status = getrusage(RUSAGE_SELF, &usage)
    #endif
    precondition(status == 0, "the system does not tell processor time")
    return [usage.ru_utime, usage.ru_stime].reduce(.zero) {
        $0 + .seconds(Int64($1.tv_sec)) + .microseconds(Int64($1.tv_usec))
    }
}

func measureWatch() async throws {
    for count in [0, 100_000] {
        let a = try Node("a", memcached: memcached.address)
        try await running(a) {
            try await withThrowingTaskGroup { group in
                for _ in 0..<64 {
                    group.addTask {
                        for _ in 0..<count / 64 {
                            var client = Client()
                            try await a.write(&client)
                        }
                    }
                }
                try await group.waitForAll()
            }
            // Until what the writes have left to do is done: the lists of sessions for whoever buries this node. A heartbeat every
            // two and a half seconds goes on.
            var puts: Int
            repeat {
                puts = a.sessions.statistics.backgroundStoreOperations.put
                try await Task.sleep(for: .seconds(6))
            } while a.sessions.statistics.backgroundStoreOperations.put > puts + 3
            let before = a.sessions.statistics
            let processorBefore = processorTime()
            let start = clock.now
            try await Task.sleep(for: .seconds(30))
            let seconds = (clock.now - start) / .seconds(1)
            let share = (processorTime() - processorBefore) / .seconds(1) / seconds
            let after = a.sessions.statistics
            let rate = Double(after.backgroundStoreOperations.total - before.backgroundStoreOperations.total) / seconds
            print(
                "watch, \(after.sessionsInMemory) sessions, nothing changing: \((rate * 10).rounded() / 10) operations/s,",
                "\((share * 100_000).rounded() / 1000) % of a core, failed polls \(after.failedPolls)")
        }
    }
}

switch wanted {
case "operations": try await measureOperations()
case "takeover": try await measureTakeovers()
case "drop": try await measureDrops()
case "handover": try await measureHandovers()
case "watch": try await measureWatch()
default: fatalError("usage: BenchmarkCoherence operations|takeover|drop|handover|watch")
}
