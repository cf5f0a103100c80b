import Limpet
import Logging

/// All servers, reached with libmemcached: a few lanes to each, every one a thread with a connection of its own.
///
/// All operations of a session use the same lane, for a token is good only on the connection that read it.
final class LaneTransport: Sendable {
    /// For each server, in the order of the configuration, the lanes to it.
    let lanes: [[MemcachedLane]]
    private let nanoseconds: UInt64
    private let clock = SystemClock()

    /// Starts the threads.
    ///
    /// - Parameter connections: to each server.
    /// - Throws: if there are no threads.
    init(
        _ addresses: [MemcachedAddress], connections: Int, _ settings: MemcachedLane.Settings
    ) throws(StoreError) {
        nanoseconds = UInt64(max(settings.timeout, .milliseconds(1)) / .nanoseconds(1))
        lanes = addresses.map { address in
            (0..<connections).map { _ in MemcachedLane(address, settings) }
        }
        do throws(StoreError) {
            for lane in lanes.joined() { try lane.start() }
        } catch {
            // Those that have started end.
            for lane in lanes.joined() { lane.close() }
            throw error
        }
    }

    /// How many round trips were made to read.
    var readCount: Int { lanes.joined().reduce(0) { $0 + $1.readCount } }

    /// Takes no more calls. The threads end when they have done those that wait.
    func close() {
        for lane in lanes.joined() { lane.close() }
    }

    /// Waits until all threads have ended.
    func waitUntilEnded() async {
        for lane in lanes.joined() { await lane.waitUntilEnded() }
    }

    /// Reads keys: those of one lane in one round trip, and all lanes at the same time.
    func get(_ keys: [(index: Int, key: StoreKey, server: Int)], into results: inout [Answer<StoreEntry?>]) async {
        var parts: [(route: Route, names: [String], indices: [Int])] = []
        for (index, key, server) in keys {
            let route = route(key, server)
            if let part = parts.firstIndex(where: { $0.route.lane === route.lane }) {
                parts[part].names.append(key.name)
                parts[part].indices.append(index)
            } else {
                parts.append((route, [key.name], [index]))
            }
        }
        if let part = parts.first, parts.count == 1 {
            fill(&results, part.indices, await perform(part.route) { .get(part.names, $0) })
        } else {
            await withTaskGroup { group in
                for part in parts {
                    group.addTask { (part.indices, await self.perform(part.route) { .get(part.names, $0) }) }
                }
                for await (indices, entries) in group { fill(&results, indices, entries) }
            }
        }
    }

    private func fill(_ results: inout [Answer<StoreEntry?>], _ indices: [Int], _ entries: Answer<[StoreEntry?]>) {
        for (position, index) in indices.enumerated() { results[index] = entries.map { $0[position] } }
    }

    /// Does one thing with a key.
    nonisolated(nonsending) func perform<Value>(
        _ key: StoreKey, _ server: Int, _ work: (Reply<Answer<Value>>) -> MemcachedJob.Work
    ) async -> Answer<Value> {
        await perform(route(key, server), work)
    }

    private struct Route: Sendable {
        let lane: MemcachedLane
        let placement: Int
    }

    private func route(_ key: StoreKey, _ server: Int) -> Route {
        let lanes = lanes[server]
        switch key.placement {
        case .group(let group):
            let hash = group.hashValue
            return Route(lane: lanes[Int(UInt(bitPattern: hash) % UInt(lanes.count))], placement: hash)
        case .server(let number): return Route(lane: lanes[0], placement: number)
        }
    }

    private nonisolated(nonsending) func perform<Value>(
        _ route: Route, _ work: (Reply<Answer<Value>>) -> MemcachedJob.Work
    ) async -> Answer<Value> {
        let deadline = clock.monotonicNanoseconds() + nanoseconds
        return await Reply.wait { reply in
            route.lane.add(MemcachedJob(work: work(reply), placement: route.placement, deadline: deadline))
        }
    }
}
