import Logging

/// The polls that find stale copies, and put back what a store has lost: rules R17, R18 and R19.
extension SessionCoherence {
    /// Epochs in one read: some 20 KiB of keys and as much of an answer.
    private static let epochsOfRead = 1000
    /// Records in one read: an answer of a few kilobytes each stays well below a megabyte.
    private static let recordsOfRead = 64
    /// Records that one poll looks at, so that what it began with is not old when it ends: 8,000 a second, and a node with
    /// 100,000 sessions has put all of them back after 13 s.
    private static let recordsOfPoll = 2048

    /// Polls every server until the task is cancelled.
    func runWatch() async {
        await withTaskGroup { group in
            for server in 0..<store.serverCount {
                group.addTask {
                    while true {
                        await self.poll(server)
                        do {
                            try await self.clock.sleep(for: self.configuration.peerPoll)
                        } catch {
                            return  // Cancelled: the node stops.
                        }
                    }
                }
            }
        }
    }

    /// Polls every server once.
    func pollAll() async {
        for server in 0..<store.serverCount { await poll(server) }
    }

    /// R17: finds out what others have changed since the last poll.
    ///
    /// A poll that fails leaves everything to the next one. Until one succeeds, requests verify what they find in memory.
    func poll(_ server: Int) async {
        do {
            let begunAt = clock.monotonicNanoseconds()
            try await compareChanged(server)
            watch.succeeded(server, begunAt: begunAt)
            try await compareDoubtful(server)
        } catch {
            statistics.failedPolls.add(1)
        }
    }

    // MARK: What has changed

    private func compareChanged(_ server: Int) async throws {
        var keys = [watch.rootKey(server), watch.bootMarkKey(server)]
        if server == 0 { keys += [names.generationCounter, names.directory] }
        let results = await store.get(keys, isProbe: true)
        let known = watch.known(server)
        var root = try results[0].get().flatMap { Epoch(ascii: $0.bytes)?.value }
        let foundMark = try results[1].get().flatMap { Epoch(ascii: $0.bytes)?.value }
        let mark: UInt64
        if let foundMark {
            mark = foundMark
        } else {
            mark = try await make(watch.bootMarkKey(server), max(1, .random()))
        }
        let isLost = known.bootMark != nil && known.bootMark != mark
        if isLost {
            statistics.memoryLosses.add(1)
            logger.notice(
                "A store's memory was lost; this node puts back the sessions that are at home here",
                metadata: [LogKey.server: "\(server)"])
            clusterLocks.loseAll(of: server)
            await membership.memoryLost(server: server)
        }
        if server == 0 {
            await membership.observe(generation: try results[2].get().flatMap { Epoch(ascii: $0.bytes)?.value })
            await membership.observe(directory: try results[3].get())
        }
        let isRootLost = root == nil
        if isRootLost {
            root = try await make(watch.rootKey(server), freshCounter())
        } else if root == known.root, !isLost {
            return
        }
        var (buckets, changed, asked) = try await changedBuckets(server, known, areAllChanged: isRootLost || isLost)
        if keeps(.r5) { watch.overtakeArrivals(server, changed) }
        if isClusterLocked { try await compareLocks(server, in: changed) }
        if keeps(.r17) {
            let copies = local.copies(on: server, in: changed)
            // Before their epochs are read, so that whoever raises one of these counters from now on is heard by the next poll.
            try await makeMissing(&buckets, of: copies, server)
            try await compareEpochs(server, copies, asked: asked, isSwept: isLost)
        }
        watch.learn(server) { known in
            known.root = root
            known.buckets = buckets
            known.bootMark = mark
        }
        // For a node that has just started there was nothing to lose: it is through at once.
        if known.bootMark != mark { watch.memoryLost(server, mark: mark) }
    }

    private func changedBuckets(
        _ server: Int, _ known: PeerWatch.Known, areAllChanged: Bool
    ) async throws -> (values: [UInt64?], changed: BucketSet, asked: BucketSet) {
        let keys = watch.bucketKeys(server)
        let results = await store.get(keys)
        let values = try results.map { try $0.get().flatMap { Epoch(ascii: $0.bytes)?.value } }
        var changed = BucketSet()
        var asked = BucketSet()
        for (bucket, value) in values.enumerated() {
            // One that is missing may have been made, raised and evicted since.
            guard areAllChanged || value == nil || value != known.buckets[bucket] else { continue }
            changed.insert(bucket)
            switch (known.buckets[bucket], value) {
            // Whoever asked there does so again, and it is made by then.
            case (nil, nil): break
            case (let before?, let value?) where value &- before < Self.ask: break
            default: asked.insert(bucket)
            }
        }
        return (values, changed, asked)
    }

    /// Makes the counters that are missing and have copies: else these would have to be looked at with each change of another one.
    private func makeMissing(_ buckets: inout [UInt64?], of copies: [SessionCopy], _ server: Int) async throws {
        let missing = Set(copies.lazy.map(\.keys.bucket)).filter { buckets[$0] == nil }.sorted()
        try await withThrowingTaskGroup { group in
            let keys = watch.bucketKeys(server)
            let fresh = freshCounter()
            for bucket in missing { group.addTask { (bucket, try await self.make(keys[bucket], fresh)) } }
            for try await (bucket, value) in group { buckets[bucket] = value }
        }
    }

    /// R11: puts a number where there is none, and returns what is there.
    private func make(_ key: StoreKey, _ number: UInt64) async throws -> UInt64 {
        if case .stored = try await store.putIfAbsent(
            Array(String(number).utf8), for: key, timeToLive: Self.nodeTimeToLive)
        {
            return number
        }
        // Somebody was faster. What is gone again by now counts as changed with the next poll.
        return try await store.get(key).flatMap { Epoch(ascii: $0.bytes)?.value } ?? number
    }

