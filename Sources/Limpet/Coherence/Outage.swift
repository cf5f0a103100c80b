import Logging

/// While the store cannot be asked, and when it is back: rule R25.
///
/// A home goes on with its own sessions (`store.whenUnavailable`: `local`). It keeps what it could not send beside the
/// record that the store acknowledged, and delivers it by an ordinary commit: a newer record of another node is merged with,
/// a session that was ended stays so.
extension SessionCoherence {
    /// Sessions that are delivered at the same time: enough to hide the round trips, few enough to leave the store, which has
    /// just come back, to the requests.
    private static let deliveries = 8
    /// Between two rounds of delivery, if the first left something: a session that a request was in, say.
    private static let firstRetry = Duration.milliseconds(250)
    private static let longestRetry = Duration.seconds(10)

    /// Whether this node answers for the sessions of a server that cannot be asked.
    func isStoreDown(_ keys: SessionStoreKeys) -> Bool {
        servesWithoutStore && !store.isAvailable(server: keys.server)
    }

    /// Whether a read failed because the server did not answer, and this node answers for it.
    func mayServe(after error: SessionError) -> Bool {
        guard servesWithoutStore, let cause = error.cause as? StoreError else { return false }
        return cause.isOutage && !cause.mayHaveTakenEffect
    }

    // MARK: Keeping

    /// Whether a write may be kept here that the store did not take: it was never sent, to a server that is known to be down.
    private func mayKeep(_ error: SessionError, _ keys: SessionStoreKeys) -> Bool {
        guard isStoreDown(keys), let cause = error.cause as? StoreError, cause.isOutage else { return false }
        // R12: what was sent may be there; what is kept would be written twice.
        return !cause.mayHaveTakenEffect || !keeps(.r12)
    }

    /// Keeps a request's changes that the store could not be sent.
    ///
    /// - Returns: whether this node is the one that may, and has room.
    func keep(
        _ changes: SessionChanges, of copy: SessionCopy, after error: SessionError, cookieNamesThisNode: Bool
    ) -> Bool {
        guard cookieNamesThisNode, mayKeep(error, copy.keys), local.find(copy.id) === copy,
            copy.withState({ $0.record.home == node && !$0.isSuspect }), unsent.keep(copy)
        else { return false }
        copy.withState { state in
            state.unsent = state.unsent?.merging(changes) ?? Unsent(changes, planting: .stored)
        }
        noteKept(copy)
        return true
    }

    /// Keeps a session that is stored nowhere yet: its id is fresh, so nobody else has it.
    func keepNew(
        _ record: SessionRecord, _ changes: SessionChanges, id: SessionID, keys: SessionStoreKeys,
        after error: SessionError
    ) -> Bool {
        guard mayKeep(error, keys) else { return false }
        let copy = SessionCopy(
            id: id, keys: keys,
            state: .init(record: record, savedAt: record.createdAt, unsent: Unsent(changes, planting: .never)))
        guard unsent.keep(copy) else { return false }
        noteKept(copy)
        return true
    }

    private func noteKept(_ copy: SessionCopy) {
        // Its place in the index of expiry may be earlier now.
        local.insert(copy)
        // The server came back in between: nobody would tell.
        if store.isAvailable(server: copy.keys.server) { unsent.wake() }
    }

    /// Forgets a session that is no more, with what waited for it.
    func forget(_ id: SessionID) {
        local.remove(id)
        dropUnsent(id)
    }

    private func dropUnsent(_ id: SessionID) {
        guard let copy = unsent.remove(id) else { return }
        copy.withState { $0.unsent = nil }
        statistics.unsentDropped.add(1)
    }

    /// Forgets a copy that is of no use any more, with what waited in it.
    func forget(_ copy: SessionCopy) {
        local.remove(copy)
        if unsent.find(copy.id) === copy { dropUnsent(copy.id) }
    }

    // MARK: Delivering

    /// Delivers whenever a server is back, until the task is cancelled.
    func runDelivery() async {
        for await _ in unsent.signals {
            var pause = Self.firstRetry
            while true {
                await deliverUnsent()
                guard unsent.all.contains(where: { store.isAvailable(server: $0.keys.server) }) else { break }
                do { try await clock.sleep(for: pause) } catch { return }  // Cancelled: the node stops.
                pause = min(pause * 2, Self.longestRetry)
            }
        }
    }

    /// Sends what waits for servers that answer, except for sessions that a request is in: it sends them itself.
    ///
    /// What could not be sent stays in ``UnsentSessions``. A node that stops calls this when its requests are done.
    func deliverUnsent() async {
        let copies = unsent.all
        for server in Set(copies.map(\.keys.server)) where !store.isAvailable(server: server) {
            // An answer closes the breaker; without one all of them wait on.
            _ = await store.get([names.bootMark(server: server)], isProbe: true)
        }
        var waiting = copies.makeIterator()
        await withTaskGroup(of: Void.self) { group in
            for _ in 0..<Self.deliveries {
                guard let copy = waiting.next() else { break }
                group.addTask { await self.deliver(copy) }
            }
            while await group.next() != nil {
                guard let copy = waiting.next() else { continue }
                group.addTask { await self.deliver(copy) }
            }
        }
    }

    private func deliver(_ copy: SessionCopy) async {
        guard store.isAvailable(server: copy.keys.server), let lease = locks.tryEnter(copy.id) else { return }
        defer { extendLifetime(lease) }
        guard unsent.find(copy.id) === copy else { return }
        do {
            // The changes were kept because the cookies of their requests named this node.
            _ = try await settle(copy, cookieNamesThisNode: true)
        } catch {
            logger.debug(
                "A session's changes could not be delivered; they are tried again", metadata: [LogKey.error: "\(error)"]
            )
        }
    }

    /// In the session's lock: sends what is unsent, alone.
    func settle(_ copy: SessionCopy, cookieNamesThisNode: Bool) async throws -> Committed {
        guard copy.keys.generation == names.generation else {
            // All sessions were ended since.
            forget(copy.id)
            return .gone(.invalidated)
        }
        do {
            return try await send(SessionChanges(), to: copy, cookieNamesThisNode: cookieNamesThisNode)
        } catch let error as SessionError where error.code == .tooLarge {
            // Nobody could know what the store takes while it was down. It would refuse them again and again.
            logger.error(
                "A session's changes, kept while the store was down, are larger than the store takes, and are lost",
                metadata: [LogKey.error: "\(error)"])
            forget(copy.id)
            throw error
        }
    }
}
