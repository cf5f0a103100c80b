/// A request finds its session: rules R1 to R4, R18 where the store has lost it, and R25 where it cannot be asked.
extension SessionCoherence {
    /// Finds the session of a cookie; `nil` if there is none.
    ///
    /// The sticky path ends in this function, without a store call and without suspension.
    ///
    /// - Parameter now: when the request entered the session's lock, in which it is alone. Monotonic.
    func checkout(_ cookie: SessionCookie.Presented, at now: UInt64) async throws -> Checkout? {
        guard let copy = local.find(cookie.id) ?? dropped(cookie.id) else {
            return try await load(cookie, copy: nil, startedAt: now)
        }
        switch readDecision(copy, cookie, at: now) {
        case .trust:
            return try await use(copy, cookie, source: .local, startedAt: now)
        case .verify:
            let isCurrent: Bool
            do throws(SessionError) {
                isCurrent = try await verify(copy, at: now)
            } catch {
                guard cookie.namesThisNode, mayServe(after: error) else { throw error }
                return try await use(copy, cookie, source: .local, startedAt: now)
            }
            guard isCurrent else { return try await load(cookie, copy: copy, startedAt: now) }
            return try await use(copy, cookie, source: .verified, startedAt: now)
        case .load:
            return try await load(cookie, copy: copy, startedAt: now)
        case .deliver:
            return try await deliver(copy, cookie, startedAt: now)
        }
    }

    func readDecision(_ copy: SessionCopy, _ cookie: SessionCookie.Presented, at now: UInt64) -> ReadDecision {
        let storeIsDown = isStoreDown(copy.keys)
        let decision = copy.withState { state in
            ReadDecision(
                copy: .init(
                    home: state.record.home, isSuspect: state.isSuspect, verifiedAt: state.verifiedAt,
                    hasUnsent: state.unsent != nil),
                node: node, isRoaming: isRoaming, cookieNamesThisNode: cookie.namesThisNode,
                watchIsFresh: watch.isFresh(copy.keys.server, now: now),
                lockedSince: isClusterLocked ? clusterLocks.heldSince(cookie.id, now: now) : 0, now: now,
                saveInterval: saveIntervalNanoseconds, storeIsDown: storeIsDown)
        }
        if decision == .verify, !keeps(.r1) { return .trust }
        if storeIsDown, !keeps(.r25) { return .trust }
        return decision
    }

    /// A copy that was dropped with changes that the store has not: it is the only place that has them, and no more than that.
    private func dropped(_ id: SessionID) -> SessionCopy? {
        guard let copy = unsent.find(id) else { return nil }
        copy.withState { $0.isSuspect = true }
        return copy
    }

    /// R25: the store is back before the session's changes were delivered: this request does it.
    private func deliver(
        _ copy: SessionCopy, _ cookie: SessionCookie.Presented, startedAt: UInt64
    ) async throws -> Checkout? {
        do {
            switch try await settle(copy, cookieNamesThisNode: cookie.namesThisNode) {
            case .stored, .unsent: return try await use(copy, cookie, source: .store, startedAt: startedAt)
            case .gone, .lost: return try await load(cookie, copy: local.find(cookie.id), startedAt: startedAt)
            }
        } catch let error as SessionError
            where cookie.namesThisNode && mayServe(after: error) && !copy.withState({ $0.isSuspect })
        {
            return try await use(copy, cookie, source: .local, startedAt: startedAt)
        }
    }

    /// R2: whether the copy has the store's epoch.
    func verify(_ copy: SessionCopy, at now: UInt64) async throws(SessionError) -> Bool {
        let counter = try await epoch(copy.keys)
        return copy.withState { state in
            guard counter == state.record.epoch || (counter != nil && !keeps(.r2)) else {
                // Whatever becomes of this request, the copy is trusted no more.
                note(.foundStale, copy.keys)
                state.verifiedAt = nil
                return false
            }
            // Known as of the moment before the question.
            state.verifiedAt = now
            return true
        }
    }

