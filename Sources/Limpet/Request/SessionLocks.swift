package import Metrics
import Synchronization

/// The locks of this node's sessions: readers together, writers alone, first come, first served. ``LockLine`` decides who is in.
///
/// An entry exists only while somebody is in: the table of an idle node is empty. A waiter leaves its line when it is let in,
/// when its time is over, or when it is cancelled; whichever comes first takes it out of the line, and so is the only one
/// that wakes it.
package final class SessionLocks: Sendable {
    private typealias Ticket = CheckedContinuation<SessionAccess, any Error>
    private typealias Line = LockLine<Ticket>

    /// Requests of different sessions rarely meet in one of 64, with a thread for each of some ten cores.
    private static let shardCount = 64

    private final class Shards: Sendable {
        let table: [Box]
        final class Box: Sendable { let lines = Locked<[SessionID: Line]>([:]) }
        init() { table = (0..<shardCount).map { _ in Box() } }
        subscript(id: SessionID) -> Box { table[Int(truncatingIfNeeded: id.spread) & (shardCount - 1)] }
    }

    private let shards = Shards()
    private let nextNumber = Atomic<UInt64>(0)
    /// When the lines are looked at for those whose time is over; `nil`: nobody waits who is not seen to.
    private let nextLook = Locked<UInt64?>(nil)
    private let excludesOthers: Bool
    private let timeout: Duration
    private let maxWaiters: Int
    private let clock: any NodeClock
    private let statistics: SessionStatistics
    private let waits: Timer?

    /// - Parameters:
    ///   - waits: gets how long each wait took, however it ended.
    ///   - excludesOthers: `false` breaks R23, to prove that somebody notices.
    package init(
        _ configuration: SessionConfiguration.Lock, clock: any NodeClock, statistics: SessionStatistics,
        waits: Timer? = nil, excludesOthers: Bool = true
    ) {
        self.excludesOthers = excludesOthers
        timeout = configuration.timeout
        maxWaiters = configuration.maxWaiters
        self.clock = clock
        self.statistics = statistics
        self.waits = waits
    }

    /// Enters a session, if that needs no waiting: neither suspends nor allocates.
    package func tryEnter(_ id: SessionID, _ access: SessionAccess = .write) -> SessionLease? {
        let now = clock.monotonicNanoseconds()
        let entered = shards[id].lines.withLock { Self.claim(&$0[id], access, at: now) }
        return entered || !excludesOthers ? SessionLease(locks: self, id: id, access: access, enteredAt: now) : nil
    }

    /// Enters a session, or waits in line for it.
    ///
    /// - Throws: ``SessionError`` (`lockTimeout`, `tooManyWaiting`), or `CancellationError` if the request is cancelled while
    ///   it waits.
    package func enter(_ id: SessionID, _ access: SessionAccess) async throws -> SessionLease {
        if let lease = tryEnter(id, access) { return lease }
        var lease = SessionLease(locks: self, id: id, access: .none, enteredAt: 0)
        try await lease.wait(for: access == .read ? .read : .write)
        return lease
    }

    // With the table's slot as an argument each of these looks the session up once.

    private static func claim(_ slot: inout Line?, _ access: SessionAccess, at now: UInt64) -> Bool {
        guard slot == nil else { return slot?.enter(access, at: now) ?? false }
        slot = Line(access, at: now)
        return true
    }

    private static func exit(_ slot: inout Line?, _ clock: any NodeClock) -> Line.Admitted {
        // A closure of its own: a bound method is kept on the heap.
        guard let admitted = slot?.exit(at: { clock.monotonicNanoseconds() }) else { return Line.Admitted() }
        if slot?.isFree == true { slot = nil }
        return admitted
    }

    private func wake(_ admitted: Line.Admitted) {
        for waiter in admitted.waiters { waiter.ticket.resume(returning: admitted.access) }
    }

    // MARK: For a lease, whose request is in

    fileprivate func exit(_ id: SessionID) {
        wake(shards[id].lines.withLock { Self.exit(&$0[id], clock) })
    }

    fileprivate func becomeExclusive(_ id: SessionID) -> Bool {
        shards[id].lines.withLock { $0[id]?.becomeExclusive() ?? true } || !excludesOthers
    }

    fileprivate func becomeShared(_ id: SessionID) {
        wake(shards[id].lines.withLock { $0[id]?.becomeShared() ?? Line.Admitted() })
    }

    /// Waits in line. A reader that wants to load is in, and gives that up: it is in again when this returns, and only then.
    ///
    /// - Parameter since: when the request began to wait for its session, which is for no longer than the time-out in all.
    /// - Returns: as what it is in.
    fileprivate func waitInLine(
        _ id: SessionID, _ wish: LockLine<CheckedContinuation<SessionAccess, any Error>>.Wish, since: UInt64,
        waited: Duration
    ) async throws -> SessionAccess {
        defer { waits?.recordNanoseconds(Int64(clock.monotonicNanoseconds() &- since)) }
        let number = nextNumber.add(1, ordering: .relaxed).newValue
        let deadline = since &+ (timeout - waited).nanoseconds
        return try await withTaskCancellationHandler {
            try await withCheckedThrowingContinuation { continuation in
                line(
                    up: Line.Waiter(number: number, wish: wish, since: since, deadline: deadline, ticket: continuation),
                    for: id)
                // Not before: a look that finds nobody in line would leave somebody there for good.
                look(at: deadline)
            }
        } onCancel: {
            guard let waiter = takeOut(id, number) else { return }
            statistics.lockWaitsAbandoned.add(1)
            waiter.ticket.resume(throwing: CancellationError())
        }
    }

    // MARK: Time

    /// Sees to it that the lines are looked at by then.
    ///
    /// One timer for all who wait, and not one for each: most waits are over in microseconds, and to set a timer and take it
    /// back costs more than all else of them.
    private func look(at deadline: UInt64) {
        let isNearer = nextLook.withLock { next in
            if let next, next <= deadline { return false }
            next = deadline
            return true
        }
        guard isNearer else { return }
        let now = clock.monotonicNanoseconds()
        clock.after(.nanoseconds(deadline > now ? deadline - now : 0)) { [weak self] in self?.look(since: deadline) }
    }

    /// Sends away those whose time is over.
    ///
    /// - Parameter due: when this look was to be. One that a nearer one has come before is none any more.
    private func look(since due: UInt64) {
        let isDue = nextLook.withLock { next in
            guard next == due else { return false }
            next = nil
            return true
        }
        guard isDue else { return }
        let now = clock.monotonicNanoseconds()
        var next: UInt64?
        for shard in shards.table {
            let late = shard.lines.withLock { lines in
                var late: [(id: SessionID, number: UInt64)] = []
                for (id, line) in lines where line.waiting > 0 {
                    let (numbers, following) = line.late(at: now)
                    late += numbers.map { (id, $0) }
                    next = [next, following].compactMap(\.self).min()
                }
                return late
            }
            for (id, number) in late.sorted(by: { $0.number < $1.number }) { timeIsOver(id, number) }
        }
        if let next { look(at: next) }
    }

    private func timeIsOver(_ id: SessionID, _ number: UInt64) {
        guard let waiter = takeOut(id, number) else { return }
        statistics.lockTimeouts.add(1)
        waiter.ticket.resume(
            throwing: SessionError(.lockTimeout, "other requests held the session for longer than \(timeout)"))
    }

    private func line(up waiter: Line.Waiter, for id: SessionID) {
        enum Outcome { case entered, cancelled, full, waiting }
        let outcome = shards[id].lines.withLock { lines -> Outcome in
            // Cancelled before it stood in line: its cancellation handler has come and gone, or comes to find nobody.
            let isCancelled = Task.isCancelled
            guard waiter.wish != .load else {
                if lines[id]?.becomeExclusive() ?? true { return .entered }
                // Others are in beside it, and stay: nobody is let in by that.
                if isCancelled { _ = Self.exit(&lines[id], clock) } else { lines[id]?.stepBack(waiter) }
                return isCancelled ? .cancelled : .waiting
            }
            if isCancelled { return .cancelled }
            if Self.claim(&lines[id], waiter.wish == .read ? .read : .write, at: waiter.since) { return .entered }
            guard lines[id].map({ $0.waiting < maxWaiters }) ?? true else { return .full }
            lines[id]?.append(waiter)
            return .waiting
        }
        switch outcome {
        case .entered: waiter.ticket.resume(returning: waiter.wish == .read ? .read : .write)
        case .cancelled:
            statistics.lockWaitsAbandoned.add(1)
            waiter.ticket.resume(throwing: CancellationError())
        case .full:
            statistics.lockWaitsRejected.add(1)
            waiter.ticket.resume(
                throwing: SessionError(.tooManyWaiting, "\(maxWaiters) requests wait for the session already"))
        case .waiting: break
        }
    }

    /// Takes a waiter out of its line, and lets in whom it held up. One that is in already stays in.
    private func takeOut(_ id: SessionID, _ number: UInt64) -> Line.Waiter? {
        guard let (waiter, admitted) = shards[id].lines.withLock({ $0[id]?.leave(number) }) else { return nil }
        wake(admitted)
        return waiter
    }
}

