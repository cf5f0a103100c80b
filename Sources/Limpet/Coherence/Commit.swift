import Logging

/// A request's changes become part of the session: rules R7 to R9, R12 to R14, R16 and R25.
extension SessionCoherence {
    /// What became of a session that a request changed.
    enum Committed {
        /// The store acknowledged the changes; on another node's record, if merged.
        case stored(merged: Bool)
        /// The session was ended meanwhile: nothing was written.
        case gone(Tombstone.Reason)
        /// The session ended, or moved and was lost: nothing was written.
        case lost
        /// R25: the store is down, and the changes are kept here.
        case unsent
    }

    /// Commits a request's changes; while the store is down, they are kept here (R25).
    func commit(_ changes: SessionChanges, to copy: SessionCopy, cookieNamesThisNode: Bool) async throws -> Committed {
        do {
            return try await send(changes, to: copy, cookieNamesThisNode: cookieNamesThisNode)
        } catch let error as SessionError {
            guard keep(changes, of: copy, after: error, cookieNamesThisNode: cookieNamesThisNode) else { throw error }
            return .unsent
        }
    }

    /// R7: swaps the record for one with the changes. R9: puts them on another node's newer record. What was kept while the
    /// store was down goes along.
    ///
    /// The copy changes only after the store said so. If nobody knows what became of a write (R12), the copy is suspect: the
    /// next request takes the session over, and its swap fences the late write.
    func send(_ changes: SessionChanges, to copy: SessionCopy, cookieNamesThisNode: Bool) async throws -> Committed {
        let began = clock.monotonicNanoseconds()
        var raised: Epoch?
        for attempt in 0..<Self.attempts {
            try await pause(before: attempt, since: began)
            var state = copy.snapshot
            if case .never = state.unsent?.planting {
                if try await plant(copy, state, changes) { return .stored(merged: false) }
                state = copy.snapshot
            }
            if let token = state.token, !state.isSuspect {
                if try await swap(copy, state, token, changes, &raised) { return .stored(merged: false) }
                state = copy.snapshot
            }
            let (stored, token) = try await readData(copy.keys)
            switch CommitDecision(stored: stored, home: state.record.home, epoch: state.record.epoch) {
            case .gone(let tombstone):
                if case .unknown = state.unsent?.planting { tellCreated(copy.keys) }
                forget(copy.id)
                refused(copy.keys)
                return .gone(tombstone.reason)
            case .adopt:
                if let token, try await swap(copy, state, token, changes, &raised) { return .stored(merged: false) }
            case .merge where !keeps(.r8):
                if let token, try await swap(copy, state, token, changes, &raised) { return .stored(merged: false) }
            case .merge(let record):
                copy.withState { $0.isSuspect = true }
                // R23: what the handler did, it did to a session that it had alone. What was kept without the store is merged.
                if isClusterLocked, state.unsent == nil { throw lostLock() }
                if let token, try await merge(copy, record, token, changes) { return .stored(merged: true) }
            case .missing:
                let counter = RepublishRule.counter(
                    try await read(copy.keys).counter, raised: raised, copy: state.record.epoch)
                let may = RepublishRule.mayRepublish(
                    copy: republishable(state), counter: counter, cookieNamesThisNode: cookieNamesThisNode,
                    now: clock.wallMilliseconds())
                guard may else {
                    setAside(copy, counter: counter)
                    return .lost
                }
                // Whether it was put back or somebody else's record was found: the next round knows.
                _ = try await republish(copy)
            }
        }
        throw tooManyConflicts()
    }

    /// A write met the session's end.
    func refused(_ keys: SessionStoreKeys) {
        statistics.writesRefused.add(1)
        note(.writeRefused, keys)
    }