    /// Starts the request on a copy that is known to be the session; ends the session if it has expired.
    private func use(
        _ copy: SessionCopy, _ cookie: SessionCookie.Presented, source: Session.Source, startedAt: UInt64
    ) async throws -> Checkout? {
        if let checkout = begin(copy, cookie, source: source, startedAt: startedAt) { return checkout }
        return try await expire(copy) ? nil : try await checkout(cookie, at: clock.monotonicNanoseconds())
    }

    /// Starts the request on a copy that is known to be the session; `nil` if the session has expired.
    func begin(
        _ copy: SessionCopy, _ cookie: SessionCookie.Presented, source: Session.Source, startedAt: UInt64
    ) -> Checkout? {
        let now = clock.wallMilliseconds()
        let checkout = copy.withState { state -> Checkout? in
            guard state.expiresAt > now else { return nil }
            access(&state, at: now)
            return Checkout(
                copy: copy, state: state, source: source, startedAt: startedAt, routeIsStale: !cookie.namesThisNode,
                isAccessSaveDue: AccessRule.isDue(
                    accessedAt: state.record.accessedAt, savedAt: state.savedAt, saveInterval: saveIntervalMilliseconds)
            )
        }
        guard checkout != nil else { return nil }
        switch source {
        case .local: statistics.localHits.add(1)
        case .verified: statistics.verified.add(1)
        case .store, .new: break
        }
        return checkout
    }

    private func access(_ state: inout SessionCopy.State, at now: Int64) {
        state.record.lastAccessedAt = state.record.accessedAt
        // A clock that was set back does not make a session older than it is.
        state.record.accessedAt = max(state.record.accessedAt, now)
    }

    /// R3: reads the session from the store and brings it home to this node.
    func load(
        _ cookie: SessionCookie.Presented, copy: SessionCopy?, startedAt: UInt64
    ) async throws -> Checkout? {
        if copy == nil { try await membership.awaitGeneration() }
        var keys = copy?.keys ?? names.keys(of: cookie.id)
        let arrival = watch.expect(keys)
        var loaded: SessionCopy?
        var search = Search()
        var raised: Epoch?
        defer { watch.arrived(arrival, loaded) }
        var began = clock.monotonicNanoseconds()
        for attempt in 0..<Self.attempts {
            try await pause(before: attempt, since: began)
            let asked = clock.monotonicNanoseconds()
            search.settled = watch.settledMark(keys.server)
            let found = try await read(keys, andGeneration: true)
            guard keys.generation == names.generation else {
                // R20: all sessions have ended, and this node's watch has not heard of it yet.
                keys = names.keys(of: cookie.id)
                continue
            }
            try requireLock(cookie.id, since: asked)
            let now = clock.wallMilliseconds()
            // A takeover whose outcome nobody knows has left one.
            let copy = attempt == 0 ? copy : local.find(cookie.id) ?? copy
            let copyState = copy?.snapshot
            let counter =
                copyState.map { RepublishRule.counter(found.counter, raised: raised, copy: $0.record.epoch) }
                ?? found.counter
            // Once all who may have a newer copy were asked, this node may put its own back whatever the route says: as the sweep
            // does, which cannot, with a request in the session.
            let decision = LoadDecision(
                stored: found.stored, counter: counter, copy: copyState.map { republishable($0) },
                cookieNamesThisNode: cookie.namesThisNode || search.hasAsked, now: now, tolerance: expiryTolerance)
            switch decision {
            case .gone(let tombstone):
                if try await undo(tombstone, cookie.id) { continue }
                forget(cookie.id)
                if tombstone.reason != .rotated { return newCheckout(replacesEnded: true) }
                return readOnlyCheckout(tombstone, cookie.id, keys, startedAt: startedAt)
            case .notFound:
                if let copy, isOverdue(copy) {
                    // Its own keys have ended with it: this node is the one to tell.
                    guard try await expire(copy) else { continue }
                    return newCheckout(replacesEnded: true)
                }
                if let copy { setAside(copy, counter: counter) }
                guard try await mayBeElsewhere(cookie, keys, found, &search) else {
                    return newCheckout(replacesEnded: true)
                }
                // Waiting for others is not the store's delay.
                began = clock.monotonicNanoseconds()
            case .expired(let record):
                let judged = Judged(home: record.home, epoch: record.epoch)
                switch try await end(cookie.id, keys, reason: .expired, judged: judged) {
                case .not, .before(.rotated): continue
                case .here, .before: return newCheckout(replacesEnded: true)
                }
            case .republish:
                if let copy, try await republish(copy) {
                    statistics.loads.add(1)
                    return try await use(copy, cookie, source: .store, startedAt: startedAt)
                }
            case .take(let record):
                // This node, while it was home, may have seen more requests than it saved.
                let ownAccess = copyState.map { $0.record.home == node ? $0.record.accessedAt : 0 } ?? 0
                let accessedAt = max(record.accessedAt, ownAccess)
                let taken =
                    isRoaming || !keeps(.r3)
                    ? try await share(
                        record, found, keys: keys, id: cookie.id, accessedAt: accessedAt, now: now, asked: asked)
                    : try await take(
                        record, found, keys: keys, cookie: cookie, accessedAt: accessedAt, now: now, asked: asked,
                        &raised)
                guard let taken else { continue }
                loaded = taken
                statistics.loads.add(1)
                if !isRoaming, record.home != node {
                    statistics.takeovers.add(1)
                    note(.takenOver, keys, with: record.home.name)
                } else {
                    note(.loaded, keys)
                }
                let state = taken.snapshot
                return Checkout(
                    copy: taken, state: state, source: .store, startedAt: startedAt,
                    routeIsStale: !cookie.namesThisNode,
                    isAccessSaveDue: isAccessSaveDue(state))
            }
        }
        throw tooManyConflicts()
    }

