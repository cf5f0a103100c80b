import Synchronization

/// The cluster's locks that this node holds, for its requests together (rule R23).
///
/// ```
///            the first request asks           it is this node's
///   none ────────────────────────────▶ busy ──────────────────▶ held ◀─┐
///    ▲ ▲     not, or nobody knows      │  ▲                     │ │    │ requests come and go
///    │ └───────────────────────────────┘  └─────────────────────┘ │ ───┘
///    │       or let go                      somebody wants it,    │
///    └────────────────────────────────────  and no request is in ─┘
///            somebody else has it
/// ```
///
/// The store is authoritative: what stands here is good while this node's presence is, and while its watch hears of others
/// (R1). A lock may be lost at any moment; the conditional write on the record decides.
final class ClusterLocks: Sendable {
    /// A lock that the watch looks at.
    struct Watched: Sendable {
        let id: SessionID
        let keys: SessionStoreKeys
        /// `nil` if this node only may hold it: an answer did not come.
        let number: UInt64?
        /// The node that wants it, if one does: it is told.
        var wantedBy: String?
    }

    private enum Phase {
        case none
        /// Somebody asks the store.
        case busy
        case held(number: UInt64, since: UInt64)
    }

    private struct Entry {
        let keys: SessionStoreKeys
        var phase = Phase.none
        /// Requests of this node that are in the session.
        var users = 0
        /// Those of them that read, and want to be alone on this node.
        var loaders = 0
        var isWanted = false
        /// The node that wants it, if it is known.
        var wantedBy: String?
        /// Somebody has changed a session of this bucket since the store was asked.
        var isOvertaken = false
        /// Until when this node leaves a lock that it let go to others.
        var yieldsUntil: UInt64 = 0
        /// Until when a lock may turn out to be this node's: an answer did not come.
        var mayHoldUntil: UInt64 = 0
        /// When the store has forgotten the lock.
        var forgottenAt: UInt64 = 0
        /// Nobody needs to know more of the session.
        func isDone(_ now: UInt64) -> Bool {
            if case .busy = phase { return false }
            if case .held = phase, forgottenAt > now { return false }
            return users == 0 && yieldsUntil <= now && mayHoldUntil <= now
        }
    }

    private final class Shard: Sendable { let entries = Locked([SessionID: Entry]()) }

    private static let shardCount = 64

    private let shards = (0..<shardCount).map { _ in Shard() }
    private let trust: Locked<LeaseTrust>
    private let sightings = Locked([NodeIdentity: PeerSighting]())
    let lease: UInt64

    /// Who is told when there is news.
    private let waits: ClusterWaits

    init(lease: Duration, waits: ClusterWaits) {
        self.waits = waits
        trust = Locked(LeaseTrust(lease: lease))
        self.lease = lease.nanoseconds
    }

    private func entry<Result>(_ id: SessionID, _ body: (inout Entry?) -> Result) -> Result {
        shards[Int(truncatingIfNeeded: id.spread) & (Self.shardCount - 1)].entries.withLock { body(&$0[id]) }
    }

    // MARK: This node's lease

    /// The store has taken a sign of life.
    ///
    /// - Returns: whether all locks are lost, since it came late.
    func beat(begunAt: UInt64, acknowledgedAt: UInt64) -> Bool {
        trust.withLock { $0.beat(begunAt: begunAt, acknowledgedAt: acknowledgedAt) }
    }

    /// Since when this node could rely on its presence without a gap; `nil` if it cannot now.
    private func trustedSince(_ now: UInt64) -> UInt64? {
        trust.withLock { $0.holds(at: now) ? $0.since : nil }
    }

    func isLeaseOver(_ now: UInt64) -> Bool { trustedSince(now) == nil }

    /// R1: since when this node has held a session's lock without a break; `.max` if it does not.
    func heldSince(_ id: SessionID, now: UInt64) -> UInt64 {
        guard let trusted = trustedSince(now) else { return .max }
        return entry(id) { entry in
            guard case .held(_, let since)? = entry?.phase, since >= trusted else { return .max }
            return since
        }
    }

    // MARK: Requests

    enum Entrance: Equatable {
        case entered
        /// The caller asks the store, and says what came of it: ``taken(_:number:since:forgottenAt:)`` or ``gaveUp(_:now:)``.
        case ask(yields: Bool, mayHold: Bool)
        /// Somebody else asks the store at this moment, or the lock is let go when those who are in have left.
        case busy
    }

