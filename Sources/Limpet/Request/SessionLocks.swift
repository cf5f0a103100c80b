import DequeModule
import Synchronization

/// The locks of this node's sessions: one request at a time is in a session, first come, first served.
///
/// ```
///           enter, nobody in               exit, nobody waits
///   free ─────────────────────▶ entered ──────────────────────▶ free
///                                 │  ▲
///           enter: wait in line   │  │  exit: the first in line is in
///                                 ▼  │
///                              entered + line ── timeout, cancelled: leaves the line
/// ```
///
/// An entry exists only while somebody is in: the table of an idle node is empty.
final class SessionLocks: Sendable {
    private struct Waiter {
        let number: UInt64
        let continuation: CheckedContinuation<Void, any Error>
    }

    /// A session that is entered, and those who wait for it. Made only when somebody has to wait: an entry without a line
    /// needs no memory of its own.
    private struct Entered {
        var line: Deque<Waiter>?
    }

    private typealias Shard = Locked<[SessionID: Entered]>

    /// Requests of different sessions rarely meet in one of 64, with a thread for each of some ten cores.
    private static let shardCount = 64

    private final class Shards: Sendable {
        let table: [Box]
        final class Box: Sendable { let entered = Shard([:]) }
        init() { table = (0..<shardCount).map { _ in Box() } }
        subscript(id: SessionID) -> Box { table[Int(truncatingIfNeeded: id.spread) & (shardCount - 1)] }
    }

    private let shards = Shards()
    private let nextNumber = Atomic<UInt64>(0)
    private let excludesOthers: Bool
    private let timeout: Duration
    private let clock: any NodeClock
    private let statistics: SessionStatistics

    /// - Parameter excludesOthers: `false` breaks R23, to prove that somebody notices.
    init(timeout: Duration, clock: any NodeClock, statistics: SessionStatistics, excludesOthers: Bool = true) {
        self.excludesOthers = excludesOthers
        self.timeout = timeout
        self.clock = clock
        self.statistics = statistics
    }

    /// Enters a session, or waits in line for it.
    ///
    /// - Throws: ``SessionError`` (`lockTimeout`), or `CancellationError` if the request is cancelled while it waits.
    func enter(_ id: SessionID) async throws -> SessionLease {
        if let lease = tryEnter(id) { return lease }
        statistics.lockWaits.add(1)
        let start = clock.monotonicNanoseconds()
        try await waitInLine(id)
        return SessionLease(locks: self, id: id, waited: .nanoseconds(clock.monotonicNanoseconds() - start))
    }

    /// Enters a session if nobody is in.
    func tryEnter(_ id: SessionID) -> SessionLease? {
        let entered = shards[id].entered.withLock { table in Self.claim(&table[id]) }
        return entered || !excludesOthers ? SessionLease(locks: self, id: id, waited: .zero) : nil
    }

    /// Leaves a session: the first in line is in. Only a lease calls it, when it ends.
    fileprivate func exit(_ id: SessionID) {
        let next = shards[id].entered.withLock { table in Self.handOver(&table[id]) }
        next?.continuation.resume()
    }

    // With the table's slot as an argument each of these looks the session up once.

    private static func claim(_ slot: inout Entered?) -> Bool {
        guard slot == nil else { return false }
        slot = Entered()
        return true
    }

    private static func append(_ waiter: Waiter, to slot: inout Entered?) {
        if slot?.line == nil { slot?.line = Deque() }
        slot?.line?.append(waiter)
    }

    private static func handOver(_ slot: inout Entered?) -> Waiter? {
        if let next = slot?.line?.popFirst() { return next }
        slot = nil
        return nil
    }

    /// How many sessions are entered now.
    var enteredCount: Int { shards.table.reduce(0) { $0 + $1.entered.withLock { $0.count } } }

    /// How many wait for a session now.
    func lineLength(of id: SessionID) -> Int { shards[id].entered.withLock { $0[id]?.line?.count ?? 0 } }

    private func waitInLine(_ id: SessionID) async throws {
        let number = nextNumber.add(1, ordering: .relaxed).newValue
        try await withThrowingTaskGroup(of: Void.self) { timer in
            // Ends with the wait: the waiter is in, or has left.
            defer { timer.cancelAll() }
            try await withTaskCancellationHandler {
                try await withCheckedThrowingContinuation { continuation in
                    line(up: Waiter(number: number, continuation: continuation), for: id)
                    // Not before: a timer that finds nobody in line would leave somebody there for good.
                    timer.addTask { await self.leaveInTime(id, number) }
                }
            } onCancel: {
                leave(id, number, with: CancellationError())
            }
        }
    }

    private func leaveInTime(_ id: SessionID, _ number: UInt64) async {
        do { try await clock.sleep(for: timeout) } catch { return }  // Cancelled: the wait is over.
        leave(
            id, number, with: SessionError(.lockTimeout, "other requests held the session for longer than \(timeout)"))
    }

    private func line(up waiter: Waiter, for id: SessionID) {
        enum Outcome { case entered, cancelled, waiting }
        let outcome = shards[id].entered.withLock { table -> Outcome in
            // Cancelled before it stood in line: its cancellation handler has come and gone, or comes to find nobody.
            if Task.isCancelled { return .cancelled }
            if Self.claim(&table[id]) { return .entered }
            Self.append(waiter, to: &table[id])
            return .waiting
        }
        switch outcome {
        case .entered: waiter.continuation.resume()
        case .cancelled: waiter.continuation.resume(throwing: CancellationError())
        case .waiting: break
        }
    }

    /// Takes a waiter out of its line. One that is in already stays in.
    private func leave(_ id: SessionID, _ number: UInt64, with error: any Error) {
        let waiter = shards[id].entered.withLock { table -> Waiter? in
            guard let index = table[id]?.line?.firstIndex(where: { $0.number == number }) else { return nil }
            return table[id]?.line?.remove(at: index)
        }
        waiter?.continuation.resume(throwing: error)
    }
}

/// Being in a session. Its end, on whatever path, is the only place that leaves the session, and it cannot be copied: no
/// path can forget it or do it twice.
struct SessionLease: ~Copyable {
    /// The time in line.
    let waited: Duration
    private let locks: SessionLocks
    private let id: SessionID

    fileprivate init(locks: SessionLocks, id: SessionID, waited: Duration) {
        self.locks = locks
        self.id = id
        self.waited = waited
    }

    deinit {
        locks.exit(id)
    }
}