    /// R3 and R6: raises the epoch, so that every older copy is known to be stale, and swaps the record for one that names
    /// this node as home. `nil` if the record was changed meanwhile, or nobody knows: read again.
    private func take(
        _ record: SessionRecord, _ found: Found, keys: SessionStoreKeys, cookie: SessionCookie.Presented,
        accessedAt: Int64, now: Int64, asked: UInt64, _ raised: inout Epoch?
    ) async throws -> SessionCopy? {
        guard let token = found.token else { return nil }
        let timeToLive = timeToLive(maxInactive: record.maxInactive)
        var record = record
        let home = record.home
        record.home = node
        record.epoch = try await raiseEpoch(keys, beyond: record.epoch, timeToLive: timeToLive)
        raised = record.epoch
        try await bump(home, keys)
        record.lastAccessedAt = accessedAt
        record.accessedAt = max(accessedAt, now)
        if !cookie.namesThisNode { record.cookieSetAt = now }
        do {
            let bytes = try StoredSession.record(record).bytes(keys: keys)
            switch try await store.put(bytes, for: keys.data, timeToLive: timeToLive, if: .unchanged(since: token)) {
            case .stored(let token):
                let copy = SessionCopy(
                    id: cookie.id, keys: keys,
                    state: .init(
                        record: record, token: token, verifiedAt: asked,
                        savedAt: max(record.createdAt, found.savedAt)))
                local.insert(copy)
                if token == nil { refresh.add(copy) }
                return copy
            case .conflict:
                statistics.conflicts.add(1)
                note(.conflict, keys)
                return nil
            }
        } catch {
            guard error.mayHaveTakenEffect else { throw SessionError(error) }
            note(.unknownOutcome, keys)
            if keeps(.r12), local.find(cookie.id)?.hasUnsent != true {
                // If it is there, the old home drops its copy, and this one may be the only one. If not, the watch finds out.
                let copy = SessionCopy(
                    id: cookie.id, keys: keys,
                    state: .init(
                        record: record, token: nil, verifiedAt: nil, isSuspect: true,
                        savedAt: max(record.createdAt, found.savedAt)))
                local.insert(copy)
                watch.doubt(keys.server, [copy])
            }
            return nil
        }
    }