    /// R7: one conditional write under the copy's own epoch. `false` if the store refused it.
    ///
    /// - Parameter raised: the epoch that was made for it, where every node may have a copy.
    private func swap(
        _ copy: SessionCopy, _ state: SessionCopy.State, _ token: StoreToken, _ changes: SessionChanges,
        _ raised: inout Epoch?
    ) async throws -> Bool {
        var record = state.current
        changes.apply(to: &record)
        let renewsEpoch = renewsEpoch(state, changes)
        guard isRoaming else { return try await put(record, since: token, copy: copy, renewsEpoch: renewsEpoch) }
        // Every node may have a copy: all of them become stale, and this node home.
        if keeps(.r10) { record.home = node }
        record.epoch = try await raiseEpoch(
            copy.keys, beyond: state.record.epoch, timeToLive: timeToLive(maxInactive: record.maxInactive))
        raised = record.epoch
        try await bump(state.record.home, copy.keys)
        return try await put(record, since: token, copy: copy, renewsEpoch: renewsEpoch)
    }

    /// R14, for a dirty commit: what waited for the store did so without renewing anything.
    private func renewsEpoch(_ state: SessionCopy.State, _ changes: SessionChanges) -> Bool {
        isAccessSaveDue(state) || changes.maxInactive != nil || state.unsent != nil
    }

    /// R9 and R6: this request's changes, and nothing else, on the newer record; who merges becomes home.
    private func merge(
        _ copy: SessionCopy, _ newer: SessionRecord, _ token: StoreToken, _ changes: SessionChanges
    ) async throws -> Bool {
        var record = newer
        let state = copy.snapshot
        let accessedAt = state.record.accessedAt
        if keeps(.r10) { record.home = node }
        if !keeps(.r9) { record.attributes.merge(state.record.attributes) { _, own in own } }
        record.epoch = try await raiseEpoch(
            copy.keys, beyond: newer.epoch, timeToLive: timeToLive(maxInactive: newer.maxInactive))
        try await bump(newer.home, copy.keys)
        record.lastAccessedAt = max(newer.lastAccessedAt, min(newer.accessedAt, accessedAt))
        record.accessedAt = max(newer.accessedAt, accessedAt)
        record.cookieSetAt = clock.wallMilliseconds()
        let unchanged = record
        state.unsent?.apply(to: &record, since: state.record)
        changes.apply(to: &record)
        do {
            guard try await put(record, since: token, copy: copy, renewsEpoch: renewsEpoch(state, changes)) else {
                return false
            }
        } catch let error as SessionError where error.code == .outcomeUnknown && state.unsent == nil && keeps(.r12) {
            // If it is there, the other node drops its copy, and this one may be the only one. If not, the watch finds out.
            copy.withState { state in
                state.record = unchanged
                state.token = nil
            }
            local.insert(copy)
            watch.doubt(copy.keys.server, [copy])
            throw error
        }
        statistics.merges.add(1)
        note(.merged, copy.keys, with: newer.home.name)
        return true
    }

    private func put(
        _ record: SessionRecord, since token: StoreToken, copy: SessionCopy, renewsEpoch: Bool
    ) async throws -> Bool {
        let timeToLive = timeToLive(maxInactive: record.maxInactive)
        let asked = clock.monotonicNanoseconds()
        // Another node may take the session over, and the watch drop the copy, before the answer is here.
        let arrival = watch.expect(copy.keys)
        var written: SessionCopy?
        defer { watch.arrived(arrival, written) }
        if !keeps(.r13) { copy.withState { $0.record = record } }
        do {
            let bytes = try StoredSession.record(record).bytes(keys: copy.keys)
            let condition = keeps(.r7) ? StoreCondition.unchanged(since: token) : .always
            switch try await store.put(bytes, for: copy.keys.data, timeToLive: timeToLive, if: condition) {
            case .stored(let newToken):
                acknowledge(record, token: newToken, copy, verifiedAt: asked)
                written = copy
            case .conflict:
                copy.withState { $0.token = nil }
                statistics.conflicts.add(1)
                note(.conflict, copy.keys)
                return false
            }
        } catch {
            noteFailure(error, of: copy)
            throw SessionError(error)
        }
        if renewsEpoch { await renewEpoch(of: copy, accessedAt: record.accessedAt, timeToLive: timeToLive) }
        return true
    }

