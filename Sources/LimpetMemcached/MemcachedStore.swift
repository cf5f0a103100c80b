public import Limpet
public import Logging
import NIOCore
import NIOSSL
import ServiceLifecycle

/// Sessions in memcached: the store is **authoritative**, and forgets when a server is restarted or short of memory.
///
/// There are two ways to the servers (`memcached.transport`):
///
/// - **pipelined**: meta commands over one connection for each event loop and server. Who calls on an event loop stays on
///   its thread, and nobody waits for one another's replies. ``put(_:for:timeToLive:if:)`` tells the new token.
/// - **libmemcached**: a few connections to each server, each with a thread of its own that libmemcached may block; for
///   servers and proxies without meta commands. ``put(_:for:timeToLive:if:)`` answers `stored(nil)`.
///
/// libmemcached decides in both which server a key lives on: all its clients agree.
///
/// No server needs to be there when the store is made: connections are opened when they are first needed, and again,
/// within about a second, after they were lost. A task that is cancelled gets its answer like any other, at the latest
/// after twice the time-out.
///
/// The store works without being run. Run in a service group, before the services that use it, it closes its connections
/// after they have stopped.
public final class MemcachedStore: SharedStore {
    /// How many keys libmemcached reads in one round trip at most: bounds what one reply makes the server and the client
    /// hold.
    package static let keysOfRead = 1024

    private let placement: MemcachedPlacement
    private let transports: MemcachedTransports

    /// Makes a store.
    ///
    /// - Parameters:
    ///   - timeout: how long an operation may wait for its turn, and then for its answer; at least one millisecond.
    ///   - logger: is told when a server stops answering, and when it answers again.
    /// - Throws: `ConfigurationError` for a server, an option or a file that cannot be; `StoreError` if there are no threads.
    public convenience init(configuration: MemcachedConfiguration, timeout: Duration, logger: Logger) throws {
        try self.init(configuration: configuration, timeout: timeout, logger: logger, keysOfRead: Self.keysOfRead)
    }

    /// - Parameter keysOfRead: 1 makes libmemcached read for each caller alone.
    package init(
        configuration: MemcachedConfiguration, timeout: Duration, logger: Logger, keysOfRead: Int
    ) throws {
        let addresses = try configuration.checked()
        placement = MemcachedPlacement(addresses, options: configuration.options)
        transports = try MemcachedTransports(
            addresses, configuration,
            lanes: MemcachedLane.Settings(
                options: configuration.options, timeout: timeout, credentials: configuration.credentials,
                keysOfRead: keysOfRead, logger: logger),
            tls: try configuration.tlsContext())
    }

    deinit { transports.close() }

    /// How many servers the configuration names.
    public var serverCount: Int { placement.servers }

    /// The server that libmemcached chooses for a group.
    public func server(ofGroup group: String) -> Int { placement.server(ofGroup: group) }

    /// The lanes of libmemcached, once they are in use.
    var lanes: [[MemcachedLane]] { transports.lanes?.lanes ?? [] }

    /// How many round trips libmemcached made to read.
    package var readCount: Int { transports.lanes?.readCount ?? 0 }

    /// Waits for graceful shutdown; then does what was asked so far, refuses what comes, and closes the connections.
    public func run() async throws {
        let shutdown: Result<Void, any Error>
        do {
            shutdown = .success(try await gracefulShutdown())
        } catch {
            shutdown = .failure(error)
        }
        await transports.closeAndWait()
        try shutdown.get()
    }

    /// Reads keys, each for itself: the servers at the same time, and together with the reads of other callers.
    public func get(_ keys: [StoreKey]) async -> [Result<StoreEntry?, StoreError>] {
        if let key = keys.first, keys.count == 1 {
            do throws(StoreError) {
                return await transports.get(key, try server(of: key))
            } catch {
                return [.failure(error)]
            }
        }
        var results = [Answer<StoreEntry?>](repeating: .failure(MemcachedTransports.closed), count: keys.count)
        var valid: [MemcachedTransports.Read] = []
        valid.reserveCapacity(keys.count)
        for (index, key) in keys.enumerated() {
            do throws(StoreError) {
                valid.append((index, key, try server(of: key)))
            } catch {
                results[index] = .failure(error)
            }
        }
        if !valid.isEmpty { await transports.get(valid, into: &results) }
        return results
    }

    /// Writes one value, if the condition holds. Tells the new token if the pipelined transport is in use, and the server
    /// says that it makes room for new values (no `-M`), and does.
    public func put(
        _ bytes: [UInt8], for key: StoreKey, timeToLive: Duration, if condition: StoreCondition
    ) async throws(StoreError) -> StorePut {
        try await transports.put(bytes, key, try server(of: key), timeToLive, condition).get()
    }

    /// Adds to counters that exist, in order.
    public func increment(_ keys: [StoreKey], by amount: UInt64) async throws(StoreError) -> [UInt64?] {
        guard let first = keys.first else { return [] }
        let server = try server(of: first)
        for key in keys.dropFirst() {
            // All of them: a key that is none is said to be that.
            let other = try self.server(of: key)
            guard other == server, key.placement == first.placement else {
                throw StoreError(.invalidKey, "the counters have different placements", mayHaveTakenEffect: false)
            }
        }
        return try await transports.increment(keys, server, amount).get()
    }

    /// Starts the time to live of a key anew.
    public func touch(_ key: StoreKey, timeToLive: Duration) async throws(StoreError) -> Bool {
        try await transports.touch(key, try server(of: key), timeToLive).get()
    }

    /// Deletes a key, if the condition holds.
    public func delete(_ key: StoreKey, ifUnchangedSince token: StoreToken?) async throws(StoreError) -> StoreDelete {
        try await transports.delete(key, try server(of: key), token).get()
    }

    /// The number of the server that a key lives on.
    private func server(of key: StoreKey) throws(StoreError) -> Int {
        guard key.isValid else {
            throw StoreError(.invalidKey, "the key is not one that stores take", mayHaveTakenEffect: false)
        }
        switch key.placement {
        case .group(let group): return placement.server(ofGroup: group)
        case .server(let number):
            guard (0..<placement.servers).contains(number) else {
                throw StoreError(.invalidKey, "there is no server with this number", mayHaveTakenEffect: false)
            }
            return number
        }
    }
}