    /// R3 where any node may have a copy: keeps what was read, with the epoch inside it (R4), and sees to it that there is an epoch
    /// to compare it with.
    private func share(
        _ record: SessionRecord, _ found: Found, keys: SessionStoreKeys, id: SessionID, accessedAt: Int64, now: Int64,
        asked: UInt64
    ) async throws -> SessionCopy? {
        if found.counter.map({ $0 < record.epoch }) ?? true {
            do {
                try await make(
                    keys, atLeast: record.epoch, timeToLive: timeToLive(maxInactive: record.maxInactive))
            } catch {
                throw SessionError(error)
            }
        }
        var record = record
        if !keeps(.r4), let counter = found.counter { record.epoch = counter }
        record.lastAccessedAt = accessedAt
        record.accessedAt = max(accessedAt, now)
        let copy = SessionCopy(
            id: id, keys: keys,
            state: .init(
                record: record, token: found.token, verifiedAt: asked, savedAt: max(record.createdAt, found.savedAt)))
        local.insert(copy)
        // Somebody may have raised the epoch, told this node, which looked, and be about to change the record: look again.
        if found.counter != record.epoch { watch.doubt(keys.server, [copy]) }
        return copy
    }

    /// R18: puts a session that the store has lost back from its copy, under an epoch that no other copy has.
    ///
    /// - Parameter isSwept: after a loss of the whole memory, when every node looks at all that it has.
    /// - Returns: `false` if somebody else's record is there after all: the copy is suspect from then on, and the watch finds out
    ///   whether it is older, before the store can lose that record, too.
    func republish(_ copy: SessionCopy, isSwept: Bool = false) async throws(SessionError) -> Bool {
        do {
            let asked = clock.monotonicNanoseconds()
            var record = copy.snapshot.record
            // What is left of its life: to be put back is no access.
            let left = max(1, record.expiresAt - clock.wallMilliseconds())
            let timeToLive = timeToLive(maxInactive: left)
            let counter = try await store.get(copy.keys.epoch).flatMap { Epoch(ascii: $0.bytes) }
            record.epoch = Epoch(
                wallMilliseconds: clock.wallMilliseconds(), after: [record.epoch] + (counter.map { [$0] } ?? []))
            let bytes = try StoredSession.record(record).bytes(keys: copy.keys)
            switch try await store.putIfAbsent(bytes, for: copy.keys.data, timeToLive: timeToLive) {
            case .conflict:
                copy.withState { $0.isSuspect = true }
                note(.suspected, copy.keys)
                watch.doubt(copy.keys.server, [copy])
                return false
            case .stored(let token):
                // What was lost with the record, perhaps.
                if isClusterLocked { clusterLocks.lose(copy.id) }
                copy.withState { state in
                    state.record = record
                    state.token = token
                    state.verifiedAt = asked
                    state.isSuspect = false
                    state.savedAt = record.accessedAt
                }
                statistics.republished.add(1)
                note(.republished, copy.keys)
                if token == nil { refresh.add(copy) }
                try await make(copy.keys, atLeast: record.epoch, timeToLive: timeToLive)
            }
        } catch {
            throw SessionError(error)
        }
        if !isSwept, !isRoaming { try await tellOthers(copy.keys) }
        return true
    }

    /// Another node that takes itself for home, too, learns of what was put back as of a takeover.
    private func tellOthers(_ keys: SessionStoreKeys) async throws(SessionError) {
        for name in try await othersAlive() { try await bump(name, keys) }
    }

