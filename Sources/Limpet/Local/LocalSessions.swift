import HeapModule

/// The copies of sessions in this node's memory, and an index of when they expire.
///
/// Nothing here is authoritative: see ``SessionCopy``.
final class LocalSessions: Sendable {
    private struct Due: Comparable {
        let at: Int64
        let id: SessionID
        static func < (first: Due, second: Due) -> Bool { first.at < second.at }
        static func == (first: Due, second: Due) -> Bool { first.at == second.at }
    }

    private struct Slot {
        let copy: SessionCopy
        /// Whether this node was home when the copy was kept.
        let isHome: Bool
        /// When the index tells of the copy: at or before its expiry.
        var due: Int64
    }

    private struct Contents {
        var slots: [SessionID: Slot] = [:]
        /// One entry for each slot, and some that are of no slot any more. A session that was used since is put back in its
        /// new place when its old one comes.
        var expiry = Heap<Due>()
        /// Copies of another one were ended with all others, and are not kept.
        var generation: UInt64 = 0
    }

    private final class Shard: Sendable { let contents = Locked(Contents()) }

    private static let shardCount = 64
    /// So many stale entries of the index are not worth the work: 2 KiB a table.
    private static let staleEntries = 64
    private let shards = (0..<shardCount).map { _ in Shard() }
    private let node: NodeIdentity
    /// What others can read of the sessions that are at home here.
    let roster = Roster()

    init(node: NodeIdentity) {
        self.node = node
    }

    private func shard(_ id: SessionID) -> Shard {
        shards[Int(truncatingIfNeeded: id.spread) & (Self.shardCount - 1)]
    }

    func find(_ id: SessionID) -> SessionCopy? {
        shard(id).contents.withLock { $0.slots[id]?.copy }
    }

    /// Finds a session by its hash. Looks at every copy there is: for people, not for requests.
    func find(_ digest: [UInt8]) -> SessionCopy? {
        for shard in shards {
            let found = shard.contents.withLock { $0.slots.values.first { $0.copy.keys.digest == digest }?.copy }
            if let found { return found }
        }
        return nil
    }

    /// Keeps a copy. One that is kept already takes a new place in the index only if it expires earlier now.
    ///
    /// A copy of another generation is not kept: a request that had it may still be on its way to here.
    func insert(_ copy: SessionCopy) {
        let (due, isHome) = copy.withState { ($0.expiresAt, $0.record.home == node) }
        shard(copy.id).contents.withLock { contents in
            guard copy.keys.generation == contents.generation else { return }
            if let slot = contents.slots[copy.id], slot.copy === copy, slot.due <= due, slot.isHome == isHome { return }
            contents.slots[copy.id] = Slot(copy: copy, isHome: isHome, due: due)
            roster.note(copy, isHome: isHome)
            contents.expiry.insert(Due(at: due, id: copy.id))
            // Entries of sessions that were removed are left until their time comes, unless they become the most.
            if contents.expiry.count > 2 * contents.slots.count + Self.staleEntries {
                contents.expiry = Heap(contents.slots.map { Due(at: $1.due, id: $0) })
            }
        }
    }

    func remove(_ id: SessionID) {
        shard(id).contents.withLock { contents in
            if let slot = contents.slots.removeValue(forKey: id) { roster.remove(slot.copy) }
        }
    }

    /// Removes a copy, unless another one has taken its place.
    func remove(_ copy: SessionCopy) {
        shard(copy.id).contents.withLock { contents in
            guard contents.slots[copy.id]?.copy === copy else { return }
            contents.slots[copy.id] = nil
            roster.remove(copy)
        }
    }

    /// The copies of a server's sessions in some buckets. Looks at every copy there is.
    func copies(on server: Int, in buckets: BucketSet) -> [SessionCopy] {
        guard !buckets.isEmpty else { return [] }
        var copies: [SessionCopy] = []
        for shard in shards {
            shard.contents.withLock { contents in
                for slot in contents.slots.values
                where slot.copy.keys.server == server && buckets.contains(slot.copy.keys.bucket) {
                    copies.append(slot.copy)
                }
            }
        }
        return copies
    }

    /// Forgets all copies of other generations, and takes none of them from now on.
    func removeAll(exceptOf generation: UInt64) {
        for shard in shards {
            shard.contents.withLock { contents in
                contents.generation = generation
                let others = contents.slots.filter { $0.value.copy.keys.generation != generation }
                for (id, slot) in others {
                    contents.slots[id] = nil
                    roster.remove(slot.copy)
                }
                contents.expiry = Heap(contents.slots.map { Due(at: $1.due, id: $0) })
            }
        }
    }

    var count: Int { shards.reduce(0) { $0 + $1.contents.withLock { $0.slots.count } } }

    /// The copies that have expired by now. Each is told again a while later, if it is still here.
    func expired(at now: Int64, againAfter delay: Int64) -> [SessionCopy] {
        var expired: [SessionCopy] = []
        for shard in shards {
            shard.contents.withLock { contents in
                while let due = contents.expiry.min, due.at <= now {
                    contents.expiry.removeMin()
                    guard let slot = contents.slots[due.id], slot.due == due.at else { continue }
                    var next = slot.copy.withState { $0.expiresAt }
                    if next <= now {
                        expired.append(slot.copy)
                        next = now + delay
                    }
                    contents.slots[due.id]?.due = next
                    contents.expiry.insert(Due(at: next, id: due.id))
                }
            }
        }
        return expired
    }
}
