import Logging

/// A request keeps others out of its session on all nodes: rule R23, over the store.
extension SessionCoherence {
    /// Looks at a lock that another node holds: at once for one that is about to let go, and as often as a poll in the end.
    private static let firstPause = Duration.milliseconds(10)
    private static let longestPause = Duration.milliseconds(250)
    /// A lock that was let go is left to those who wait for it: they look within ``longestPause``.
    private static let yield = Duration.milliseconds(300)
    /// A mark outlives the poll that reads it by far, and is renewed in time while somebody waits.
    private var markTimeToLive: Duration { max(.seconds(2), configuration.peerPoll * 4) }
    /// Locks in one read: some 60 bytes each.
    private static let locksOfRead = 500
    private static let letGoAtOnce = 16

    /// How a request came in.
    struct Entrance {
        /// Whether this node has the lock for it; not while the store is down, and the node goes on without (R25).
        var isLocked: Bool
        var waited: Duration = .zero
    }

    /// What a request that waits has told the holder.
    private struct Waiting {
        let deadline: UInt64
        var pause = SessionCoherence.firstPause
        var conflicts = 0
        var isCounted = false
        /// The lock that was marked, and when.
        var marked: (number: UInt64, at: UInt64)?
        /// How the lock was found before an answer about it was lost.
        var doubt: ClusterLockTaking?
    }

    private enum Asked { case taken, again, wait }

    /// The first of this node's requests in a session takes the cluster's lock, before it reads.
    ///
    /// - Parameter waited: how long the request has waited already.
    /// - Throws: ``SessionError`` (`lockTimeout`, or the store's failure); `CancellationError`.
    func enterCluster(_ id: SessionID, waited: Duration) async throws -> Entrance {
        let began = clock.monotonicNanoseconds()
        let first = clusterLocks.enter(id, generation: names.generation, names.keys(of: id), now: began)
        if first == .entered { return Entrance(isLocked: true) }
        clusterWaits.join(id, names.keys(of: id))
        defer { clusterWaits.leave(id) }
        do {
            var waiting = Waiting(deadline: began + (configuration.lock.timeout - waited).nanoseconds)
            try await waitForLock(of: id, first, &waiting)
        } catch let error as SessionError where mayServe(after: error) {
            return Entrance(isLocked: false)
        }
        return Entrance(isLocked: true, waited: .nanoseconds(clock.monotonicNanoseconds() - began))
    }

    private func waitForLock(of id: SessionID, _ first: ClusterLocks.Entrance, _ wait: inout Waiting) async throws {
        // What was busy is looked at once more: it may have been over before this request was in line for news.
        var asks: ClusterLocks.Entrance? = first == .busy ? nil : first
        while true {
            let news = clusterWaits.news(of: id)
            let entrance =
                asks
                ?? clusterLocks.enter(
                    id, generation: names.generation, names.keys(of: id), now: clock.monotonicNanoseconds())
            asks = nil
            switch entrance {
            case .entered: return
            case .busy: break
            case .ask(let yields, let mayHold):
                do {
                    let keys = names.keys(of: id)
                    switch try await askForLock(id, keys, yields: yields, mayHold: mayHold, &wait) {
                    case .taken: return
                    case .again: wait.conflicts += 1
                    case .wait: wait.conflicts = Self.attempts
                    }
                } catch {
                    clusterLocks.gaveUp(id, now: clock.monotonicNanoseconds())
                    // Somebody else has to ask.
                    clusterWaits.wake(id)
                    if let error = error as? StoreError { throw SessionError(error) }
                    throw error
                }
            }
            // Whoever was faster is gone by now, perhaps; after that it is somebody who stays.
            if entrance == .busy || wait.conflicts > 1 { try await pause(id, knowing: news, &wait) }
        }
    }

    private func pause(_ id: SessionID, knowing news: UInt64, _ wait: inout Waiting) async throws {
        let now = clock.monotonicNanoseconds()
        guard now < wait.deadline else {
            throw SessionError(
                .lockTimeout, "another node held the session for longer than \(configuration.lock.timeout)")
        }
        if !wait.isCounted { statistics.clusterLockWaits.add(1) }
        wait.isCounted = true
        var random = SessionRandom()
        let pause = wait.pause * Double.random(in: 0.5...1, using: &random)
        try await clusterWaits.sleep(
            id, knowing: news, atMost: min(pause, .nanoseconds(wait.deadline - now)))
        wait.pause = min(wait.pause * 2, Self.longestPause)
    }