extension SessionLocks {
    /// How many sessions are entered, and by how many requests, and how many wait.
    struct Count: Equatable {
        var sessions = 0
        var inside = 0
        var waiting = 0
    }

    /// Looks at every session that is entered.
    var count: Count {
        shards.table.reduce(into: Count()) { count, shard in
            shard.lines.withLock { lines in
                count.sessions += lines.count
                for line in lines.values {
                    count.inside += max(1, line.readers)
                    count.waiting += line.waiting
                }
            }
        }
    }

    /// How many sessions are entered now.
    package var enteredCount: Int { shards.table.reduce(0) { $0 + $1.lines.withLock { $0.count } } }

    /// How many wait for a session now.
    func lineLength(of id: SessionID) -> Int { shards[id].lines.withLock { $0[id]?.waiting ?? 0 } }

    /// Who is in a session, and who waits; `nil` if nobody is in. Looks at every session that is entered: for people, not for
    /// requests.
    func explain(_ fingerprint: SessionFingerprint) -> SessionExplanation.Lock? {
        for shard in shards.table {
            // The hash is not made while requests wait for the table.
            let ids = shard.lines.withLock { Array($0.keys) }
            guard let id = ids.first(where: { SessionFingerprint($0) == fingerprint }),
                let line = shard.lines.withLock({ $0[id] })
            else { continue }
            return .init(
                access: line.readers > 0 ? .read : .write, requests: max(1, line.readers),
                heldSeconds: Double(clock.monotonicNanoseconds() &- line.since) / 1e9, waiting: line.waiting)
        }
        return nil
    }
}

