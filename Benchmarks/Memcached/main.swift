import Limpet
import LimpetMemcached
import LimpetTesting
import Logging

#if canImport(Glibc)
    import Glibc
#elseif canImport(Darwin)
    import Darwin
#endif

// What an operation of the store costs: operations a second, and processor time of this process (memcached is another
// one) for each, with 64 callers at a time and values of 1 KiB. `README.md` holds the last figures.

let callers = 64
let value = [UInt8](repeating: 0x61, count: 1024)
let rounds = 3

/// One load, run for about a second.
struct Load {
    let name: String
    /// How many operations of the store one call is.
    let operations: Int
    let store: MemcachedStore
    let call: @Sendable (MemcachedStore, Int) async throws -> Void
}

func key(_ caller: Int, _ name: String = "d") -> StoreKey {
    StoreKey("\(name)/\(caller)", placement: .group("group \(caller)"))
}

func processorMicroseconds() -> Int {
    var usage = rusage()
    #if canImport(Glibc)
        let status = getrusage(__rusage_who_t(RUSAGE_SELF.rawValue), &usage)
    #else
        let status = getrusage(RUSAGE_SELF, &usage)
    #endif
    precondition(status == 0, "the system does not tell processor time")
    let times = [usage.ru_utime, usage.ru_stime]
    return times.reduce(0) { $0 + Int($1.tv_sec) * 1_000_000 + Int($1.tv_usec) }
}

func measure(_ load: Load, callsOfCaller: Int) async throws -> (seconds: Double, microseconds: Int) {
    let clock = ContinuousClock()
    let processorBefore = processorMicroseconds()
    let start = clock.now
    try await withThrowingTaskGroup { group in
        for caller in 0..<callers {
            group.addTask { for _ in 0..<callsOfCaller { try await load.call(load.store, caller) } }
        }
        try await group.waitForAll()
    }
    return ((clock.now - start) / .seconds(1), processorMicroseconds() - processorBefore)
}

func report(_ load: Load) async throws {
    if CommandLine.arguments.count > 1, !load.name.contains(CommandLine.arguments[1]) { return }
    let trial = try await measure(load, callsOfCaller: 100)
    let calls = max(100, Int(100 / trial.seconds))
    var rates: [Int] = []
    var costs: [Double] = []
    let readsBefore = load.store.readCount
    for _ in 0..<rounds {
        let (seconds, microseconds) = try await measure(load, callsOfCaller: calls)
        let operations = Double(calls * callers * load.operations)
        rates.append(Int(operations / seconds))
        costs.append(Double(microseconds) / operations)
    }
    let reads = load.store.readCount - readsBefore
    let callsOfRead = Double(rounds * calls * callers) / Double(max(1, reads))
    let cost = costs.map { "\(($0 * 10).rounded() / 10)" }.joined(separator: " ")
    let together = reads == 0 ? "–" : "\((callsOfRead * 10).rounded() / 10)"
    print("| \(load.name) | \(rates.map(String.init).joined(separator: " ")) | \(cost) | \(together) |")
}

let server = try await MemcachedServer.start("-m", "64")
func makeStore(keysOfRead: Int, connections: Int = 4) throws -> MemcachedStore {
    var configuration = MemcachedConfiguration()
    configuration.servers = [server.address]
    configuration.connections = connections
    return try MemcachedStore(
        configuration: configuration, timeout: .seconds(5), logger: Logger(label: "benchmark"), keysOfRead: keysOfRead)
}

let batching = try makeStore(keysOfRead: MemcachedStore.keysOfRead)
for caller in 0..<callers {
    for number in 0..<32 {
        let name = number == 0 ? "d" : "d\(number)"
        _ = try await batching.put(value, for: key(caller, name), timeToLive: .seconds(3600), if: .always)
    }
}
let many = (0..<callers).map { caller in (0..<32).map { key(caller, $0 == 0 ? "d" : "d\($0)") } }

@Sendable func get(_ store: MemcachedStore, _ caller: Int) async throws {
    guard try await store.get([key(caller)])[0].get() != nil else { fatalError("a value is gone") }
}

@Sendable func getMany(_ store: MemcachedStore, _ caller: Int) async throws {
    for result in await store.get(many[caller]) {
        guard try result.get() != nil else { fatalError("a value is gone") }
    }
}

@Sendable func swap(_ store: MemcachedStore, _ caller: Int) async throws {
    guard let entry = try await store.get([key(caller)])[0].get() else { fatalError("a value is gone") }
    let result = try await store.put(
        value, for: key(caller), timeToLive: .seconds(3600), if: .unchanged(since: entry.token))
    guard result == .stored(nil) else { fatalError("a value was changed by somebody else") }
}

@Sendable func write(_ store: MemcachedStore, _ caller: Int) async throws {
    _ = try await store.put(value, for: key(caller), timeToLive: .seconds(3600), if: .always)
}

print("\(callers) callers, values of \(value.count) bytes, \(rounds) runs of each")
print("| load | operations a second | client CPU µs an operation | callers a read |")
print("| --- | --- | --- | --- |")
for connections in [1, 2, 4] {
    let together = try makeStore(keysOfRead: MemcachedStore.keysOfRead, connections: connections)
    let alone = try makeStore(keysOfRead: 1, connections: connections)
    let suffix = connections == 1 ? "1 connection" : "\(connections) connections"
    try await report(Load(name: "get, \(suffix)", operations: 1, store: together, call: get))
    try await report(Load(name: "get, not batched, \(suffix)", operations: 1, store: alone, call: get))
    try await report(Load(name: "multi-get of 32, a key, \(suffix)", operations: 32, store: together, call: getMany))
    try await report(Load(name: "get + compare-and-swap, \(suffix)", operations: 2, store: together, call: swap))
    try await report(Load(name: "put always, \(suffix)", operations: 1, store: together, call: write))
}
