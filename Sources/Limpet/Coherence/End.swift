/// A session ends: rule R15.
extension SessionCoherence {
    /// What a session's expiry was judged by. Whoever changed the session since has judged otherwise.
    struct Judged: Sendable, Equatable {
        let home: NodeIdentity
        let epoch: Epoch

        func isAbout(_ record: SessionRecord) -> Bool { record.home == home && record.epoch == epoch }
    }

    /// What became of an attempt to end a session.
    enum Ended: Equatable {
        /// This request ended it.
        case here
        /// Somebody else had ended it.
        case before(Tombstone.Reason)
        /// It lives: somebody changed it after its expiry was judged.
        case not
    }

    /// R15: ends a session on all nodes. Whoever's tombstone it is, and nobody else, tells `destroyed`.
    ///
    /// - Parameters:
    ///   - id: `nil` if it is not known: the session is not in this node's memory.
    ///   - judged: for an expiry, the only state of the session that may be ended.
    @discardableResult
    func end(
        _ id: SessionID?, _ keys: SessionStoreKeys, reason: Tombstone.Reason, judged: Judged? = nil
    ) async throws -> Ended {
        // Forgotten first: whatever happens below, this node serves it no more.
        if let id { local.remove(id) }
        let tombstone = Tombstone(reason: reason)
        let began = clock.monotonicNanoseconds()
        for attempt in 0..<Self.attempts {
            try await pause(before: attempt, since: began)
            let (stored, token) = try await readData(keys)
            let decision = EndDecision(stored: stored, nonce: tombstone.nonce)
            if case .lost(let other) = decision, keeps(.r15) { return .before(other.reason) }
            if case .bury(let record) = decision, let judged, !judged.isAbout(record) { return .not }
            guard try await isBuried(keys, tombstone, decision, token) else { continue }
            // A change of the id ends no session.
            if reason != .rotated {
                note(.ended, keys)
                statistics.destroyed.add(1)
                events.destroyed(SessionFingerprint(keys), reason == .expired ? .expired : .invalidated)
            }
            return .here
        }
        throw tooManyConflicts()
    }

    /// One step towards the tombstone. `false` if the store has to be read again.
    func isBuried(
        _ keys: SessionStoreKeys, _ tombstone: Tombstone, _ decision: EndDecision, _ token: StoreToken?
    ) async throws -> Bool {
        do {
            let bytes = try StoredSession.tombstone(tombstone).bytes(keys: keys)
            let condition: StoreCondition
            var timeToLive = tombstoneTimeToLive(maxInactive: configuration.maxInactive.milliseconds)
            switch decision {
            case .won: return true
            case .lost: return !keeps(.r15)
            case .plant:
                // Raised only if it is there: a missing one is as good, since copies that find none read the record.
                _ = try await store.increment(keys.epoch)
                // Nobody can say whose copy becomes stale: everybody looks.
                for name in try await membership.othersAlive() { try await bump(name, keys) }
                condition = .absent
            case .bury(let record):
                guard let token else { return false }
                timeToLive = max(timeToLive, tombstoneTimeToLive(maxInactive: record.maxInactive))
                _ = try await raiseEpoch(keys, beyond: record.epoch, timeToLive: timeToLive)
                try await bump(record.home, keys)
                condition = .unchanged(since: token)
            }
            if case .stored = try await store.put(
                bytes, for: keys.data, timeToLive: timeToLive, if: condition)
            {
                return true
            }
            statistics.conflicts.add(1)
            note(.conflict, keys)
            return false
        } catch let error as StoreError where error.mayHaveTakenEffect {
            return false
        } catch let error as StoreError {
            throw SessionError(error)
        }
    }

    /// For the scavenger, in the session's lock: a request may have come in the meantime.
    func expireIfDue(_ copy: SessionCopy) async throws {
        guard local.find(copy.id) === copy, copy.withState({ $0.expiresAt }) <= clock.wallMilliseconds(),
            // Of a server that is known to be down, it is asked about later.
            copy.isUnplanted || store.isAvailable(server: copy.keys.server)
        else { return }
        _ = try await expire(copy)
    }

    /// Ends a session that this node is home of and that nobody asked for in time, unless the store knows better.
    ///
    /// - Returns: `false` if another node has the session, which may be alive there.
    func expire(_ copy: SessionCopy) async throws -> Bool {
        let judged = copy.withState { Judged(home: $0.record.home, epoch: $0.record.epoch) }
        if copy.isUnplanted {
            forget(copy.id)
            return true
        }
        let found = try await read(copy.keys)
        if isRoaming, case .record(let record) = found.stored,
            record.expiresAt + expiryTolerance > clock.wallMilliseconds()
        {
            // Other nodes may have been asked, and have not saved that yet: judged again later.
            copy.withState { $0.record.accessedAt = max($0.record.accessedAt, record.accessedAt) }
            return false
        }
        local.remove(copy)
        switch found.stored {
        case .tombstone(let tombstone):
            // An id that was changed may still be read.
            guard tombstone.alias == nil else { return false }
        // The expiry is that node's to judge.
        case .record(let record) where !judged.isAbout(record): return false
        // Gone from the store as well. Only if nobody has changed it since was it this node's to end: somebody else's end would
        // still be there, and a change would have been heard of.
        case nil
        where found.counter.map { $0 != judged.epoch }
            ?? !watch.isFresh(copy.keys.server, now: clock.monotonicNanoseconds()):
            break
        case .record, nil:
            if try await end(copy.id, copy.keys, reason: .expired, judged: judged) == .not { return false }
        }
        forget(copy.id)
        return true
    }
}