/// Being in a session. Its end, on whatever path, is the only place that leaves the session, and it cannot be copied: no
/// path can forget it or do it twice.
package struct SessionLease: ~Copyable {
    /// The time in line, here and among the nodes.
    var waited = Duration.zero
    /// As what the request is in; `none`: it is not in, because a wait failed.
    private(set) var access: SessionAccess
    /// When it came in. Monotonic.
    private(set) var enteredAt: UInt64
    private let locks: SessionLocks
    private let id: SessionID

    fileprivate init(locks: SessionLocks, id: SessionID, access: SessionAccess, enteredAt: UInt64) {
        self.locks = locks
        self.id = id
        self.access = access
        self.enteredAt = enteredAt
    }

    /// A reader that finds nothing to read: to be in alone, so that one of them loads, or, as a reader again, behind somebody
    /// who was.
    ///
    /// - Throws: as ``SessionLocks/enter(_:_:)``; the request is not in any more then.
    mutating func becomeExclusive() async throws {
        if locks.becomeExclusive(id) {
            access = .write
        } else {
            access = .none
            try await wait(for: .load)
        }
    }

    /// Goes on as a reader. Readers that stand first in line come in.
    mutating func becomeShared() {
        locks.becomeShared(id)
        access = .read
    }

    fileprivate mutating func wait(for wish: LockLine<CheckedContinuation<SessionAccess, any Error>>.Wish) async throws
    {
        let start = locks.beginWait()
        access = try await locks.waitInLine(id, wish, since: start, waited: waited)
        enteredAt = locks.now
        waited += .nanoseconds(enteredAt &- start)
    }

    deinit {
        if access != .none { locks.exit(id) }
    }
}

extension SessionLocks {
    fileprivate var now: UInt64 { clock.monotonicNanoseconds() }

    fileprivate func beginWait() -> UInt64 {
        statistics.lockWaits.add(1)
        return now
    }
}