    /// Asks the store for the lock, once.
    private func askForLock(
        _ id: SessionID, _ keys: SessionStoreKeys, yields: Bool, mayHold: Bool, _ wait: inout Waiting
    ) async throws -> Asked {
        if clusterLocks.isLeaseOver(clock.monotonicNanoseconds()), let failure = await membership.appear() {
            throw failure
        }
        let entry = try await store.get(keys.lock)
        let found = try entry.map { entry throws(StoreError) in try ClusterLock(bytes: entry.bytes) }
        var standing = PeerSighting.Standing.unsure
        if case .held(let holding) = found, holding.node != node { standing = await look(at: holding.node) }
        let decision = ClusterLockDecision(found: found, node: node, holder: standing, yields: yields)
        guard case .take(var taking) = decision else {
            guard case .held(let holding) = found else {
                clusterLocks.gaveUp(id, now: clock.monotonicNanoseconds())
                return .wait
            }
            // Whom this node has left the lock to has it, or had it.
            clusterLocks.yielded(id)
            try await want(keys, holding, &wait)
            clusterLocks.gaveUp(id, now: clock.monotonicNanoseconds())
            return .wait
        }
        if taking == .own, let doubt = wait.doubt ?? (mayHold ? .missing : nil) { taking = doubt }
        let holding = ClusterLock.Holding(node: node, number: .random())
        let timeToLive = timeToLive(of: id)
        switch try await put(holding, keys, instead: entry, timeToLive: timeToLive) {
        case .stored: break
        case .conflict:
            clusterLocks.gaveUp(id, now: clock.monotonicNanoseconds())
            return .again
        case nil:
            // R12: what is there is what counts.
            wait.doubt = taking
            let now = clock.monotonicNanoseconds()
            clusterLocks.mayHold(id, until: now + timeToLive.nanoseconds)
            clusterLocks.gaveUp(id, now: now)
            return .again
        }
        do {
            if taking == .missing { try await outlastHolder(keys, deadline: wait.deadline) }
        } catch {
            clusterLocks.mayHold(id, until: clock.monotonicNanoseconds() + timeToLive.nanoseconds)
            throw error
        }
        // Before the lock counts: whoever trusts the copy from now on has loaded it.
        if taking.needsFence { local.find(id)?.withState { $0.isSuspect = true } }
        let now = clock.monotonicNanoseconds()
        guard
            clusterLocks.taken(id, number: holding.number, since: now, forgottenAt: now + timeToLive.nanoseconds)
        else {
            wait.doubt = taking == .missing ? .own : taking
            return .again
        }
        return .taken
    }

    /// - Returns: `nil` if nobody knows.
    private func put(
        _ holding: ClusterLock.Holding, _ keys: SessionStoreKeys, instead entry: StoreEntry?, timeToLive: Duration
    ) async throws(StoreError) -> StorePut? {
        let condition = entry.map { StoreCondition.unchanged(since: $0.token) } ?? .absent
        do {
            return try await store.put(
                ClusterLock.held(holding).bytes, for: keys.lock, timeToLive: timeToLive, if: condition)
        } catch {
            guard error.mayHaveTakenEffect else { throw error }
            return nil
        }
    }

    /// Whether the node that a lock names is gone.
    private func look(at holder: NodeIdentity) async -> PeerSighting.Standing {
        let asked = clock.monotonicNanoseconds()
        do {
            let presence = try await store.get(names.presence(of: holder.name)).map { entry throws(StoreError) in
                try Presence(bytes: entry.bytes, of: holder.name)
            }
            return clusterLocks.look(presence, at: holder, asked: asked, answered: clock.monotonicNanoseconds())
        } catch {
            // What cannot be seen is no evidence.
            clusterLocks.cannotSee(holder)
            return .unsure
        }
    }

    /// Tells the holder that somebody waits: with each lock that it takes anew, and before the mark ends.
    private func want(_ keys: SessionStoreKeys, _ holding: ClusterLock.Holding, _ wait: inout Waiting) async throws {
        let now = clock.monotonicNanoseconds()
        if let marked = wait.marked, marked.number == holding.number,
            now &- marked.at < (markTimeToLive / 2).nanoseconds
        {
            return
        }
        // An earlier start of this node has nobody who could be told.
        guard holding.node.name != node.name else { return }
        let mark = ClusterLock.held(.init(node: node, number: 0))
        _ = try await store.put(mark.bytes, for: keys.want, timeToLive: markTimeToLive, if: .always)
        try await bump(holding.node.name, keys)
        wait.marked = (holding.number, now)
    }