    /// R13: the store has the record, with all that waited for it.
    private func acknowledge(
        _ record: SessionRecord, token: StoreToken?, _ copy: SessionCopy, verifiedAt: UInt64
    ) {
        let sent = copy.withState { state in
            state.record = record
            state.token = token
            state.verifiedAt = verifiedAt
            state.isSuspect = false
            defer { state.unsent = nil }
            return state.unsent
        }
        // Its place in the index of expiry may be earlier now.
        local.insert(copy)
        statistics.commits.add(1)
        note(.committed, copy.keys)
        if token == nil { refresh.add(copy) }
        guard let sent else { return }
        unsent.remove(copy.id)
        statistics.unsentDelivered.add(1)
        if sent.planting != .stored { tellCreated(copy.keys) }
    }

    /// R12: whatever became of it, this copy is read from no more if the write may be there.
    private func noteFailure(_ error: StoreError, of copy: SessionCopy) {
        guard error.mayHaveTakenEffect, keeps(.r12) else { return }
        note(.unknownOutcome, copy.keys)
        copy.withState { state in
            state.isSuspect = true
            state.unsent = state.unsent?.afterUnknownOutcome
        }
    }

    /// R14 for a dirty commit: the record has a new time to live already, the epoch gets one when that is due. The commit is
    /// acknowledged: a failure here is made good by the next request.
    private func renewEpoch(of copy: SessionCopy, accessedAt: Int64, timeToLive: Duration) async {
        do {
            let exists = try await store.touch(copy.keys.epoch, timeToLive: timeToLive)
            try await renewLock(of: copy, timeToLive: timeToLive)
            noteRenewal(of: copy, accessedAt: accessedAt, keysExist: exists)
        } catch {
            accessTimeNotSaved(error)
        }
    }

    /// R14 for a request that changed nothing: writes the access time and starts the times to live anew.
    ///
    /// The request read its session rightly, whatever becomes of this: a failure is said in the log and counted, and the next
    /// request tries again.
    ///
    /// Requests that read beside each other find that it is due at the same time: one of them saves.
    func saveAccessTime(_ copy: SessionCopy) async {
        let due = copy.withState { state -> SessionRecord? in
            guard !state.isSavingAccess else { return nil }
            state.isSavingAccess = true
            return state.record
        }
        guard let record = due else { return }
        defer { copy.withState { $0.isSavingAccess = false } }
        let timeToLive = timeToLive(maxInactive: record.maxInactive)
        do {
            let bytes = try AccessTime(accessedAt: record.accessedAt).bytes(keys: copy.keys)
            _ = try await store.put(bytes, for: copy.keys.access, timeToLive: timeToLive, if: .always)
            let epochExists = try await store.touch(copy.keys.epoch, timeToLive: timeToLive)
            let recordExists = try await store.touch(copy.keys.data, timeToLive: timeToLive)
            try await renewLock(of: copy, timeToLive: timeToLive)
            noteRenewal(of: copy, accessedAt: record.accessedAt, keysExist: epochExists && recordExists)
            statistics.accessTimeSaves.add(1)
        } catch {
            accessTimeNotSaved(error)
        }
    }

    private func noteRenewal(of copy: SessionCopy, accessedAt: Int64, keysExist: Bool) {
        copy.withState { state in
            state.savedAt = accessedAt
            // The store has lost something: the next request asks, and puts it back.
            if !keysExist { state.verifiedAt = nil }
        }
    }

    private func accessTimeNotSaved(_ error: StoreError) {
        statistics.accessTimeSaveFailures.add(1)
        // An outage is said once, when it begins.
        logger.log(
            level: error.wasRefused ? .debug : .warning,
            "The store did not take a session's access time; the next request tries again",
            metadata: [LogKey.error: "\(error)"])
    }

    func isAccessSaveDue(_ state: SessionCopy.State) -> Bool {
        AccessRule.isDue(
            accessedAt: state.record.accessedAt, savedAt: state.savedAt, saveInterval: saveIntervalMilliseconds)
    }

