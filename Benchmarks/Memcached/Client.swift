import Limpet
import LimpetMemcached
import LimpetServer
import Logging
import NIOCore
import NIOPosix

#if canImport(Glibc)
    import Glibc
#elseif canImport(Darwin)
    import Darwin
#endif

/// What callers do, again and again, each with a key of its own.
enum Load: Sendable, CaseIterable {
    case get, put, swap, many

    static let all = allCases

    var name: String { "\(self)" }

    /// How many operations of the store one call is, where the store tells the token of what it stored.
    var operations: Int { self == .many ? 32 : 1 }
}

struct Measurement {
    /// Operations a second.
    let rate: Double
    /// Processor time of this process for an operation.
    let microseconds: Double
    let microsecondsOfCall: Double
}

/// A transport under test, and callers of it.
struct Client: Sendable {
    static let value = [UInt8](repeating: 0x61, count: 1024)
    static let callers = 64

    let name: String
    let store: MemcachedStore
    /// Where the callers run; `nil`: on Swift's own threads.
    let eventLoop: (any EventLoop)?
    private let executor: EventLoopTaskExecutor?

    init(_ name: String, _ store: MemcachedStore, on eventLoop: (any EventLoop)?) {
        self.name = name
        self.store = store
        self.eventLoop = eventLoop
        executor = eventLoop.map { EventLoopTaskExecutor($0) }
    }

    func key(_ caller: Int, _ number: Int = 0) -> StoreKey {
        StoreKey("d\(number)/\(caller)", placement: .group("group \(caller)"))
    }

    /// Runs a load for about a second, after a trial.
    func measure(_ load: Load, callers: Int = callers) async throws -> Measurement {
        let trial = try await measure(load, callers: callers, calls: 200)
        let calls = max(200, Int(trial.rate / Double(load.operations * callers)))
        return try await measure(load, callers: callers, calls: calls)
    }

    func measure(_ load: Load, callers: Int, calls: Int) async throws -> Measurement {
        let clock = ContinuousClock()
        let before = processorMicroseconds()
        let start = clock.now
        try await withThrowingTaskGroup { group in
            for caller in 0..<callers {
                group.addTask(executorPreference: executor) { try await call(load, caller, calls) }
            }
            try await group.waitForAll()
        }
        let seconds = (clock.now - start) / .seconds(1)
        let operations = Double(callers * calls * load.operations)
        return Measurement(
            rate: operations / seconds, microseconds: Double(processorMicroseconds() - before) / operations,
            microsecondsOfCall: seconds * 1e6 / Double(callers * calls))
    }

    private func call(_ load: Load, _ caller: Int, _ calls: Int) async throws {
        let key = key(caller)
        switch load {
        case .get:
            for _ in 0..<calls {
                guard try await store.get([key])[0].get() != nil else { fatalError("a value is gone") }
            }
        case .put:
            for _ in 0..<calls {
                _ = try await store.put(Self.value, for: key, timeToLive: .seconds(3600), if: .always)
            }
        case .swap:
            var token: StoreToken?
            for _ in 0..<calls { token = try await swap(key, token) }
        case .many:
            let keys = (0..<32).map { self.key(caller, $0) }
            for _ in 0..<calls {
                for result in await store.get(keys) {
                    guard try result.get() != nil else { fatalError("a value is gone") }
                }
            }
        }
    }

    /// Writes a value if it is unchanged: what a commit does. The token is read where the store did not tell it.
    private func swap(_ key: StoreKey, _ known: StoreToken?) async throws -> StoreToken? {
        var token = known
        if token == nil { token = try await store.get([key])[0].get()?.token }
        guard let token else { fatalError("a value is gone") }
        let answer = try await store.put(
            Self.value, for: key, timeToLive: .seconds(3600), if: .unchanged(since: token))
        guard case .stored(let new) = answer else { fatalError("a value was changed by somebody else") }
        return new
    }

    /// Begins swaps at a steady rate, and measures each from when it should have begun.
    ///
    /// - Returns: microseconds, in order.
    func times(rate: Double, seconds: Double) async throws -> [Double] {
        let callers = 1024
        for caller in 0..<callers {
            _ = try await store.put(Self.value, for: key(caller), timeToLive: .seconds(3600), if: .always)
        }
        let schedule = Schedule(rate: rate, count: Int(rate * seconds))
        let times = try await withThrowingTaskGroup(of: [Double].self) { group in
            for caller in 0..<callers {
                group.addTask(executorPreference: executor) {
                    var times: [Double] = []
                    var token: StoreToken?
                    while let due = await schedule.next() {
                        token = try await swap(key(caller), token)
                        times.append((ContinuousClock.now - due) / .microseconds(1))
                    }
                    return times
                }
            }
            schedule.start(on: eventLoop)
            return try await group.reduce(into: []) { $0 += $1 }
        }
        return times.sorted()
    }
}

/// Both transports to one server.
struct Clients {
    let pipelined: Client
    let libmemcached: Client
    var all: [Client] { [pipelined, libmemcached] }

    init(_ server: String) throws {
        func store(_ transport: MemcachedConfiguration.Transport) throws -> MemcachedStore {
            var configuration = MemcachedConfiguration()
            configuration.servers = [server]
            configuration.transport = transport
            return try MemcachedStore(
                configuration: configuration, timeout: .seconds(5), logger: Logger(label: "benchmark"))
        }
        pipelined = Client(
            "pipelined", try store(.pipelined), on: MultiThreadedEventLoopGroup.singleton.next())
        libmemcached = Client("libmemcached", try store(.libmemcached), on: nil)
    }

    /// Writes what the loads read.
    func fill() async throws {
        for caller in 0..<Client.callers {
            for number in 0..<32 {
                _ = try await pipelined.store.put(
                    Client.value, for: pipelined.key(caller, number), timeToLive: .seconds(3600), if: .always)
            }
        }
    }
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
