import Logging

/// A node stops in good order: rule R21.
extension SessionCoherence {
    /// How long a node may take to save what it has not saved yet. Half of what balancers and orchestrators wait for a
    /// node that was told to stop (Kubernetes: 30 seconds for everything).
    static let drainTimeout = Duration.seconds(15)
    /// Sessions that are saved at the same time: as many as the connections to a store carry without a queue.
    private static let savedAtOnce = 16

    /// Saves what only this node knows, lists what it is home of, and leaves.
    ///
    /// No request is on its way any more. What cannot be saved is counted in the log: those sessions may end early, by a
    /// save interval at most.
    func drain() async {
        if keeps(.r21) {
            await deliverUnsent()
            let unsent = unsent.count
            if unsent > 0 {
                logger.error(
                    "A node stops while the store is down: what its sessions changed meanwhile is lost",
                    metadata: [LogKey.node: "\(node.name)", LogKey.sessions: "\(unsent)"])
            }
            let left = await saveAccessTimes()
            if left > 0 {
                logger.warning(
                    "A node stops and could not save when its sessions were last asked for: they may end early",
                    metadata: [LogKey.node: "\(node.name)", LogKey.sessions: "\(left)"])
            }
            await letAllLocksGo()
            await writeRoster(atMost: StoreNames.buckets)
        }
        do {
            try await membership.leave()
        } catch {
            logger.warning(
                "A node stops and could not tell the others; they find out when its presence ends",
                metadata: [LogKey.node: "\(node.name)", LogKey.error: "\(error)"])
        }
    }

    /// - Returns: how many could not be saved.
    private func saveAccessTimes() async -> Int {
        let began = clock.monotonicNanoseconds()
        var copies = local.roster.sessions.filter { isUnsaved($0) }[...]
        var left = 0
        while !copies.isEmpty {
            let some = copies.prefix(Self.savedAtOnce)
            copies = copies.dropFirst(Self.savedAtOnce)
            await withTaskGroup(of: Void.self) { group in
                for copy in some { group.addTask { await self.saveAccessTime(copy) } }
            }
            let failed = some.count { isUnsaved($0) }
            left += failed
            // A store that takes none of them takes no others either.
            let isOver = clock.monotonicNanoseconds() &- began >= Self.drainTimeout.nanoseconds
            if failed == some.count || isOver { return left + copies.count }
        }
        return left
    }

    private func isUnsaved(_ copy: SessionCopy) -> Bool {
        copy.withState { $0.record.home == node && !$0.isSuspect && $0.record.accessedAt > $0.savedAt }
    }
}
