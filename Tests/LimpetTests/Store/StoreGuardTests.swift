import LimpetTesting
import Logging
import Testing

@testable import Limpet

/// A server that does not answer is left alone, the others are not.
struct StoreGuardTests {
    private let clock = ManualClock()
    private let store: TwoServers
    private let statistics = SessionStatistics()
    private let log = LogLines()
    private let recoveries = EventLog()
    private let guarded: StoreGuard

    init() {
        store = TwoServers(clock: clock)
        guarded = StoreGuard(
            store, timeout: .milliseconds(250), clock: clock, statistics: statistics,
            logger: Logger(label: "test", factory: { [log] _ in log }),
            recovered: { [recoveries] in recoveries.add("recovered") })
    }

    private let zero = StoreKey("k", placement: .group("0"))
    private let one = StoreKey("k", placement: .group("1"))

    private func open(_ server: Int) async {
        for _ in 0..<3 {
            _ = await guarded.get([StoreKey("k", placement: .group("\(server)"))])
            clock.advance(by: .milliseconds(150))
        }
        #expect(!guarded.isAvailable(server: server))
        store.servers[server].forgetCalls()
    }

    @Test(arguments: [StoreError.Code.unavailable, .timeout, .connectionLost, .closed])
    func `a server that does not answer is not asked any more, and nothing counts as sent`(code: StoreError.Code) async
    {
        store.servers[0].every(.get).fails(code)
        await open(0)
        let error = await #expect(throws: StoreError.self) {
            try await guarded.put([1], for: zero, timeToLive: .seconds(1), if: .absent)
        }
        #expect(error?.code == .unavailable)
        #expect(error?.mayHaveTakenEffect == false)
        await #expect(throws: StoreError.self) { try await guarded.increment(zero) }
        await #expect(throws: StoreError.self) { try await guarded.touch(zero, timeToLive: .seconds(1)) }
        await #expect(throws: StoreError.self) { try await guarded.get(zero) }
        #expect(store.servers[0].calls.isEmpty)
        #expect(statistics.storeOutages.value == 1)
        #expect(statistics.storeCalls.gets.value == 3)
        #expect(statistics.storeCalls.puts.value == 0)
    }

    @Test(arguments: [StoreError.Code.tooLarge, .corrupt, .invalidKey, .outOfMemory])
    func `a server that answers with an error has answered`(code: StoreError.Code) async {
        store.servers[0].every().fails(code)
        for _ in 0..<5 {
            await #expect(throws: StoreError.self) { try await guarded.get(zero) }
            await #expect(throws: StoreError.self) {
                try await guarded.put([1], for: zero, timeToLive: .seconds(1), if: .absent)
            }
            clock.advance(by: .milliseconds(250))
        }
        #expect(guarded.isAvailable(server: 0))
        #expect(store.servers[0].calls.count == 10)
    }

    @Test func `a get over several servers fails only the keys of the one that is down`() async throws {
        store.servers[0].every(.get).fails(.timeout)
        await open(0)
        #expect(guarded.isAvailable(server: 1))
        _ = try await guarded.put([7], for: one, timeToLive: .seconds(60), if: .absent)
        let results = await guarded.get([one, zero, one, StoreKey("other", placement: .group("1"))])
        #expect(try results[0].get()?.bytes == [7])
        #expect(throws: StoreError.self) { try results[1].get() }
        #expect(try results[2].get()?.bytes == [7])
        #expect(try results[3].get() == nil)
        #expect(store.servers[0].calls.isEmpty)
    }

    @Test func `a get over several servers opens the breaker of the one that fails`() async throws {
        store.servers[0].every(.get).fails(.timeout)
        for _ in 0..<3 {
            let results = await guarded.get([zero, one])
            #expect(throws: StoreError.self) { try results[0].get() }
            #expect(try results[1].get() == nil)
            clock.advance(by: .milliseconds(150))
        }
        #expect(!guarded.isAvailable(server: 0))
        #expect(guarded.isAvailable(server: 1))
    }

    @Test func `a probe is made at any time, and its answer ends the outage`() async throws {
        store.servers[0].every(.get).fails(.unavailable)
        await open(0)
        _ = await guarded.get([zero], isProbe: true)
        #expect(store.servers[0].calls.count == 1)
        #expect(!guarded.isAvailable(server: 0))
        store.servers[0].forgetScripts()
        #expect(try await guarded.get([zero], isProbe: true)[0].get() == nil)
        #expect(guarded.isAvailable(server: 0))
        #expect(recoveries.all == ["recovered"])
        _ = try await guarded.put([1], for: zero, timeToLive: .seconds(1), if: .absent)
    }

    @Test func `a write that is due to find out asks with a read first`() async throws {
        store.servers[0].every().fails(.timeout, mayHaveTakenEffect: true)
        await open(0)
        clock.advance(by: .milliseconds(250))
        let error = await #expect(throws: StoreError.self) {
            try await guarded.put([1], for: zero, timeToLive: .seconds(60), if: .absent)
        }
        #expect(error?.mayHaveTakenEffect == false)
        #expect(store.servers[0].shortCalls == ["get k"])
        store.servers[0].forgetScripts()
        store.servers[0].forgetCalls()
        clock.advance(by: .seconds(4))
        _ = try await guarded.put([1], for: zero, timeToLive: .seconds(60), if: .absent)
        #expect(store.servers[0].shortCalls == ["get k", "put k absent"])
    }

    @Test func `the log has one line for the outage and one for its end`() async throws {
        store.servers[0].every().fails(.unavailable)
        await open(0)
        for _ in 0..<20 {
            _ = await guarded.get([zero])
            clock.advance(by: .milliseconds(500))
        }
        #expect(log.all == ["warning: A server of the store does not answer and is left alone for a while"])
        store.servers[0].forgetScripts()
        clock.advance(by: .seconds(4))
        _ = try await guarded.get(zero)
        #expect(log.all.count == 2)
        #expect(log.all.last == "notice: A server of the store answers again")
    }

    @Test func `unknown outcomes are counted, and the answers that settle them`() async throws {
        store.servers[0].next(.put).failsAfterEffect()
        await #expect(throws: StoreError.self) {
            try await guarded.put([1], for: zero, timeToLive: .seconds(60), if: .absent)
        }
        #expect(statistics.unknownOutcomes.value == 1)
        #expect(statistics.unknownOutcomesResolved.value == 0)
        #expect(try await guarded.get(zero)?.bytes == [1])
        #expect(statistics.unknownOutcomesResolved.value == 1)
        _ = try await guarded.get(zero)
        #expect(statistics.unknownOutcomesResolved.value == 1)
    }

    @Test func `a put that was sent once may have happened, whatever becomes of its repetition`() async throws {
        store.servers[0].next(.put).failsAfterEffect()
        store.servers[0].next(.put, skipping: 1).fails(.unavailable)
        let error = await #expect(throws: StoreError.self) {
            try await guarded.putIfAbsent([1], for: zero, timeToLive: .seconds(60))
        }
        #expect(error?.mayHaveTakenEffect == true)
    }
}

