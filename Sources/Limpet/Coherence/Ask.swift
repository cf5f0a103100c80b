/// A session that the store does not have may be in another node's memory: rule R19.
extension SessionCoherence {
    /// Polls that are waited for at most: one for the next to begin, one for it to end, and one for a node that is busy.
    private static let polls = 3

    /// How far the search for a missing session has come.
    struct Search {
        /// The boot mark of the loss that all nodes were known to be through with before the store was read: what they had was
        /// there by then. What is learnt later says nothing about what was read.
        var settled: UInt64?
        /// The nodes that may have the session and were asked to put it back; `nil` before any was.
        var asked: Set<String>?
        var hasAsked: Bool { asked != nil }
        /// The access time that stood there before they were asked.
        var savedAt: Int64 = 0
        /// The epoch that stood there.
        var counter: Epoch?
    }

    /// Whether a session that the store does not have should be looked for again.
    ///
    /// The nodes that may have it are asked through their change counters, like nodes whose copies became stale: their watch looks at
    /// the epoch, finds none, and puts the session back (R18). They are waited for.
    ///
    /// - Returns: `false` if there is no such session.
    /// - Throws: ``SessionError`` (`storeUnavailable`) as long as it may still come: a node is not through with a loss of memory.
    func mayBeElsewhere(
        _ cookie: SessionCookie.Presented, _ keys: SessionStoreKeys, _ found: Found, _ search: inout Search
    ) async throws -> Bool {
        guard keeps(.r19) else { return false }
        let mark: UInt64?
        do {
            // The watch may not have noticed a loss yet.
            mark = try await store.get(watch.bootMarkKey(keys.server)).flatMap { Epoch(ascii: $0.bytes)?.value }
        } catch {
            throw SessionError(error)
        }
        let wasSettled = mark != nil && mark == search.settled
        let isSettled: Bool
        if let mark, !wasSettled { isSettled = try await settle(keys.server, mark) } else { isSettled = wasSettled }
        // Epoch or access time without a record: it was evicted. A loss that not everybody is through with: it was lost.
        let isLost = !isSettled || found.counter != nil || found.savedAt != 0
        let others = try await othersAlive()
        let mayHave = isLost ? others : others.filter { $0 == cookie.otherNode }
        // Asked again are those who have joined meanwhile; and all, if somebody has put the session back under another epoch, and
        // the store has lost it once more.
        if let asked = search.asked, mayHave.allSatisfy(asked.contains), found.counter == search.counter {
            // A node that cannot put it back yet, since a request is in it, says so with a new access time.
            guard isSettled, found.savedAt <= search.savedAt else { throw Self.mayStillCome }
            return !wasSettled
        }
        if mayHave.isEmpty, !isLost { return !wasSettled }
        search.asked = (search.asked ?? []).union(mayHave)
        search.savedAt = found.savedAt
        search.counter = found.counter
        for _ in 0..<Self.polls {
            // Each time: the counters can be lost as well.
            for name in mayHave { try await bump(name, keys, asksForRecord: found.counter != nil) }
            try await clock.sleep(for: configuration.peerPoll)
            do {
                if try await store.get(keys.data) != nil { break }
            } catch {
                throw SessionError(error)
            }
        }
        return true
    }

    private static let mayStillCome = SessionError(
        .storeUnavailable, "the store has lost the session, and a node may still put it back")

    /// Whether all nodes have put back what a server has lost, if it has ever lost anything. Asked until it is so.
    private func settle(_ server: Int, _ mark: UInt64) async throws(SessionError) -> Bool {
        do {
            guard try await membership.isEveryoneThrough(server: server, mark: mark) else { return false }
        } catch {
            throw SessionError(error)
        }
        watch.settle(server, mark: mark)
        return true
    }

    /// The names of the other nodes that may be alive.
    func othersAlive() async throws(SessionError) -> [String] {
        do {
            return try await membership.othersAlive()
        } catch {
            throw SessionError(error)
        }
    }
}