    /// What R18 needs to know of a copy.
    func republishable(_ state: SessionCopy.State) -> RepublishRule.Copy {
        .init(isHome: state.record.home == node || !keeps(.r18), epoch: state.record.epoch, expiresAt: state.expiresAt)
    }

    /// Whether this node is home of a session that nobody asked for in time.
    private func isOverdue(_ copy: SessionCopy) -> Bool {
        copy.withState { $0.record.home == node && $0.expiresAt <= clock.wallMilliseconds() }
    }

    /// A copy whose record is missing, and that may not be put back for this request: forgotten if it is of no use any more,
    /// else kept aside, for it may be the only one.
    func setAside(_ copy: SessionCopy, counter: Epoch?) {
        let isOvertaken = copy.withState { state in
            state.isSuspect = true
            return RepublishRule.isOvertaken(
                copy: republishable(state), counter: counter, now: clock.wallMilliseconds())
        }
        note(isOvertaken ? .dropped : .suspected, copy.keys)
        if isOvertaken { forget(copy) } else { watch.doubt(copy.keys.server, [copy]) }
    }

    /// Makes the epoch counter, or raises it, to a record's epoch.
    private func make(
        _ keys: SessionStoreKeys, atLeast epoch: Epoch, timeToLive: Duration
    ) async throws(StoreError) {
        guard case .conflict = try await store.putIfAbsent(epoch.ascii, for: keys.epoch, timeToLive: timeToLive),
            let entry = try await store.get(keys.epoch), let counter = Epoch(ascii: entry.bytes), counter < epoch
        else { return }
        // Two that raise at once make it higher than the record's epoch: the next reader reloads.
        _ = try await store.increment(keys.epoch, by: epoch.value - counter.value)
    }

    /// What the store has of a session.
    struct Found {
        let stored: StoredSession?
        let token: StoreToken?
        let counter: Epoch?
        /// When the epoch's time to live was last started anew, as far as the store tells; 0 if it does not.
        let savedAt: Int64
    }

    /// Reads record, epoch and access time in one round trip. The record has the later one of the two access times.
    ///
    /// - Parameter andGeneration: also reads how often all sessions were ended. A server that does not tell hides that until it does.
    func read(_ keys: SessionStoreKeys, andGeneration: Bool = false) async throws(SessionError) -> Found {
        var all = [keys.data, keys.epoch, keys.access]
        if andGeneration { all.append(names.generationCounter) }
        let results = await store.get(all)
        if andGeneration, case .success(let entry?) = results[3], let generation = Epoch(ascii: entry.bytes)?.value,
            generation > keys.generation
        {
            await membership.observe(generation: generation)
        }
        do {
            let data = try results[0].get()
            let counter = try results[1].get()
            let access = try results[2].get()
            var stored = try data.map { entry throws(StoreError) in try StoredSession(bytes: entry.bytes, keys: keys) }
            let savedAt = try access.map { entry throws(StoreError) in
                try AccessTime(bytes: entry.bytes, keys: keys).accessedAt
            }
            if case .record(var record) = stored, let savedAt {
                record.accessedAt = max(record.accessedAt, savedAt)
                stored = .record(record)
            }
            return Found(
                stored: stored, token: data?.token, counter: try counter.map(Self.counter), savedAt: savedAt ?? 0)
        } catch {
            throw SessionError(error)
        }
    }

    func epoch(_ keys: SessionStoreKeys) async throws(SessionError) -> Epoch? {
        do {
            return try await store.get(keys.epoch).map(Self.counter)
        } catch {
            throw SessionError(error)
        }
    }

    private static func counter(_ entry: StoreEntry) throws(StoreError) -> Epoch {
        guard let epoch = Epoch(ascii: entry.bytes) else {
            throw StoreError(.corrupt, "a session's epoch in the store is no number", mayHaveTakenEffect: false)
        }
        return epoch
    }
}