    /// A lock that the store has lost had a holder, perhaps, which does not know yet: its watch looks at what was changed, and until it
    /// has done so it trusts nothing for longer than two polls.
    ///
    /// The home in the record need not be the holder, which may be about to take the session over: everybody is told.
    private func outlastHolder(_ keys: SessionStoreKeys, deadline: UInt64) async throws {
        let results = await store.get([keys.data, keys.epoch])
        let stored = try results[0].get().map { entry throws(StoreError) in
            try StoredSession(bytes: entry.bytes, keys: keys)
        }
        // What has ended has no holder.
        if case .tombstone = stored { return }
        // Nothing is there: what may be in a node's memory is looked for by R19.
        guard try stored != nil || results[1].get() != nil else { return }
        for name in try await membership.othersAlive() { try await bump(name, keys) }
        guard clock.monotonicNanoseconds() + (configuration.peerPoll * 2).nanoseconds < deadline else {
            throw SessionError(.lockTimeout, "the session's lock was lost, and there is no time to wait for its holder")
        }
        try await clock.sleep(for: configuration.peerPoll * 2)
    }

    /// As long as the record's.
    private func timeToLive(of id: SessionID) -> Duration {
        timeToLive(
            maxInactive: local.find(id)?.snapshot.record.maxInactive ?? configuration.maxInactive.milliseconds)
    }

    /// A new session's lock: this node holds it from the beginning.
    func plantLock(_ id: SessionID, _ keys: SessionStoreKeys, since: UInt64, timeToLive: Duration) async {
        let number = UInt64.random()
        let bytes = ClusterLock.held(.init(node: node, number: number)).bytes
        var held: UInt64?
        do {
            if try await store.putIfAbsent(bytes, for: keys.lock, timeToLive: timeToLive) != .conflict { held = number }
        } catch {
            logger.debug(
                "A new session's lock could not be stored; its next request takes it",
                metadata: [LogKey.error: "\(error)"])
        }
        clusterLocks.planted(
            id, keys, number: held, since: since,
            forgottenAt: clock.monotonicNanoseconds() + timeToLive.nanoseconds)
    }

    /// R14: the lock lives as long as the record.
    func renewLock(of copy: SessionCopy, timeToLive: Duration) async throws(StoreError) {
        guard isClusterLocked, clusterLocks.heldSince(copy.id, now: clock.monotonicNanoseconds()) != .max else {
            return
        }
        if try await store.touch(copy.keys.lock, timeToLive: timeToLive) {
            clusterLocks.renewed(copy.id, until: clock.monotonicNanoseconds() + timeToLive.nanoseconds)
        } else {
            lose(.init(id: copy.id, keys: copy.keys, number: nil))
        }
    }

    /// A node whose lease ended meanwhile may have read what another one has locked: nothing is written on that.
    ///
    /// - Parameter asked: before the record was read.
    func requireLock(_ id: SessionID, since asked: UInt64) throws(SessionError) {
        guard isClusterLocked, !isRoaming else { return }
        guard clusterLocks.heldSince(id, now: clock.monotonicNanoseconds()) <= asked else { throw lostLock() }
    }

    func lostLock() -> SessionError {
        SessionError(.conflict, "this node lost the session's lock to another one while the request waited or ran")
    }

    // MARK: Letting go

    /// The last of this node's requests leaves: the node keeps the lock, unless somebody wants it or there is no such session.
    ///
    /// - Parameter isOver: the request has found no session under this id, or has ended it.
    func leaveCluster(_ id: SessionID, isOver: Bool) async {
        let isOver = isOver && local.find(id) == nil && unsent.find(id) == nil
        guard let lock = clusterLocks.leave(id, isOver: isOver, now: clock.monotonicNanoseconds()) else { return }
        await letGo(lock, isOver: isOver)
    }