    /// R16: stores a new session, under an id that nobody else has. The epoch comes first: whoever finds the record finds it.
    func create(_ changes: SessionChanges, at createdAt: Int64, maxInactive: Int64) async throws -> SessionID {
        try await membership.awaitGeneration()
        let id = changes.newID ?? SessionID()
        var record = SessionRecord(
            home: node, epoch: Epoch(wallMilliseconds: clock.wallMilliseconds()), createdAt: createdAt,
            accessedAt: createdAt, lastAccessedAt: createdAt, cookieSetAt: createdAt, maxInactive: maxInactive,
            attributes: [:])
        let empty = record
        let keys = names.keys(of: id)
        changes.apply(to: &record)
        do {
            try await plant(record, id: id, keys: keys)
        } catch {
            guard keepNew(empty, changes, id: id, keys: keys, after: error) else { throw error }
            return id
        }
        statistics.commits.add(1)
        tellCreated(keys)
        return id
    }

    private func tellCreated(_ keys: SessionStoreKeys) {
        statistics.created.add(1)
        events.created(SessionFingerprint(keys))
        note(.created, keys)
    }

    /// R16 for a session that was begun while the store was down. `false` if an earlier attempt, which nobody answered, has
    /// stored it: it is a session as others are.
    private func plant(
        _ copy: SessionCopy, _ state: SessionCopy.State, _ changes: SessionChanges
    ) async throws -> Bool {
        var record = state.current
        changes.apply(to: &record)
        let timeToLive = timeToLive(maxInactive: record.maxInactive)
        let asked = clock.monotonicNanoseconds()
        let arrival = watch.expect(copy.keys)
        var planted: SessionCopy?
        defer { watch.arrived(arrival, planted) }
        do {
            let bytes = try StoredSession.record(record).bytes(keys: copy.keys)
            // One that is there is this node's own, of an attempt that got no further.
            _ = try await store.putIfAbsent(record.epoch.ascii, for: copy.keys.epoch, timeToLive: timeToLive)
            switch try await store.putIfAbsent(bytes, for: copy.keys.data, timeToLive: timeToLive) {
            case .stored(let token):
                acknowledge(record, token: token, copy, verifiedAt: asked)
                planted = copy
                return true
            case .conflict:
                copy.withState { $0.unsent = $0.unsent?.afterUnknownOutcome }
                return false
            }
        } catch {
            noteFailure(error, of: copy)
            throw SessionError(error)
        }
    }

    /// Puts epoch and record of a fresh id, and keeps the copy.
    @discardableResult
    func plant(_ record: SessionRecord, id: SessionID, keys: SessionStoreKeys) async throws(SessionError) -> SessionCopy
    {
        let timeToLive = timeToLive(maxInactive: record.maxInactive)
        let asked = clock.monotonicNanoseconds()
        let arrival = watch.expect(keys)
        var planted: SessionCopy?
        defer { watch.arrived(arrival, planted) }
        do {
            let bytes = try StoredSession.record(record).bytes(keys: keys)
            guard
                case .stored = try await store.putIfAbsent(record.epoch.ascii, for: keys.epoch, timeToLive: timeToLive),
                case .stored(let token) = try await store.putIfAbsent(bytes, for: keys.data, timeToLive: timeToLive)
            else { throw SessionError(.conflict, "the store has a session under an id that was just made") }
            let copy = SessionCopy(
                id: id, keys: keys,
                state: .init(record: record, token: token, verifiedAt: asked, savedAt: record.accessedAt))
            local.insert(copy)
            planted = copy
            if token == nil { refresh.add(copy) }
            if isClusterLocked { await plantLock(id, keys, since: asked, timeToLive: timeToLive) }
            return copy
        } catch let error as StoreError {
            throw SessionError(error)
        } catch let error as SessionError {
            throw error
        } catch {
            throw SessionError(.conflict, "the session could not be stored", cause: error)
        }
    }

    /// Reads the record alone.
    func readData(_ keys: SessionStoreKeys) async throws(SessionError) -> (StoredSession?, StoreToken?) {
        do {
            guard let entry = try await store.get(keys.data) else { return (nil, nil) }
            return (try StoredSession(bytes: entry.bytes, keys: keys), entry.token)
        } catch {
            throw SessionError(error)
        }
    }
}
