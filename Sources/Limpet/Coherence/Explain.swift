#if canImport(FoundationEssentials)
    import FoundationEssentials
#else
    import Foundation
#endif

/// Tells what is known of one session, for people.
extension SessionCoherence {
    /// Remembers what happened to a session here.
    func note(
        _ kind: SessionExplanation.Transition.Kind, _ keys: SessionStoreKeys, with node: String? = nil
    ) {
        let transition = SessionExplanation.Transition(
            kind: kind, at: Date(wallMilliseconds: clock.wallMilliseconds()), node: node)
        history.add(transition, of: keys.digest)
    }

    /// Reads what the store has, and changes nothing.
    func explain(_ fingerprint: SessionFingerprint) async throws(SessionError) -> SessionExplanation {
        let keys = names.keys(ofDigest: fingerprint.digest, generation: names.generation)
        var wanted = [keys.data, keys.epoch, keys.access]
        if isClusterLocked { wanted += [keys.lock, keys.want] }
        let results = await store.get(wanted)
        do throws(StoreError) {
            let lock = isClusterLocked ? try explain(lock: results[3].get(), mark: results[4].get(), keys) : nil
            let stored: StoredSession?
            do throws(StoreError) {
                stored = try results[0].get().map { entry throws(StoreError) in
                    try StoredSession(bytes: entry.bytes, keys: keys)
                }
            } catch {
                guard error.code == .corrupt else { throw error }
                return explanation(fingerprint, .init(kind: .unreadable), nil, try results[1].get(), lock)
            }
            let access = try results[2].get().map { entry throws(StoreError) in
                try AccessTime(bytes: entry.bytes, keys: keys).accessedAt
            }
            return explanation(
                fingerprint, SessionExplanation.Stored(stored, savedAt: access ?? 0), stored, try results[1].get(), lock
            )
        } catch {
            throw SessionError(error)
        }
    }

    private func explanation(
        _ fingerprint: SessionFingerprint, _ stored: SessionExplanation.Stored, _ session: StoredSession?,
        _ counter: StoreEntry?, _ clusterLock: SessionExplanation.ClusterLock?
    ) -> SessionExplanation {
        SessionExplanation(
            fingerprint: fingerprint, node: node.name, at: Date(wallMilliseconds: clock.wallMilliseconds()),
            stored: stored,
            epochCounter: counter.map { entry in
                Epoch(ascii: entry.bytes).map { "\($0.value)" } ?? "no number"
            },
            copy: local.find(fingerprint.digest).map { explain($0, beside: session) },
            lock: locks.explain(fingerprint), clusterLock: clusterLock,
            transitions: history.transitions(of: fingerprint.digest))
    }

    private func explain(
        lock: StoreEntry?, mark: StoreEntry?, _ keys: SessionStoreKeys
    ) throws(StoreError) -> SessionExplanation.ClusterLock {
        var told = SessionExplanation.ClusterLock()
        if let lock, case .held(let holding) = try ClusterLock(bytes: lock.bytes) {
            told.holder = holding.node.name
            told.incarnation = "\(holding.node.incarnation)"
        }
        if let mark, case .held(let contender) = try ClusterLock(bytes: mark.bytes) {
            told.wantedBy = contender.node.name
        }
        let now = clock.monotonicNanoseconds()
        if let copy = local.find(keys.digest) {
            let since = clusterLocks.heldSince(copy.id, now: now)
            if since != .max { told.heldSeconds = Double(now &- since) / 1e9 }
        }
        return told
    }

    private func explain(_ copy: SessionCopy, beside stored: StoredSession?) -> SessionExplanation.Copy {
        let state = copy.snapshot
        let now = clock.monotonicNanoseconds()
        let decision = ReadDecision(
            copy: .init(
                home: state.record.home, isSuspect: state.isSuspect, verifiedAt: state.verifiedAt,
                hasUnsent: state.unsent != nil), node: node,
            isRoaming: isRoaming, cookieNamesThisNode: true, watchIsFresh: watch.isFresh(copy.keys.server, now: now),
            lockedSince: isClusterLocked ? clusterLocks.heldSince(copy.id, now: now) : 0, now: now,
            saveInterval: saveIntervalNanoseconds, storeIsDown: isStoreDown(copy.keys))
        var differs = true
        if case .record(let record) = stored {
            differs = record.home != state.record.home || record.epoch != state.record.epoch
        }
        let standing: SessionExplanation.Copy.State =
            switch decision {
            case .trust: .trusted
            case .verify: .toBeVerified
            case .load: .suspect
            case .deliver: .unsent
            }
        return .init(
            state: standing, epoch: "\(state.record.epoch.value)",
            accessedAt: Date(wallMilliseconds: state.record.accessedAt), differsFromStore: differs)
    }
}

extension SessionExplanation.Stored {
    /// - Parameter savedAt: the access time that is stored beside the record; 0 if there is none.
    fileprivate init(_ stored: StoredSession?, savedAt: Int64) {
        switch stored {
        case .record(let record):
            self.init(kind: .record, record: SessionExplanation.Record(record, savedAt: savedAt))
        case .tombstone(let tombstone):
            self.init(
                kind: tombstone.alias == nil ? .ended : .readableOldID, reason: "\(tombstone.reason)",
                readableUntil: tombstone.alias.map { Date(wallMilliseconds: $0.readableUntil) },
                record: tombstone.alias.map { SessionExplanation.Record($0.record, savedAt: 0) })
        case nil:
            self.init(kind: .nothing)
        }
    }
}

extension SessionExplanation.Record {
    fileprivate init(_ record: SessionRecord, savedAt: Int64) {
        let accessedAt = max(record.accessedAt, savedAt)
        self.init(
            home: record.home.name, incarnation: "\(record.home.incarnation)", epoch: "\(record.epoch.value)",
            createdAt: Date(wallMilliseconds: record.createdAt), accessedAt: Date(wallMilliseconds: accessedAt),
            expiresAt: Date(wallMilliseconds: accessedAt + record.maxInactive),
            attributes: record.attributes.sorted { $0.key < $1.key }.map {
                .init(name: $0.key, bytes: $0.value.bytes.count)
            })
    }
}

extension Date {
    fileprivate init(wallMilliseconds: Int64) {
        self.init(timeIntervalSince1970: Double(wallMilliseconds) / 1000)
    }
}
