/// A session that the store does not have may be in another node's memory: rule R19.
extension SessionCoherence {
    /// Polls that are waited for at most: one for the next to begin, one for it to end, and one for a node that is busy.
    private static let polls = 3

    /// Asks the nodes that may have a session that is missing from the store to put it back, and waits for them.
    ///
    /// They are asked through their change counters, like nodes whose copies became stale: their watch looks at the epoch, finds none,
    /// and puts the session back (R18).
    ///
    /// - Returns: whether the session should be looked for again; `false` if nobody can have it.
    func ask(_ cookie: SessionCookie.Presented, _ keys: SessionStoreKeys, _ found: Found) async throws -> Bool {
        let others = try await membership.liveNodes().filter { $0 != node.name }
        // Epoch or access time without a record: it was evicted. A loss that not everybody is through with: it was lost.
        let isLost: Bool
        if found.counter != nil || found.savedAt != 0 {
            isLost = true
        } else {
            isLost = try await !isSettled(keys.server)
        }
        let asked = isLost ? others : others.filter { $0 == cookie.otherNode }
        guard !asked.isEmpty || isLost else { return false }
        for name in asked { try await bump(name, keys) }
        for _ in 0..<Self.polls {
            try await clock.sleep(for: configuration.peerPoll)
            do {
                if try await store.get(keys.data) != nil { break }
            } catch {
                throw SessionError(error)
            }
        }
        return true
    }

    /// For a session that nobody has put back: it may still come, as long as a node is not through with a loss of memory.
    func refuseUnlessSettled(_ keys: SessionStoreKeys) async throws {
        guard try await !isSettled(keys.server) else { return }
        throw SessionError(
            .storeUnavailable, "the store has lost its memory, and not all nodes have put back what they have")
    }

    /// Whether all nodes have put back what a server has lost, if it has ever lost anything.
    private func isSettled(_ server: Int) async throws -> Bool {
        guard keeps(.r19) else { return true }
        let mark: UInt64?
        do {
            // The watch may not have noticed yet.
            mark = try await store.get(watch.bootMarkKey(server)).flatMap { Epoch(ascii: $0.bytes)?.value }
        } catch {
            throw SessionError(error)
        }
        guard let mark else { return false }
        if watch.isSettled(server, mark: mark) { return true }
        guard try await membership.isEveryoneThrough(server: server, mark: mark) else { return false }
        watch.settle(server, mark: mark)
        return true
    }

    /// This node has put back what it had of a server that lost its memory.
    func noteThrough(_ server: Int, mark: UInt64) async {
        await membership.noteThrough(server: server, mark: mark)
    }
}
