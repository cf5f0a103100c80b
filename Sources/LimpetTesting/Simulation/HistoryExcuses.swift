/// A documented exception that a history made use of.
package enum Excuse: String, Sendable, CaseIterable {
    /// Nobody knows whether the session was ended or got another id: the answer was lost, or its node died.
    case endUnknown
    /// An id that was given up reads for a while what the session was before.
    case oldID
    /// The node that had the session in memory died before it could tell the others that it had.
    case homeDied
    /// The store's memory was lost before every node could know that the session had moved, or had ended: an earlier home may
    /// have put back what it had.
    case movedBeforeLoss
    /// The session's home died, and the store's memory was lost before anybody else had the session.
    case homeAndStoreDied
    /// The store forgot both the record and the epoch: nothing shows that there was a session, and only the node that the
    /// cookie names is asked.
    case forgottenTwice
    /// All sessions were ended just now, and not every node has heard of it.
    case justCleared
    /// The store could not be reached: a node goes on with what it has, and delivers later.
    case withoutStore
    /// A node died, and what it left is kept for those who end it.
    case orphanKept
}

// MARK: Without the store

extension HistoryChecker {
    /// Whether some node may answer for the session without the store.
    func isWithoutStore(_ session: SessionIndex.Session, at time: VirtualTime) -> Bool {
        outage(session, at: time, after: bounds.delivery) != nil
    }

    private func outage(
        _ session: SessionIndex.Session, at time: VirtualTime, after: VirtualTime
    ) -> History.Outage? {
        history.outages.last { outage in
            outage.begin <= time && time <= outage.end + after
                && session.ids.contains { history.servers[$0] == outage.server }
        }
    }

    /// Whether a request began and ended while no node had the store: what a client sees then is what one node has.
    func isLocal(_ number: Int, _ session: SessionIndex.Session) -> Bool {
        history.outages.contains { outage in
            outage.isComplete && session.ids.contains { history.servers[$0] == outage.server }
                && self[number].invoked >= outage.begin && self[number].answered <= outage.end
        } && history.outages.allSatisfy(\.isComplete)
    }

    /// Whether a request wrote while its node had no store, under an id that another node changed before it could be delivered: it goes
    /// the way of all that is written under an id that was given up.
    func isKeptUnderOldID(_ number: Int, _ session: SessionIndex.Session) -> Bool {
        guard let renamed = self[number].presented.flatMap({ session.renamed[$0] }) else { return false }
        return self[renamed].node != self[number].node && self[renamed].invoked < delivered(number, session)
            && isWithoutStore(session, at: self[number].finished)
    }

    /// When what a request wrote is in the store, at the latest: what was kept is delivered after the outage.
    func delivered(_ number: Int, _ session: SessionIndex.Session) -> VirtualTime {
        let finished = self[number].finished
        guard let outage = outage(session, at: finished, after: bounds.delivery) else { return finished }
        return max(finished, outage.end) + bounds.delivery
    }
}

// MARK: Lost memory

extension HistoryChecker {
    /// When the store lost what it had of a session.
    func losses(_ session: SessionIndex.Session) -> [History.Loss] {
        history.losses.filter { loss in
            !loss.isEpoch
                && session.ids.contains { $0 == loss.id || (loss.id == nil && history.servers[$0] == loss.server) }
        }
    }

    /// Whether what a request did may be undone by a loss of memory: the session was on several nodes within the last poll.
    func mayBeUndone(_ number: Int, _ session: SessionIndex.Session, before time: VirtualTime) -> Bool {
        losses(session).contains { loss in
            loss.time < time && self[number].invoked <= loss.time
                && self[number].finished + bounds.watch >= loss.begin
                && hasMoved(session, before: loss)
        }
    }

    /// Whether a request gave the session a new id, which a loss of memory may undo.
    func mayBeUndoneRename(_ number: Int, _ session: SessionIndex.Session) -> Bool {
        self[number].rotates && self[number].found && self[number].given != nil
            && mayBeUndone(number, session, before: .never)
    }

    /// Whether the store forgot both of a session's keys, one by one.
    func isForgottenTwice(_ session: SessionIndex.Session, before time: VirtualTime) -> Bool {
        history.losses.contains { epoch in
            epoch.isEpoch && epoch.time < time && session.ids.contains { $0 == epoch.id }
                && history.losses.contains { !$0.isEpoch && $0.id == epoch.id && $0.time < time }
        }
    }

    /// Whether a loss of memory may have undone anything.
    func mayHaveUndone(_ session: SessionIndex.Session) -> Bool {
        session.operations.contains { mayBeUndone($0, session, before: .never) }
    }

    func hasMoved(_ session: SessionIndex.Session, before loss: History.Loss) -> Bool {
        // Where every node may have a copy, only who changes something becomes home; or who put it back after another loss.
        let isRoaming = bounds.isLinearizable && !bounds.isAtomic
        let readsMove = !isRoaming || losses(session).contains { $0.time < loss.time }
        let begun = session.operations.filter {
            self[$0].invoked <= loss.time && (readsMove || self[$0].isChange)
        }
        var nodes = Set(begun.filter { self[$0].finished + bounds.watch >= loss.begin }.map { self[$0].node })
        // The last one before may have read an old copy, and been on another node than the last one that changed something.
        let before = begun.filter { self[$0].finished + bounds.watch < loss.begin }
        for earlier in [before, before.filter { self[$0].isChange }] {
            guard let last = earlier.max(by: { self[$0].finished < self[$1].finished }) else { continue }
            nodes.insert(self[last].node)
        }
        return nodes.count > 1
    }

    /// Whether the only ones that had a session were lost: the store's memory, and the node that was in it last, before it
    /// could put the session back.
    func homeAndStoreDied(_ session: SessionIndex.Session, before time: VirtualTime) -> Bool {
        losses(session).contains { loss in
            guard loss.time < time,
                let last = session.operations.filter({ self[$0].invoked <= loss.time && self[$0].outcome == .answered })
                    .max(by: { self[$0].finished < self[$1].finished })
            else { return false }
            return history.crashes.contains { crash in
                crash.node == self[last].node && self[last].finished <= crash.time
                    && crash.time <= loss.time + bounds.watch + .seconds(1)
            }
        }
    }

}

extension History.Operation {
    /// Whether it may have changed the session.
    fileprivate var isChange: Bool {
        outcome != .refused && (!writes.isEmpty || invalidates || rotates || limit != nil)
    }
}
