/// A session gets another id: rule R24.
extension SessionCoherence {
    /// What became of a session whose id was to change.
    enum Rotated {
        case renamed(SessionID)
        case gone(Tombstone.Reason)
    }

    /// R24: stores the session under a fresh id, and puts a tombstone in the place of the old one, from which the old id may still be
    /// read for a while.
    ///
    /// A change that another node commits to the old id meanwhile is carried over; once the tombstone is there, no more can
    /// come.
    ///
    /// - Returns: the new id, or why the session has ended instead.
    func rotate(_ copy: SessionCopy, _ changes: SessionChanges, oldIDReadable: Duration) async throws -> Rotated {
        let old = copy.snapshot
        let id = SessionID()
        // Entered like any other that a request has: nobody knows the id, and so nobody is in.
        let lease = locks.tryEnter(id)
        defer { extendLifetime(lease) }
        // R20: of the generation that the session is of. If all end meanwhile, the new id must not outlive them.
        let keys = names.keys(ofDigest: id.digest, generation: copy.keys.generation)
        let fresh = try await plant(renamed(old.record, changes), id: id, keys: keys)
        var rotation = Rotation(
            id: copy.id, keys: copy.keys, freshID: id, freshKeys: keys, nonce: Tombstone.Nonce(),
            readable: oldIDReadable, replaced: old.record)
        do {
            return try await retire(copy, old, for: fresh, changes, &rotation)
        } catch {
            // No client will ever know the new id. The tombstone of the old one may still arrive.
            local.remove(id)
            rotations.add(rotation)
            throw error
        }
    }

    /// The second half of R24: the tombstone in the place of the old id, after the new one was stored.
    private func retire(
        _ copy: SessionCopy, _ old: SessionCopy.State, for fresh: SessionCopy, _ changes: SessionChanges,
        _ rotation: inout Rotation
    ) async throws -> Rotated {
        // From here on the old id is not read from memory: either the tombstone comes, or the next request finds out.
        copy.withState { $0.isSuspect = true }
        var token = old.token
        let began = clock.monotonicNanoseconds()
        for attempt in 0..<Self.attempts {
            try await pause(before: attempt, since: began)
            var decision = EndDecision.bury(old.record)
            if token == nil || attempt > 0 {
                let (stored, current) = try await readData(copy.keys)
                token = current
                decision = EndDecision(stored: stored, nonce: rotation.nonce)
                if case .lost(let other) = decision {
                    local.remove(copy.id)
                    refused(copy.keys)
                    try await end(fresh.id, fresh.keys, reason: .rotated)
                    return .gone(other.reason)
                }
                if case .plant = decision, keeps(.r24) {
                    // Lost: it is put back first (R18). An end in its place would bury what another home has to put back.
                    let counter = try await read(copy.keys).counter
                    let mayRepublish = RepublishRule.mayRepublish(
                        copy: republishable(copy.snapshot), counter: counter, cookieNamesThisNode: true,
                        now: clock.wallMilliseconds())
                    guard mayRepublish else {
                        throw SessionError(.conflict, "the store lost the session while its id was changed")
                    }
                    _ = try await republish(copy)
                    token = nil
                    continue
                }
                // Another home commits under the same epoch again and again: whatever it is that was found, it is carried over, unless it
                // is what this request had.
                if keeps(.r24), case .bury(let newer) = decision,
                    newer.home != old.record.home || newer.epoch != old.record.epoch
                {
                    // R23, as in a commit.
                    if isClusterLocked { throw lostLock() }
                    rotation.replaced = newer
                    guard case .stored = try await commitWhole(renamed(newer, changes), to: fresh) else {
                        throw SessionError(.conflict, "the store lost the session while its id was changed")
                    }
                }
            }
            if try await isRetired(copy.keys, &rotation, decision, token) {
                local.remove(copy.id)
                statistics.commits.add(1)
                note(.idChanged, copy.keys)
                note(.idGiven, fresh.keys)
                return .renamed(fresh.id)
            }
            token = nil
        }
        throw tooManyConflicts()
    }

    /// One step towards the tombstone, with what the old id may still read.
    private func isRetired(
        _ keys: SessionStoreKeys, _ rotation: inout Rotation, _ decision: EndDecision, _ token: StoreToken?
    ) async throws -> Bool {
        do {
            return try await isBuried(
                keys, rotation.tombstone(by: node, at: clock.wallMilliseconds()), decision, token)
        } catch let error as SessionError where error.code == .tooLarge && rotation.readable > .zero {
            // The tombstone is a few bytes longer than the record, which was the largest that the store takes. A change of
            // privilege does not fail for that.
            rotation.readable = .zero
            return try await isBuried(
                keys, rotation.tombstone(by: node, at: clock.wallMilliseconds()), decision, token)
        }
    }

    /// The record of the new id.
    private func renamed(_ record: SessionRecord, _ changes: SessionChanges) -> SessionRecord {
        var record = record
        let now = clock.wallMilliseconds()
        changes.apply(to: &record)
        record.home = node
        record.epoch = Epoch(wallMilliseconds: now)
        record.cookieSetAt = now
        return record
    }

