import Logging

extension Membership {
    /// What a poll has read of the directory. If it is another one than before, or gone, this node looks at once: who has just joined
    /// is known to all a poll later, and a directory that was lost is whole again before anybody believes to be alone.
    func observe(directory entry: StoreEntry?) async {
        let isChanged = state.withLock { $0.hasBegun && !$0.hasLeft && $0.directoryBytes != entry?.bytes }
        if isChanged, let failure = await look() { noteFailure(failure) }
    }

    /// Reads directory, generation and everybody's presence in one trip, and puts right what is wrong about this node.
    ///
    /// - Returns: the first failure; what could be read was used all the same.
    func look() async -> StoreError? {
        let known = state.withLock { $0.directory?.names ?? [] }
        let others = Set(known).union([node.name]).sorted()
        let keys = [names.directory, names.generationCounter] + others.map(names.presence(of:))
        let results = await store.get(keys)
        var failure: StoreError?
        do {
            let generation = try results[1].get().map { entry throws(StoreError) in try Self.generation(entry) }
            await observe(generation: generation)
        } catch {
            failure = error
        }
        see(zip(others, results[2...]), &failure)
        do throws(StoreError) {
            try await use(try results[0].get())
        } catch {
            failure = failure ?? error
        }
        return failure
    }

    private func use(_ entry: StoreEntry?) async throws(StoreError) {
        let bytes = entry?.bytes
        let stored: Directory?
        do throws(StoreError) {
            stored = try bytes.map { bytes throws(StoreError) in try Directory(bytes: bytes) }
        } catch {
            // Looked at again when somebody has changed it, or with the next beat.
            state.withLock { $0.directoryBytes = bytes }
            throw error
        }
        let now = clock.monotonicNanoseconds()
        let decision = state.withLock { state in
            let since = state.directoryMissingSince ?? now
            state.directoryMissingSince = stored == nil ? since : nil
            let decision = DirectoryDecision(
                stored: stored, remembered: state.directory, node: node, hasWaited: now &- since >= patience)
            if decision == .learn, let stored { learn(stored, bytes, &state, at: now) }
            return decision
        }
        switch decision {
        case .wait: return
        case .learn: break
        case .mend, .make:
            // Those who stay see to it.
            guard !state.withLock({ $0.hasLeft }) else { return }
            try await changeDirectory { [node] directory in
                directory.members[node.name] = .init(incarnation: node.incarnation)
            }
        }
        try await seeNewcomers()
    }

    /// Whoever is new in the directory is looked at now.
    private func seeNewcomers() async throws(StoreError) {
        let newcomers = state.withLock { state in
            (state.directory?.names ?? []).filter { state.sightings[$0] == nil }
        }
        guard !newcomers.isEmpty else { return }
        var failure: StoreError?
        see(zip(newcomers, await store.get(newcomers.map(names.presence(of:)))), &failure)
        if let failure { throw failure }
    }

    /// Changes the directory with a swap, as often as somebody else was first. What the store lacks of what this node
    /// remembers is in it from then on.
    func changeDirectory(_ change: @Sendable (inout Directory) -> Void) async throws(StoreError) {
        var last: StoreError?
        for attempt in 0..<SessionCoherence.attempts {
            do {
                try await pause(before: attempt)
            } catch {
                throw last ?? StoreError(.closed, "the node stops", mayHaveTakenEffect: false)
            }
            let entry = try await store.get(names.directory)
            let stored = try entry.map { entry throws(StoreError) in try Directory(bytes: entry.bytes) }
            var directory = Directory.merging(stored, state.withLock { $0.directory })
            change(&directory)
            do {
                var isStored = directory == stored
                let bytes = try directory.bytes()
                if !isStored {
                    let put = try await store.put(
                        bytes, for: names.directory, timeToLive: Self.longest,
                        if: entry.map { .unchanged(since: $0.token) } ?? .absent)
                    isStored = put != .conflict
                }
                if isStored {
                    let now = clock.monotonicNanoseconds()
                    return state.withLock { learn(directory, bytes, &$0, at: now) }
                }
            } catch {
                // Unknown outcome: the next round reads what became of it.
                guard error.mayHaveTakenEffect else { throw error }
                last = error
            }
        }
        throw last
            ?? StoreError(
                .unavailable, "other nodes changed the directory \(SessionCoherence.attempts) times meanwhile",
                mayHaveTakenEffect: false)
    }

    private func learn(_ directory: Directory, _ bytes: [UInt8]?, _ state: inout State, at now: UInt64) {
        if state.directory?.lineage != directory.lineage { state.directorySince = now }
        state.directory = directory
        state.directoryBytes = bytes
        state.sightings = state.sightings.filter { directory.members[$0.key] != nil || $0.key == node.name }
    }

    private func see(
        _ found: some Sequence<(String, Result<StoreEntry?, StoreError>)>, _ failure: inout StoreError?
    ) {
        for (name, result) in found {
            do {
                let presence = try result.get().map { entry throws(StoreError) in
                    try Presence(bytes: entry.bytes, of: name)
                }
                if name == node.name { lookForNamesake(presence) }
                see(presence, of: name)
            } catch {
                failure = failure ?? error
                state.withLock { $0.sightings[name, default: PeerSighting()].cannotSee() }
            }
        }
    }

    private func see(_ presence: Presence?, of name: String) {
        let now = clock.monotonicNanoseconds()
        let wall = clock.wallMilliseconds()
        let isSkewed = state.withLock { state in
            state.sightedAt = now
            let isFresh = state.sightings[name, default: PeerSighting()].see(
                presence, at: now, lease: leaseNanoseconds)
            guard isFresh, let presence, presence.node != node else { return false }
            // A beat that was seen for the first time is as old as a beat takes at most.
            let slack = SessionCoherence.slack.milliseconds
            let skewed =
                presence.beatenAt > wall + slack
                || presence.beatenAt < wall - slack - heartbeat.milliseconds
            return skewed && state.skewed.insert(presence.node).inserted
        }
        guard isSkewed, let presence else { return }
        logger.warning(
            "Another node's clock differs from this one's by more than is tolerated: sessions may end early or late",
            metadata: [
                LogKey.node: "\(node.name)", LogKey.peer: "\(name)",
                LogKey.milliseconds: "\(presence.beatenAt - wall)",
            ])
    }

    /// A process that was here before gives no more signs of life; one that goes on uses this node's name.
    private func lookForNamesake(_ presence: Presence?) {
        guard let presence, presence.node.incarnation != node.incarnation else { return }
        let isCertain = state.withLock { state in
            var seen = state.namesakes[presence.node.incarnation] ?? (presence.heartbeat, 1)
            // One more may have been on its way when the process ended: two more were not.
            if seen.heartbeat != presence.heartbeat { seen = (presence.heartbeat, seen.count + 1) }
            defer { state.namesakes[presence.node.incarnation] = seen }
            return seen.count == 3 && state.namesakes[presence.node.incarnation]?.count != 3
        }
        guard isCertain else { return }
        logger.error(
            "Another process uses this node's name: sessions move between the two with every request; give each node its own session.node",
            metadata: [LogKey.node: "\(node.name)"])
    }
}