    /// A request enters: at once if this node holds the lock.
    func enter(
        _ id: SessionID, generation: UInt64, _ keys: @autoclosure () -> SessionStoreKeys, now: UInt64
    ) -> Entrance {
        let trusted = trustedSince(now)
        return entry(id) { entry in
            if let other = entry, other.keys.generation != generation {
                // R20: all sessions have ended since.
                entry = Entry(keys: keys(), users: other.users)
            }
            if case .held(_, let since)? = entry?.phase, let trusted, since >= trusted {
                // Those who are in leave first, and the lock is let go then: readers that come all the time must not keep it. But one of
                // those who are in may wait for this one, which is in the session beside it.
                if let entered = entry, entered.isWanted, entered.users > 0, entered.loaders <= 0 { return .busy }
                entry?.users += 1
                return .entered
            }
            var asking = entry ?? Entry(keys: keys())
            if case .busy = asking.phase { return .busy }
            let yields = now < asking.yieldsUntil
            let mayHold = asking.mayHoldUntil > now
            // This node's still, unless somebody took it while it could not be relied on: whoever wants it must be heard, also if nobody
            // here finds out.
            if case .held = asking.phase { asking.mayHoldUntil = max(asking.mayHoldUntil, asking.forgottenAt) }
            asking.phase = .busy
            asking.isOvertaken = false
            entry = asking
            return .ask(yields: yields, mayHold: mayHold)
        }
    }

    /// The store says that this node holds the lock.
    ///
    /// - Parameter since: from when on it did.
    /// - Returns: `false` if others have changed something meanwhile: the lock may be lost already.
    func taken(_ id: SessionID, number: UInt64, since: UInt64, forgottenAt: UInt64) -> Bool {
        let isTaken = entry(id) { entry -> Bool in
            guard entry?.isOvertaken == false else {
                entry?.phase = .none
                entry?.mayHoldUntil = forgottenAt
                return false
            }
            entry?.phase = .held(number: number, since: since)
            entry?.users += 1
            entry?.isWanted = false
            entry?.wantedBy = nil
            entry?.mayHoldUntil = 0
            entry?.yieldsUntil = 0
            entry?.forgottenAt = forgottenAt
            return true
        }
        // Those who came while the store was asked.
        if isTaken { waits.wake(id) }
        return isTaken
    }

    /// A session was made under an id that nobody knows, with its lock.
    func planted(_ id: SessionID, _ keys: SessionStoreKeys, number: UInt64?, since: UInt64, forgottenAt: UInt64) {
        entry(id) { entry in
            entry = Entry(keys: keys, forgottenAt: forgottenAt)
            if let number {
                entry?.phase = .held(number: number, since: since)
            } else {
                entry?.mayHoldUntil = forgottenAt
            }
        }
    }

    /// The store keeps the lock for longer.
    func renewed(_ id: SessionID, until forgottenAt: UInt64) {
        entry(id) { entry in entry?.forgottenAt = forgottenAt }
    }

    /// The lock is not this node's now.
    func gaveUp(_ id: SessionID, now: UInt64) {
        entry(id) { entry in
            entry?.phase = .none
            if entry?.isDone(now) == true { entry = nil }
        }
    }

    /// The lock may turn out to be this node's: an answer did not come.
    ///
    /// - Parameter until: when the store has forgotten it.
    func mayHold(_ id: SessionID, until: UInt64) {
        entry(id) { entry in entry?.mayHoldUntil = until }
    }

    /// A reader begins to wait, or has waited, for the others of this node to leave.
    func wantsToBeAlone(_ id: SessionID, _ wants: Bool) {
        entry(id) { entry in entry?.loaders += wants ? 1 : -1 }
        // Who waits for it to leave is who it waits for.
        if wants { waits.wake(id) }
    }

    /// A request leaves.
    ///
    /// - Parameter isOver: there is no such session.
    /// - Returns: the number of the lock, if the caller has to let it go now.
    func leave(_ id: SessionID, isOver: Bool, now: UInt64) -> Watched? {
        entry(id) { entry in
            entry?.users -= 1
            guard let left = entry, left.users == 0 else { return nil }
            guard case .held(let number, _) = left.phase else {
                if left.isDone(now) { entry = nil }
                return nil
            }
            guard left.isWanted || isOver else { return nil }
            entry?.phase = .busy
            return Watched(id: id, keys: left.keys, number: number, wantedBy: left.wantedBy)
        }
    }

