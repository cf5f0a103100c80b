import Limpet
import Logging
import NIOCore
import NIOSSL
import Synchronization

/// The way to the servers that is in use: the pipelined one, libmemcached's, or the first until it turns out that a server
/// cannot do it (`memcached.transport` `auto`).
///
/// Then all servers are reached with libmemcached, for good. What the pipelined transport had not sent goes that way; what it
/// had sent is answered as it is, and its tokens are void.
final class MemcachedTransports: Sendable {
    typealias Read = (index: Int, key: StoreKey, server: Int)

    private struct State {
        var lanes: LaneTransport?
        var isClosed = false
    }

    private let addresses: [MemcachedAddress]
    private let connections: Int
    private let settings: MemcachedLane.Settings
    private let state = Locked(State())
    /// Whether `lanes` is in use.
    private let usesLanes = Atomic(false)
    /// Set once, in `init`, before anybody else has the object.
    private nonisolated(unsafe) var pipelined: PipelinedTransport?

    init(
        _ addresses: [MemcachedAddress], _ configuration: MemcachedConfiguration,
        lanes settings: MemcachedLane.Settings,
        tls: NIOSSLContext?
    ) throws(StoreError) {
        self.addresses = addresses
        self.settings = settings
        connections = configuration.connections
        guard configuration.transport != .libmemcached else {
            let lanes = try makeLanes()
            state.withLock { $0.lanes = lanes }
            usesLanes.store(true, ordering: .releasing)
            return
        }
        // libmemcached knows no TLS: there is nothing to fall back to.
        let mayFallBack = configuration.transport == .auto && tls == nil
        let timeout = max(settings.timeout, .milliseconds(1)) / .nanoseconds(1)
        var fallBack: (@Sendable (MemcachedAddress) -> Void)?
        if mayFallBack { fallBack = { [weak self] address in self?.fallBack(from: address) } }
        pipelined = PipelinedTransport(
            addresses,
            PipelinedServer.Settings(
                timeout: .nanoseconds(Int64(timeout)), credentials: settings.credentials, tls: tls,
                logger: settings.logger, fallBack: fallBack))
    }

    private func makeLanes() throws(StoreError) -> LaneTransport {
        try LaneTransport(addresses, connections: connections, settings)
    }

    /// libmemcached's transport, if it is in use.
    var lanes: LaneTransport? { usesLanes.load(ordering: .acquiring) ? state.withLock { $0.lanes } : nil }

    private func fallBack(from address: MemcachedAddress) {
        let server = Logger.Metadata.Value(stringLiteral: address.description)
        do throws(StoreError) {
            let isFirst = try state.withLock { state throws(StoreError) in
                guard !state.isClosed, state.lanes == nil else { return false }
                state.lanes = try makeLanes()
                usesLanes.store(true, ordering: .releasing)
                return true
            }
            guard isFirst else { return }
        } catch {
            return settings.logger.error(
                "a memcached server speaks no meta commands, and libmemcached cannot be used",
                metadata: ["server": server, "error": "\(error)"])
        }
        pipelined?.close()
        settings.logger.notice(
            "a memcached server speaks no meta commands: libmemcached is used for all", metadata: ["server": server])
    }

    func close() {
        let lanes = state.withLock { state in
            state.isClosed = true
            return state.lanes
        }
        lanes?.close()
        pipelined?.close()
    }

    /// Closes, and waits until all that was asked is answered.
    func closeAndWait() async {
        close()
        if let lanes = state.withLock({ $0.lanes }) { await lanes.waitUntilEnded() }
        await pipelined?.closeAndWait()
    }

    // MARK: Operations

    /// What is answered if neither way is there. Never an absent key.
    static let closed = StoreError(.closed, "the store was shut down", mayHaveTakenEffect: false)

    func get(_ key: StoreKey, _ server: Int) async -> [Answer<StoreEntry?>] {
        if let pipelined, !usesLanes.load(ordering: .acquiring) {
            let results = await pipelined.perform { .get(key.name, server: server, $0) }
            guard lanes != nil, case .failure = results[0] else { return results }
        }
        var results: [Answer<StoreEntry?>] = [.failure(Self.closed)]
        await lanes?.get([(0, key, server)], into: &results)
        return results
    }

    func get(_ reads: [Read], into results: inout [Answer<StoreEntry?>]) async {
        var left = reads
        if let pipelined, !usesLanes.load(ordering: .acquiring) {
            let entries = await pipelined.perform {
                .getMany(reads.map { PipelinedLoop.Read(key: $0.key.name, server: $0.server) }, $0)
            }
            left = []
            for (read, entry) in zip(reads, entries) {
                results[read.index] = entry
                if case .failure = entry { left.append(read) }
            }
        }
        if !left.isEmpty { await lanes?.get(left, into: &results) }
    }

    func put(
        _ bytes: [UInt8], _ key: StoreKey, _ server: Int, _ timeToLive: Duration, _ condition: StoreCondition
    ) async -> Answer<StorePut> {
        await perform(key, server) { pipelined in
            await pipelined.put(bytes, key.name, server, timeToLive, condition)
        } orWork: {
            .put(bytes, key.name, timeToLive, condition, $0)
        }
    }

    func increment(_ keys: [StoreKey], _ server: Int, _ amount: UInt64) async -> Answer<[UInt64?]> {
        let names = keys.map(\.name)
        return await perform(keys[0], server) { pipelined in
            await pipelined.perform { .increment(names, amount, server: server, $0) }
        } orWork: {
            .increment(names, amount, $0)
        }
    }

    func touch(_ key: StoreKey, _ server: Int, _ timeToLive: Duration) async -> Answer<Bool> {
        await perform(key, server) { pipelined in
            await pipelined.perform { .touch(key.name, timeToLive, server: server, $0) }
        } orWork: {
            .touch(key.name, timeToLive, $0)
        }
    }

    func delete(_ key: StoreKey, _ server: Int, _ token: StoreToken?) async -> Answer<StoreDelete> {
        await perform(key, server) { pipelined in
            await pipelined.perform { .delete(key.name, token, server: server, $0) }
        } orWork: {
            .delete(key.name, token, $0)
        }
    }

    /// Does something the way that is in use; the other way if that turns out not to be one before anything was sent.
    private nonisolated(nonsending) func perform<Value>(
        _ key: StoreKey, _ server: Int, _ call: (PipelinedTransport) async -> Answer<Value>,
        orWork work: (Reply<Answer<Value>>) -> MemcachedJob.Work
    ) async -> Answer<Value> {
        var answer = Answer<Value>.failure(Self.closed)
        if let pipelined, !usesLanes.load(ordering: .acquiring) {
            answer = await call(pipelined)
            guard case .failure(let error) = answer, !error.mayHaveTakenEffect else { return answer }
        }
        guard let lanes else { return answer }
        return await lanes.perform(key, server, work)
    }
}
