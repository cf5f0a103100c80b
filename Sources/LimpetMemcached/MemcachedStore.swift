public import Limpet
public import Logging
import ServiceLifecycle

/// Sessions in memcached, through libmemcached: the store is **authoritative**, and forgets when a server is restarted or
/// short of memory.
///
/// Each server has a few connections, each with a thread of its own that libmemcached may block. All operations of a
/// session use the same connection, for a token is good only on the one that read it. memcached does not tell the token
/// of a new value over this protocol: ``put(_:for:timeToLive:if:)`` answers `stored(nil)`.
///
/// No server needs to be there when the store is made: connections are opened when they are first needed, and again,
/// within about a second, after they were lost. A task that is cancelled gets its answer like any other, at the latest
/// after twice the time-out.
///
/// The store works without being run. Run in a service group, before the services that use it, it ends its threads after
/// they have stopped.
public final class MemcachedStore: SharedStore {
    /// How many keys are read in one round trip at most: bounds what one reply makes the server and the client hold.
    package static let keysOfRead = 1024

    /// For each server, in the order of the configuration, the lanes to it.
    let lanes: [[MemcachedLane]]
    private let placement: MemcachedPlacement
    private let nanoseconds: UInt64
    private let clock = SystemClock()

    /// Makes a store, and starts its threads.
    ///
    /// - Parameters:
    ///   - timeout: how long an operation may wait for its turn, and then for its answer; at least one millisecond.
    ///   - logger: is told when a server stops answering, and when it answers again.
    /// - Throws: `ConfigurationError` for a server or an option that cannot be; `StoreError` if there are no threads.
    public convenience init(configuration: MemcachedConfiguration, timeout: Duration, logger: Logger) throws {
        try self.init(configuration: configuration, timeout: timeout, logger: logger, keysOfRead: Self.keysOfRead)
    }

    /// - Parameter keysOfRead: 1 reads for each caller alone.
    package init(
        configuration: MemcachedConfiguration, timeout: Duration, logger: Logger, keysOfRead: Int
    ) throws {
        let addresses = try configuration.checked()
        placement = MemcachedPlacement(addresses, options: configuration.options)
        nanoseconds = UInt64(max(timeout, .milliseconds(1)) / .nanoseconds(1))
        lanes = addresses.map { address in
            let settings = MemcachedLane.Settings(
                address: address, options: configuration.options, timeout: timeout, keysOfRead: keysOfRead,
                logger: logger)
            return (0..<configuration.connections).map { _ in MemcachedLane(settings) }
        }
        for lane in lanes.joined() { try lane.start() }
    }

    deinit {
        for lane in lanes.joined() { lane.close() }
    }

    /// How many servers the configuration names.
    public var serverCount: Int { lanes.count }

    /// The server that libmemcached chooses for a group.
    public func server(ofGroup group: String) -> Int { placement.server(ofGroup: group) }

    /// How many round trips were made to read.
    package var readCount: Int { lanes.joined().reduce(0) { $0 + $1.readCount } }

    /// Waits for graceful shutdown; then does what was asked so far, refuses what comes, and ends the threads.
    public func run() async throws {
        let shutdown: Result<Void, any Error>
        do {
            shutdown = .success(try await gracefulShutdown())
        } catch {
            shutdown = .failure(error)
        }
        for lane in lanes.joined() { lane.close() }
        for lane in lanes.joined() { await lane.waitUntilEnded() }
        try shutdown.get()
    }

    /// Reads keys, each for itself: the servers at the same time, and together with the reads of other callers.
    public func get(_ keys: [StoreKey]) async -> [Result<StoreEntry?, StoreError>] {
        var results = [Result<StoreEntry?, StoreError>](repeating: .success(nil), count: keys.count)
        var parts: [(route: Route, indices: [Int])] = []
        for (index, key) in keys.enumerated() {
            do throws(StoreError) {
                let route = try route(key)
                if let part = parts.firstIndex(where: { $0.route.lane === route.lane }) {
                    parts[part].indices.append(index)
                } else {
                    parts.append((route, [index]))
                }
            } catch {
                results[index] = .failure(error)
            }
        }
        if let part = parts.first, parts.count == 1 {
            fill(&results, part.indices, await read(keys, part.indices, part.route))
        } else {
            await withTaskGroup { group in
                for part in parts {
                    group.addTask { (part.indices, await self.read(keys, part.indices, part.route)) }
                }
                for await (indices, entries) in group { fill(&results, indices, entries) }
            }
        }
        return results
    }

    private func read(_ keys: [StoreKey], _ indices: [Int], _ route: Route) async -> Result<[StoreEntry?], StoreError> {
        let names = indices.map { keys[$0].name }
        return await perform(route) { .get(names, $0) }
    }

    private func fill(
        _ results: inout [Result<StoreEntry?, StoreError>], _ indices: [Int],
        _ entries: Result<[StoreEntry?], StoreError>
    ) {
        for (position, index) in indices.enumerated() { results[index] = entries.map { $0[position] } }
    }

    /// Writes one value, if the condition holds. Answers `stored(nil)`: memcached does not tell the new token.
    public func put(
        _ bytes: [UInt8], for key: StoreKey, timeToLive: Duration, if condition: StoreCondition
    ) async throws(StoreError) -> StorePut {
        try await perform(try route(key)) { .put(bytes, key.name, timeToLive, condition, $0) }.get()
    }

    /// Adds to counters that exist, one after the other.
    public func increment(_ keys: [StoreKey], by amount: UInt64) async throws(StoreError) -> [UInt64?] {
        guard let first = keys.first else { return [] }
        let common = try route(first)
        for key in keys.dropFirst() {
            guard try route(key).lane === common.lane else {
                throw StoreError(.invalidKey, "the counters have different placements", mayHaveTakenEffect: false)
            }
        }
        return try await perform(common) { .increment(keys.map(\.name), amount, $0) }.get()
    }

    /// Starts the time to live of a key anew.
    public func touch(_ key: StoreKey, timeToLive: Duration) async throws(StoreError) -> Bool {
        try await perform(try route(key)) { .touch(key.name, timeToLive, $0) }.get()
    }

    /// Deletes a key, if the condition holds.
    public func delete(_ key: StoreKey, ifUnchangedSince token: StoreToken?) async throws(StoreError) -> StoreDelete {
        try await perform(try route(key)) { .delete(key.name, token, $0) }.get()
    }

    // MARK: The way to a key

    private struct Route: Sendable {
        let lane: MemcachedLane
        let placement: Int
    }

    private func route(_ key: StoreKey) throws(StoreError) -> Route {
        guard key.isValid else {
            throw StoreError(.invalidKey, "the key is not one that stores take", mayHaveTakenEffect: false)
        }
        switch key.placement {
        case .group(let group):
            let lanes = lanes[placement.server(ofGroup: group)]
            let hash = group.hashValue
            return Route(lane: lanes[Int(UInt(bitPattern: hash) % UInt(lanes.count))], placement: hash)
        case .server(let number):
            guard lanes.indices.contains(number) else {
                throw StoreError(.invalidKey, "there is no server with this number", mayHaveTakenEffect: false)
            }
            return Route(lane: lanes[number][0], placement: number)
        }
    }

    private func perform<Value>(
        _ route: Route, _ work: (Reply<Value>) -> MemcachedJob.Work
    ) async -> Result<Value, StoreError> {
        let deadline = clock.monotonicNanoseconds() + nanoseconds
        return await withCheckedContinuation { continuation in
            route.lane.add(
                MemcachedJob(work: work(Reply(continuation)), placement: route.placement, deadline: deadline))
        }
    }
}