    /// Writes a record over the one of an id that no client knows yet.
    private func commitWhole(_ record: SessionRecord, to copy: SessionCopy) async throws -> Committed {
        var changes = SessionChanges()
        let current = copy.snapshot.record
        for name in Set(current.attributes.keys).union(record.attributes.keys) {
            changes.attributes.updateValue(record.attributes[name], forKey: name)
        }
        changes.maxInactive = record.maxInactive
        return try await send(changes, to: copy, cookieNamesThisNode: true)
    }

    // MARK: The old id

    /// What an id that was changed a moment ago still reads; `nil` if nothing.
    ///
    /// No copy of it is kept, no access time saved and no cookie set: the client has another one by now, or will.
    func readOnlyCheckout(
        _ tombstone: Tombstone, _ id: SessionID, _ keys: SessionStoreKeys, startedAt: UInt64
    ) -> Checkout? {
        guard let alias = tombstone.alias,
            AliasRule.isReadable(alias, by: node, now: clock.wallMilliseconds(), slack: Self.slack.milliseconds)
        else { return nil }
        statistics.oldIDReads.add(1)
        note(.readByOldID, keys)
        return Checkout(readOnly: alias.record, id: id, startedAt: startedAt)
    }

    // MARK: Changes of the id that failed

    /// If this tombstone is of a change of the id whose request was answered with 503: puts the session back as it was.
    ///
    /// - Returns: whether the store has to be read again.
    func undo(_ tombstone: Tombstone, _ id: SessionID) async throws -> Bool {
        guard let rotation = rotations.find(id), rotation.nonce == tombstone.nonce else { return false }
        try await settle(rotation)
        return true
    }

    /// Puts an end to a change of the id that failed, so that its tombstone cannot arrive any more, or is gone again.
    ///
    /// Nobody else could: the request's client was told that nothing has changed, and nobody knows the new id. The session of an old
    /// id that has ended since, or was changed again, is left alone: the tombstone cannot arrive there.
    private func settle(_ rotation: Rotation) async throws {
        let keys = rotation.keys
        let (stored, token) = try await readData(keys)
        if var record = rotation.restored(from: stored), let token {
            let timeToLive = timeToLive(maxInactive: record.maxInactive)
            let home = record.home
            record.home = node
            record.epoch = try await raiseEpoch(keys, beyond: record.epoch, timeToLive: timeToLive)
            try await bump(home, keys)
            do {
                let bytes = try StoredSession.record(record).bytes(keys: keys)
                let put = try await store.put(
                    bytes, for: keys.data, timeToLive: timeToLive, if: .unchanged(since: token))
                // Somebody came first: whoever asks next looks again.
                guard case .stored = put else { return }
                note(.idChangeUndone, keys)
            } catch {
                throw SessionError(error)
            }
        }
        rotations.remove(rotation)
        try await end(rotation.freshID, rotation.freshKeys, reason: .rotated)
    }

    /// Settles the changes of ids that failed, for clients that do not come back to this node.
    func settleRotations() async throws {
        for rotation in rotations.all {
            guard let lease = locks.tryEnter(rotation.id) else { continue }
            defer { extendLifetime(lease) }
            try await settle(rotation)
        }
    }
}

/// One change of an id.
struct Rotation: Sendable {
    let id: SessionID
    let keys: SessionStoreKeys
    let freshID: SessionID
    let freshKeys: SessionStoreKeys
    let nonce: Tombstone.Nonce
    /// How long the old id may be read.
    var readable: Duration
    /// The record that the tombstone takes the place of.
    var replaced: SessionRecord

    /// The tombstone of the old id.
    func tombstone(by node: NodeIdentity, at now: Int64) -> Tombstone {
        var tombstone = Tombstone(nonce: nonce, reason: .rotated)
        if readable > .zero {
            var record = replaced
            record.home = node
            tombstone.alias = .init(
                record: record, readableUntil: min(now + readable.milliseconds, replaced.expiresAt))
        }
        return tombstone
    }

    /// Whether this is the record that the tombstone takes the place of.
    func isAbout(_ record: SessionRecord) -> Bool {
        record.home == replaced.home && record.epoch == replaced.epoch
    }

    /// What has to be stored anew where the tombstone is there, or may still arrive; `nil` where it cannot.
    func restored(from stored: StoredSession?) -> SessionRecord? {
        switch stored {
        case .tombstone(let tombstone): tombstone.nonce == nonce ? replaced : nil
        case .record(let record): isAbout(record) ? record : nil
        case nil: nil
        }
    }
}

/// The changes of ids that failed on this node, as long as their tombstones may be in the store, or on their way there.
///
/// The store is authoritative for what became of them; what is here is what it takes to undo them.
final class FailedRotations: Sendable {
    /// So many sessions are kept at most; one that is not is lost to its client if the tombstone has arrived, or still arrives.
    private static let capacity = 1024
    private let rotations = Locked<[SessionID: Rotation]>([:])

    func add(_ rotation: Rotation) {
        rotations.withLock { rotations in
            guard rotations.count < Self.capacity || rotations[rotation.id] != nil else { return }
            rotations[rotation.id] = rotation
        }
    }

    func find(_ id: SessionID) -> Rotation? { rotations.withLock { $0[id] } }

    var all: [Rotation] { rotations.withLock { Array($0.values) } }

    func remove(_ rotation: Rotation) {
        rotations.withLock { rotations in
            if rotations[rotation.id]?.nonce == rotation.nonce { rotations[rotation.id] = nil }
        }
    }
}