/// Two servers, each with memory and troubles of its own. A group lives on the server that its first byte tells.
final class TwoServers: SharedStore {
    let servers: [ScriptedStore]

    init(clock: ManualClock) {
        servers = (0..<2).map { _ in ScriptedStore(MemoryStore(clock: clock)) }
    }

    var serverCount: Int { servers.count }
    func server(ofGroup group: String) -> Int { Int(group.utf8.first ?? 0) % servers.count }

    private func server(of key: StoreKey) -> ScriptedStore {
        switch key.placement {
        case .group(let group): servers[server(ofGroup: group)]
        case .server(let number): servers[number]
        }
    }

    /// Each of the two stores has one server, number 0.
    private func own(_ key: StoreKey) -> StoreKey {
        if case .server = key.placement { StoreKey(key.name, placement: .server(0)) } else { key }
    }

    func get(_ keys: [StoreKey]) async -> [Result<StoreEntry?, StoreError>] {
        var results = [Result<StoreEntry?, StoreError>](repeating: .success(nil), count: keys.count)
        for (number, server) in servers.enumerated() {
            let indices = keys.indices.filter { self.server(of: keys[$0]) === servers[number] }
            if indices.isEmpty { continue }
            for (index, result) in zip(indices, await server.get(indices.map { own(keys[$0]) })) {
                results[index] = result
            }
        }
        return results
    }

    func put(
        _ bytes: [UInt8], for key: StoreKey, timeToLive: Duration, if condition: StoreCondition
    ) async throws(StoreError) -> StorePut {
        try await server(of: key).put(bytes, for: own(key), timeToLive: timeToLive, if: condition)
    }

    func increment(_ keys: [StoreKey], by amount: UInt64) async throws(StoreError) -> [UInt64?] {
        try await server(of: keys[0]).increment(keys.map(own), by: amount)
    }

    func touch(_ key: StoreKey, timeToLive: Duration) async throws(StoreError) -> Bool {
        try await server(of: key).touch(own(key), timeToLive: timeToLive)
    }

    func delete(_ key: StoreKey, ifUnchangedSince token: StoreToken?) async throws(StoreError) -> StoreDelete {
        try await server(of: key).delete(own(key), ifUnchangedSince: token)
    }
}

/// A log that a test can read: level and message.
final class LogLines: LogHandler, Sendable {
    private let lines = Locked<[String]>([])
    var all: [String] { lines.withLock { $0 } }

    func log(event: LogEvent) {
        lines.withLock { $0.append("\(event.level): \(event.message)") }
    }

    var logLevel: Logger.Level {
        get { .notice }
        set {}
    }
    var metadata: Logger.Metadata {
        get { [:] }
        set {}
    }
    subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { nil }
        set {}
    }
}
