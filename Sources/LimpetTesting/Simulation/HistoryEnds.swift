extension HistoryChecker {
    /// 6: the session's beginning and end are told once, whatever its ids.
    mutating func checkEvents(_ session: SessionIndex.Session) {
        let events = history.events.filter { session.ids.contains($0.id) }
        let created = events.count { $0.kind == .created }
        let destroyed = events.filter { $0.kind != .created }
        if created == 0, destroyed.isEmpty,
            session.creation.map({ isWithoutStore(session, at: self[$0].finished) }) ?? false
        {
            // It was kept on its node, and ended before it was stored.
            return verdict.excuse(.withoutStore)
        }
        if created != 1 { violation(.events, "created was told \(created) times", session.creation ?? 0) }
        if destroyed.count > 1 {
            if session.operations.contains(where: { self[$0].invalidates && mayBeUndone($0, session, before: .never) })
            {
                verdict.excuse(.movedBeforeLoss)
            } else {
                violation(.events, "destroyed was told \(destroyed.count) times", session.creation ?? 0)
            }
        }
        guard destroyed.isEmpty, history.clears.isEmpty else { return }
        let ended = session.operations.first {
            self[$0].invalidates && self[$0].found && self[$0].outcome == .answered
        }
        guard ended != nil || bounds.isSeenToTheEnd else { return }
        if session.operations.contains(where: { mayEnd($0) && self[$0].outcome != .answered }) {
            return verdict.excuse(.endUnknown)
        }
        if ended == nil, homeDiedUnlisted(session) { return verdict.excuse(.homeDied) }
        violation(.events, "destroyed was not told", ended ?? session.creation ?? 0)
    }

    /// Whether the node that was in a session last died before it had listed it for the others.
    private func homeDiedUnlisted(_ session: SessionIndex.Session) -> Bool {
        let done = session.operations.filter {
            // Who finds the session has it at home, whatever becomes of the request.
            (self[$0].found || $0 == session.creation || isCutByCrash($0)) && !readsPast($0, session)
        }.sorted { self[$0].finished < self[$1].finished }
        // Who reads by an id that was given up does not bring the session home.
        guard let last = done.last else { return true }
        // Of those that were there at once, any may have been the last.
        return done.indices.contains { index in
            self[done[index]].finished >= self[last].invoked && diedUnlisted(done[...index])
        }
    }

    /// - Parameter done: the requests that were in the session, until one whose node may be home.
    private func diedUnlisted(_ done: ArraySlice<Int>) -> Bool {
        guard let last = done.last else { return false }
        let node = self[last].node
        // When it came there for the last time.
        let visit = Array(done.reversed().prefix { self[$0].node == node })
        // A new id is listed anew.
        let came = (visit.first { self[$0].rotates } ?? visit.last).map { self[$0].finished } ?? .zero
        return history.crashes.contains { crash in
            crash.node == node && crash.time >= came && crash.time <= came + bounds.roster
        }
    }

    /// Whether a request's node died before it was done: it may have brought the session home.
    private func isCutByCrash(_ number: Int) -> Bool {
        let operation = self[number]
        return operation.outcome == .unknown
            && history.crashes.contains { $0.node == operation.node && $0.time == operation.finished }
    }

    /// 7: no key outlives its session.
    mutating func checkKeys() {
        for session in sessions.all {
            let last = session.operations.map { touched($0, before: history.end) }.max() ?? .zero
            // The epoch of a session that was ended lives as long as what keeps it from coming back.
            let isEnded =
                session.operations.contains { mayEnd($0) && self[$0].found }
                || history.events.contains { $0.kind != .created && session.ids.contains($0.id) }
            // Stores keep a value for up to two seconds longer.
            let latest = last + longestLimit(session) + bounds.saveInterval + bounds.slack + .seconds(3)
            for key in history.keys where !isEnded && key.id.map({ session.ids.contains($0) }) ?? false {
                guard key.expires > latest + bounds.clockSteps + bounds.lateness else { continue }
                if !history.crashes.isEmpty || !history.drains.isEmpty,
                    key.expires <= latest + bounds.clockSteps + bounds.lateness + bounds.burial
                {
                    verdict.excuse(.orphanKept)
                    continue
                }
                violation(
                    .keys, "the key \(key.name) is kept until \(key.expires), its session until \(latest)",
                    session.operations.last ?? 0)
            }
        }
    }

    /// The last request of each client, when all is well again, has an answer.
    mutating func checkProgress() {
        let last = Dictionary(grouping: history.operations.indices, by: { self[$0].client }).compactMap { $1.max() }
        for number in last.sorted() where self[number].client >= 100 && self[number].outcome != .answered {
            violation(.progress, "the cluster does not answer: \(self[number].error ?? "nothing")", number)
        }
    }

    /// No request fails for a reason that its handler does not know.
    mutating func checkFailures() {
        for number in history.operations.indices where self[number].failsUnexpectedly {
            violation(.failures, "no error of a session: \(self[number].error ?? "nothing")", number)
        }
    }
}
