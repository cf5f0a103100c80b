import Synchronization

/// This node's requests that wait for locks of the cluster: each looks again after a while, and at once when there is news of its session.
///
/// News that comes between a look and the sleep after it is not missed: who sleeps says which news it knows.
final class ClusterWaits: Sendable {
    fileprivate struct Sleeper {
        let number: UInt64
        let continuation: CheckedContinuation<Void, Never>
    }

    /// Those who wait for one session. It exists only while somebody does.
    fileprivate struct Line {
        let keys: SessionStoreKeys
        var count = 1
        var news: UInt64 = 0
        var sleepers: [Sleeper] = []
    }

    private let lines = Locked([SessionID: Line]())
    private let nextNumber = Atomic<UInt64>(0)
    private let clock: any NodeClock
    /// Somebody has begun to wait, and nobody did before.
    let begins: AsyncStream<Void>
    private let begin: AsyncStream<Void>.Continuation

    init(clock: any NodeClock) {
        self.clock = clock
        (begins, begin) = AsyncStream.makeStream(of: Void.self, bufferingPolicy: .bufferingNewest(1))
    }

    /// A request begins to wait. Until ``leave(_:)``.
    func join(_ id: SessionID, _ keys: SessionStoreKeys) {
        let isFirst = lines.withLock { lines in
            if lines[id] == nil { lines[id] = Line(keys: keys) } else { lines[id]?.count += 1 }
            return lines.count == 1
        }
        if isFirst { begin.yield() }
    }

    func leave(_ id: SessionID) {
        lines.withLock { lines in
            lines[id]?.count -= 1
            if lines[id]?.count == 0 { lines[id] = nil }
        }
    }

    /// The news so far, for who looks now and sleeps then.
    func news(of id: SessionID) -> UInt64 { lines.withLock { $0[id]?.news ?? 0 } }

    /// Waits for news.
    ///
    /// - Parameter news: what the caller knows: anything newer ends the wait at once.
    /// - Throws: `CancellationError`.
    func sleep(_ id: SessionID, knowing news: UInt64, atMost duration: Duration) async throws {
        let number = nextNumber.add(1, ordering: .relaxed).newValue
        await withTaskGroup(of: Void.self) { timer in
            defer { timer.cancelAll() }
            await withTaskCancellationHandler {
                await withCheckedContinuation { continuation in
                    let sleeps = lines.withLock { lines in
                        // Cancelled before it slept: its cancellation handler has come and gone.
                        guard !Task.isCancelled, lines[id]?.news == news else { return false }
                        lines[id]?.sleepers.append(Sleeper(number: number, continuation: continuation))
                        return true
                    }
                    guard sleeps else { return continuation.resume() }
                    // Not before: a timer that finds nobody would leave somebody there for good.
                    timer.addTask { await self.wakeInTime(id, number, duration) }
                }
            } onCancel: {
                wake(id, number)
            }
        }
        try Task.checkCancellation()
    }

    private func wakeInTime(_ id: SessionID, _ number: UInt64, _ duration: Duration) async {
        do { try await clock.sleep(for: duration) } catch { return }  // Cancelled: it is awake.
        wake(id, number)
    }

    private func wake(_ id: SessionID, _ number: UInt64) {
        let sleeper = lines.withLock { lines -> Sleeper? in
            guard let index = lines[id]?.sleepers.firstIndex(where: { $0.number == number }) else { return nil }
            return lines[id]?.sleepers.remove(at: index)
        }
        sleeper?.continuation.resume()
    }

    /// Somebody knows more of a session's lock.
    func wake(_ id: SessionID) {
        let sleepers = lines.withLock { $0[id]?.wakeAll() ?? [] }
        for sleeper in sleepers { sleeper.continuation.resume() }
    }

    /// Others have changed sessions of these buckets, or let go of their locks.
    func wake(_ server: Int, _ buckets: BucketSet = .all) {
        let sleepers = lines.withLock { lines in
            lines.keys.sorted { $0.spread < $1.spread }.flatMap { id -> [Sleeper] in
                guard let keys = lines[id]?.keys, keys.server == server, buckets.contains(keys.bucket) else {
                    return []
                }
                return lines[id]?.wakeAll() ?? []
            }
        }
        for sleeper in sleepers { sleeper.continuation.resume() }
    }

    /// How many sessions somebody waits for.
    var count: Int { lines.withLock { $0.count } }

    /// The servers of the sessions that somebody sleeps for.
    var servers: Set<Int> {
        lines.withLock { lines in Set(lines.values.lazy.filter { !$0.sleepers.isEmpty }.map(\.keys.server)) }
    }
}

extension ClusterWaits.Line {
    fileprivate mutating func wakeAll() -> [ClusterWaits.Sleeper] {
        news += 1
        defer { sleepers = [] }
        return sleepers
    }
}

extension SessionCoherence {
    /// How often a node looks whether there is news for those who wait: one small read, and none while nobody waits.
    private static let lookForNews = Duration.milliseconds(25)

    /// Wakes those who wait for other nodes' locks as soon as somebody has told this node of a change, before its next poll would find
    /// out. Until the task is cancelled.
    func runLooksForNews() async {
        for await _ in clusterWaits.begins {
            var known: [Int: [UInt8]?] = [:]
            while clusterWaits.count > 0 {
                do { try await clock.sleep(for: Self.lookForNews) } catch { return }  // Cancelled: the node stops.
                for server in clusterWaits.servers {
                    // A failure is no news: who waits looks by itself, too.
                    guard case .success(let entry) = await store.get([watch.rootKey(server)])[0] else { continue }
                    guard known.updateValue(entry?.bytes, forKey: server) != .some(entry?.bytes) else { continue }
                    clusterWaits.wake(server)
                }
            }
        }
    }
}