    /// Lets go of a lock that nobody here uses, if it is still this node's.
    private func letGo(_ lock: ClusterLocks.Watched, isOver: Bool = false) async {
        // Requests that came meanwhile.
        defer { clusterWaits.wake(lock.id) }
        do {
            guard let entry = try await store.get(lock.keys.lock),
                case .held(let holding) = try ClusterLock(bytes: entry.bytes), holding.node == node
            else { return clusterLocks.gaveUp(lock.id, now: clock.monotonicNanoseconds()) }
            let isDone: Bool
            if isOver {
                isDone = try await store.delete(lock.keys.lock, ifUnchangedSince: entry.token) != .conflict
            } else {
                isDone =
                    try await store.put(
                        ClusterLock.free.bytes, for: lock.keys.lock, timeToLive: timeToLive(of: lock.id),
                        if: .unchanged(since: entry.token)) != .conflict
            }
            let now = clock.monotonicNanoseconds()
            guard isDone else { return mayHold(lock, now) }
            clusterLocks.wasLetGo(lock.id, yieldsUntil: isOver ? 0 : now + Self.yield.nanoseconds)
            guard !isOver else { return }
            statistics.locksHandedOver.add(1)
            if let contender = lock.wantedBy { await tell(contender, lock.keys) }
        } catch {
            mayHold(lock, clock.monotonicNanoseconds())
            logger.debug(
                "A session's lock could not be let go; whoever wants it is heard again",
                metadata: [LogKey.error: "\(error)"])
        }
    }

    /// The node that waits for a lock need not wait until it looks again.
    private func tell(_ contender: String, _ keys: SessionStoreKeys) async {
        do {
            try await bump(contender, keys)
        } catch {
            logger.debug(
                "A node that waits for a session's lock could not be told that it is free; it looks by itself",
                metadata: [LogKey.error: "\(error)"])
        }
    }

    private func mayHold(_ lock: ClusterLocks.Watched, _ now: UInt64) {
        clusterLocks.mayHold(lock.id, until: now + timeToLive(of: lock.id).nanoseconds)
        clusterLocks.gaveUp(lock.id, now: now)
    }

    /// R21: a node that stops gives all locks up, so that nobody waits for the end of its lease; as many as it has time for.
    func letAllLocksGo() async {
        guard isClusterLocked else { return }
        let deadline = clock.monotonicNanoseconds() + Self.drainTimeout.nanoseconds
        let left = await letGo(clusterLocks.held.filter { clusterLocks.want($0) }, until: deadline)
        guard left > 0 else { return }
        logger.warning(
            "A node stops and could not give up all locks of its sessions: other nodes wait for the end of its lease",
            metadata: [LogKey.node: "\(node.name)", LogKey.sessions: "\(left)"])
    }

    /// - Returns: for how many there was no time.
    @discardableResult
    private func letGo(_ locks: [ClusterLocks.Watched], until deadline: UInt64 = .max) async -> Int {
        var waiting = locks.makeIterator()
        var left = 0
        await withTaskGroup(of: Void.self) { group in
            for _ in 0..<Self.letGoAtOnce {
                guard let lock = waiting.next() else { break }
                group.addTask { await self.letGo(lock) }
            }
            while await group.next() != nil {
                guard clock.monotonicNanoseconds() < deadline, let lock = waiting.next() else { continue }
                group.addTask { await self.letGo(lock) }
            }
        }
        while let lock = waiting.next() {
            left += 1
            mayHold(lock, clock.monotonicNanoseconds())
        }
        return left
    }

    // MARK: The watch

    /// R17: looks at the locks that this node holds in buckets that others have changed.
    func compareLocks(_ server: Int, in buckets: BucketSet) async throws {
        clusterLocks.overtake(server, buckets)
        clusterWaits.wake(server, buckets)
        let locks = clusterLocks.watched(server, in: buckets)
        var unwanted: [ClusterLocks.Watched] = []
        for start in stride(from: 0, to: locks.count, by: Self.locksOfRead) {
            let part = locks[start..<min(start + Self.locksOfRead, locks.count)]
            let results = await store.get(part.flatMap { [$0.keys.lock, $0.keys.want] })
            for (index, lock) in part.enumerated() {
                // One that cannot be read is one session's trouble, and nobody's lock.
                let found = try results[2 * index].get().flatMap { try? ClusterLock(bytes: $0.bytes) }
                guard case .held(let holding) = found, holding.node == node,
                    lock.number == nil || holding.number == lock.number
                else {
                    if lock.number != nil { lose(lock) }
                    continue
                }
                let mark = try results[2 * index + 1].get().flatMap { try? ClusterLock(bytes: $0.bytes) }
                var lock = lock
                if case .held(let contender) = mark, contender.node != node { lock.wantedBy = contender.node.name }
                if lock.wantedBy != nil || lock.number == nil, clusterLocks.want(lock) { unwanted.append(lock) }
            }
        }
        await letGo(unwanted)
    }

    private func lose(_ lock: ClusterLocks.Watched) {
        if clusterLocks.lose(lock.id, number: lock.number) { statistics.locksLost.add(1) }
    }
}