    /// The lock was let go.
    ///
    /// - Parameter yieldsUntil: until when it is left to whoever wants it; 0 if nobody does.
    func wasLetGo(_ id: SessionID, yieldsUntil: UInt64) {
        entry(id) { entry in
            entry = yieldsUntil == 0 ? nil : entry.map { Entry(keys: $0.keys, yieldsUntil: yieldsUntil) }
        }
    }

    /// Somebody has taken the lock that was left to others: once it is free again, it is anybody's.
    func yielded(_ id: SessionID) {
        entry(id) { $0?.yieldsUntil = 0 }
    }

    // MARK: The watch

    /// The locks that this node holds, or may hold, in some buckets of a server.
    func watched(_ server: Int, in buckets: BucketSet) -> [Watched] {
        all { entry in entry.keys.server == server && buckets.contains(entry.keys.bucket) }
    }

    /// All locks that this node holds.
    var held: [Watched] { all { if case .held = $0.phase { true } else { false } } }

    private func all(_ isMeant: (Entry) -> Bool) -> [Watched] {
        shards.flatMap { shard in
            shard.entries.withLock { entries in
                entries.compactMap { id, entry in
                    guard isMeant(entry) else { return nil }
                    switch entry.phase {
                    case .busy: return nil
                    case .none:
                        guard entry.mayHoldUntil > 0 else { return nil }
                        return Watched(id: id, keys: entry.keys, number: nil)
                    case .held(let number, _): return Watched(id: id, keys: entry.keys, number: number)
                    }
                }
            }
        }
    }

    /// Others have changed sessions in these buckets: what is being asked for now may be old when it is here.
    func overtake(_ server: Int, _ buckets: BucketSet) {
        for shard in shards {
            shard.entries.withLock { entries in
                for (id, entry) in entries where entry.keys.server == server && buckets.contains(entry.keys.bucket) {
                    entries[id]?.isOvertaken = true
                }
            }
        }
    }

    /// Somebody else has the lock, or the store has lost it.
    ///
    /// - Parameter number: the lock that was looked at: one that was taken since is another one. `nil`: nobody has looked, and it may
    ///   be this node's all the same.
    /// - Returns: whether this node had it.
    @discardableResult
    func lose(_ id: SessionID, number: UInt64? = nil) -> Bool {
        entry(id) { entry in
            guard let losing = entry else { return false }
            guard case .held(let current, _) = losing.phase, number == nil || current == number else { return false }
            entry?.phase = .none
            if number == nil {
                entry?.mayHoldUntil = losing.forgottenAt
            } else if losing.users == 0 {
                entry = nil
            }
            return true
        }
    }

    /// The server has lost its memory.
    func loseAll(of server: Int) {
        for lock in all({ $0.keys.server == server }) { lose(lock.id) }
    }

    /// Somebody wants the lock.
    ///
    /// - Returns: whether the caller has to let it go now: no request is in the session.
    func want(_ lock: Watched) -> Bool {
        entry(lock.id) { entry in
            switch (entry?.phase, lock.number) {
            case (.held(let number, _), let wanted?) where number == wanted:
                entry?.isWanted = true
                entry?.wantedBy = lock.wantedBy
            case (Phase.none?, nil): break
            default: return false
            }
            guard entry?.users == 0 else { return false }
            entry?.phase = .busy
            return true
        }
    }

    /// Forgets what the store has forgotten, too.
    func forget(at now: UInt64) {
        for shard in shards {
            shard.entries.withLock { entries in
                for id in entries.filter({ $0.value.isDone(now) }).keys { entries[id] = nil }
            }
        }
    }

    // MARK: Holders

    func look(_ presence: Presence?, at node: NodeIdentity, asked: UInt64, answered: UInt64) -> PeerSighting.Standing {
        sightings.withLock { sightings in
            sightings[node, default: PeerSighting()].look(
                presence, at: node, asked: asked, answered: answered, lease: lease)
        }
    }

    func cannotSee(_ node: NodeIdentity) {
        sightings.withLock { $0[node]?.cannotSee() }
    }

    /// How many sessions stand here.
    var count: Int { shards.reduce(0) { $0 + $1.entries.withLock { $0.count } } }
}
