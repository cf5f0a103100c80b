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

    private typealias Shard = Mutex<[SessionID: Deque<Waiter>]>

    /// Requests of different sessions rarely meet in one of 64, with a thread for each of some ten cores.
    private static let shardCount = 64

    private final class Shards: Sendable {
        let table: [Box]
        final class Box: Sendable { let waiters = Shard([:]) }
        init() { table = (0..<shardCount).map { _ in Box() } }
        subscript(id: SessionID) -> Box { table[Int(truncatingIfNeeded: id.spread) & (shardCount - 1)] }
    }

    private let shards = Shards()
    private let nextNumber = Atomic<UInt64>(0)
    private let timeout: Duration
    private let clock: any NodeClock
    private let statistics: SessionStatistics

    init(timeout: Duration, clock: any NodeClock, statistics: SessionStatistics) {
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
        let entered = shards[id].waiters.withLock { table in
            guard table[id] == nil else { return false }
            table[id] = Deque()
            return true
        }
        return entered ? SessionLease(locks: self, id: id, waited: .zero) : nil
    }

    /// Leaves a session: the first in line is in. Only a lease calls it, when it ends.
    fileprivate func exit(_ id: SessionID) {
        let next = shards[id].waiters.withLock { table -> Waiter? in
            guard let next = table[id]?.popFirst() else {
                table[id] = nil
                return nil
            }
            return next
        }
        next?.continuation.resume()
    }

    /// How many sessions are entered now.
    var enteredCount: Int { shards.table.reduce(0) { $0 + $1.waiters.withLock { $0.count } } }

    /// How many wait for a session now.
    func lineLength(of id: SessionID) -> Int { shards[id].waiters.withLock { $0[id]?.count ?? 0 } }

    private func waitInLine(_ id: SessionID) async throws {
        let number = nextNumber.add(1, ordering: .relaxed).newValue
        // Ends with the wait: it is cancelled when the waiter is in, or has left.
        let timer = Task { [clock, timeout] in
            do { try await clock.sleep(for: timeout) } catch { return }  // Cancelled: the wait is over.
            leave(
                id, number,
                with: SessionError(.lockTimeout, "other requests held the session for longer than \(timeout)"))
        }
        defer { timer.cancel() }
        try await withTaskCancellationHandler {
            try await withCheckedThrowingContinuation { continuation in
                line(up: Waiter(number: number, continuation: continuation), for: id)
            }
        } onCancel: {
            leave(id, number, with: CancellationError())
        }
    }

    private func line(up waiter: Waiter, for id: SessionID) {
        enum Outcome { case entered, cancelled, waiting }
        let outcome = shards[id].waiters.withLock { table -> Outcome in
            // Cancelled before it stood in line: its cancellation handler has come and gone, or comes to find nobody.
            if Task.isCancelled { return .cancelled }
            if table[id] == nil {
                table[id] = Deque()
                return .entered
            }
            table[id]?.append(waiter)
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
        let waiter = shards[id].waiters.withLock { table -> Waiter? in
            guard let index = table[id]?.firstIndex(where: { $0.number == number }) else { return nil }
            return table[id]?.remove(at: index)
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