    private func freshCounter() -> UInt64 { Epoch(wallMilliseconds: clock.wallMilliseconds()).value }

    /// Marks the copies whose epochs were raised, or are gone: nobody trusts them any more, and their records are looked at.
    ///
    /// - Parameter asked: buckets of which the record of a session is missing, though its epoch is there.
    private func compareEpochs(
        _ server: Int, _ copies: [SessionCopy], asked: BucketSet, isSwept: Bool
    ) async throws {
        var start = 0
        while start < copies.count {
            let part = copies[start..<min(start + Self.epochsOfRead, copies.count)]
            let results = await store.get(part.map(\.keys.epoch))
            var doubtful: [SessionCopy] = []
            for (copy, result) in zip(part, results) {
                let counter = try result.get().flatMap { Epoch(ascii: $0.bytes) }
                let isStale = copy.withState { state in
                    guard counter != state.record.epoch || isSwept else { return false }
                    state.verifiedAt = nil
                    return true
                }
                if isStale || asked.contains(copy.keys.bucket) { doubtful.append(copy) }
            }
            watch.doubt(server, doubtful, isSwept: isSwept)
            start += part.count
        }
    }

    // MARK: Copies whose records are looked at

    private func compareDoubtful(_ server: Int) async throws {
        let doubtful = watch.takeDoubtful(server, atMost: Self.recordsOfPoll)
        let parts = stride(from: 0, to: doubtful.count, by: Self.recordsOfRead).map { start in
            Array(doubtful[start..<min(start + Self.recordsOfRead, doubtful.count)])
        }
        try await withThrowingTaskGroup { group in
            for part in parts { group.addTask { try await self.compareRecords(server, part) } }
            try await group.waitForAll()
        }
        if let mark = watch.takeThrough(server) { await membership.noteThrough(server: server, mark: mark) }
    }

    /// Looks at the records of some copies. Those that it did not get to, because the store failed, come with the next poll.
    private func compareRecords(_ server: Int, _ doubtful: [PeerWatch.Doubtful]) async throws {
        // Somebody may have removed them since.
        let doubtful = doubtful.filter { local.find($0.copy.id) === $0.copy }
        var done = 0
        defer {
            for doubtful in doubtful[done...] { watch.lookAgain(server, doubtful, isBusy: true) }
        }
        let asked = doubtful.map { $0.copy.snapshot.record }
        let results = await store.get(doubtful.flatMap { [$0.copy.keys.data, $0.copy.keys.epoch] })
        for (index, doubtful) in doubtful.enumerated() {
            let copy = doubtful.copy
            var stored: StoredSession?
            if let entry = try results[2 * index].get() {
                let read = Result { () throws(StoreError) in try StoredSession(bytes: entry.bytes, keys: copy.keys) }
                guard case .success(let session) = read else {
                    // One session's trouble: the request that needs it will say so.
                    copy.withState { $0.isSuspect = true }
                    done = index + 1
                    continue
                }
                stored = session
            }
            let counter = try results[2 * index + 1].get().flatMap { Epoch(ascii: $0.bytes) }
            let record = copy.snapshot.record
            guard record.home == asked[index].home, record.epoch == asked[index].epoch else {
                // A request was faster: what was read is older than the copy.
                watch.lookAgain(server, doubtful, isBusy: true)
                done = index + 1
                continue
            }
            switch WatchDecision(
                stored: stored, counter: counter, copy: record, node: node,
                now: clock.wallMilliseconds(), keepsRule: keeps(.r18))
            {
            case .current:
                break
            case .suspect:
                // Looked at with each poll: told once.
                let wasSuspect = copy.withState { state in
                    defer { state.isSuspect = true }
                    return state.isSuspect
                }
                if !wasSuspect { note(.suspected, copy.keys) }
                watch.lookAgain(server, doubtful, isBusy: false)
            case .drop:
                drop(copy)
            case .republish:
                if try await !putBack(copy, isSwept: doubtful.isSwept) {
                    try await sayBusy(copy)
                    watch.lookAgain(server, doubtful, isBusy: true)
                }
            }
            done = index + 1
        }
    }

    /// A copy that another node has made stale, or that has ended.
    private func drop(_ copy: SessionCopy) {
        // Whoever is in the session merges, or learns of its end.
        copy.withState { $0.isSuspect = true }
        local.remove(copy)
        statistics.staleCopiesDropped.add(1)
        note(.dropped, copy.keys)
    }

    /// A request is in a session that the store has lost: who asks for it learns that it lives, from an access time that is newer than
    /// the one before.
    private func sayBusy(_ copy: SessionCopy) async throws {
        let timeToLive = timeToLive(maxInactive: copy.snapshot.record.maxInactive)
        let bytes = try AccessTime(accessedAt: clock.wallMilliseconds()).bytes(keys: copy.keys)
        _ = try await store.put(bytes, for: copy.keys.access, timeToLive: timeToLive, if: .always)
    }

    /// R18 without a request: in the session's lock, so that no request stores a change beside it.
    ///
    /// - Returns: `false` if a request is in the session.
    private func putBack(_ copy: SessionCopy, isSwept: Bool) async throws -> Bool {
        guard let lease = locks.tryEnter(copy.id) else { return false }
        defer { extendLifetime(lease) }
        // Whoever has changed or ended it since has put something there, or raised the epoch: the put finds out.
        if local.find(copy.id) === copy { _ = try await republish(copy, isSwept: isSwept) }
        return true
    }
}
