import Logging

/// **R22**: what becomes of a session of a node that is gone.
enum OrphanDecision: Equatable {
    /// It has ended, or is at home on another node.
    case settled
    /// Nobody has asked for it in time.
    case end(SessionCoherence.Judged?)
    /// Its next request may come until then.
    case wait(until: Int64)

    /// - Parameters:
    ///   - living: the start of the node that is not gone: the sessions that it has are its own.
    ///   - listed: when the roster says that it expires.
    ///   - tolerance: what a foreign judge adds to an expiry.
    init(
        stored: StoredSession?, of name: String, living: UInt64?, listed: Int64, now: Int64, tolerance: Int64,
        keepsRule: Bool = true
    ) {
        guard keepsRule else {
            self = listed <= now ? .end(nil) : .wait(until: listed)
            return
        }
        guard case .record(let record) = stored, record.home.name == name, record.home.incarnation != living else {
            self = .settled
            return
        }
        let due = record.expiresAt + tolerance
        self = due <= now ? .end(.init(home: record.home, epoch: record.epoch)) : .wait(until: due)
    }
}

/// The sessions that a node which is gone has left, as far as this node deals with them.
struct Burial: Sendable {
    struct Orphan: Sendable {
        let listed: Int64
        /// When it is looked at again; 0 for the first time.
        var due: Int64 = 0
    }

    var orphans: [[UInt8]: Orphan]
    /// The pages as they were read, to be deleted if nobody writes them again.
    let pages: [Int: StoreToken]
    var arePagesRenewed = false
    /// Of the node's earlier starts, while a new one runs: the node itself.
    let living: UInt64?
    let incarnation: UInt64

    func due(at now: Int64, atMost limit: Int) -> [[UInt8]] {
        Array(orphans.lazy.filter { $0.value.due <= now }.map(\.key).prefix(limit))
    }
}

extension SessionCoherence {
    /// Records are a few kilobytes each, mostly: one answer stays below a megabyte.
    private static let orphansOfRead = 64
    /// A session that waits for its end is kept so much longer: for this node's next look, and for whoever takes over
    /// from this one.
    private static let orphanMargin = Membership.longestLease * 3

    /// Ends what nodes that are gone have left, until the task is cancelled.
    func runBurials() async {
        var burials: [String: Burial] = [:]
        while true {
            do { try await clock.sleep(for: Membership.longestBeat) } catch { return }  // Cancelled: the node stops.
            await bury(&burials)
        }
    }

    /// One round: takes up what is new, and ends what is due.
    func bury(_ burials: inout [String: Burial]) async {
        let gone = membership.gone()
        for name in burials.keys where name != node.name && gone[name] == nil {
            // It is back, or somebody else was through first.
            burials[name] = nil
        }
        for (name, member) in gone.sorted(by: { $0.key < $1.key }) {
            do {
                guard try await holdClaim(to: name) else {
                    burials[name] = nil
                    continue
                }
                if burials[name]?.incarnation != member.incarnation {
                    burials[name] = try await takeUp(name, member)
                }
                guard try await walk(name, &burials[name]) else { continue }
                if try await close(name, burials[name]) { burials[name] = nil }
            } catch {
                noteFailure(error)
            }
        }
        do {
            try await buryEarlierStarts(&burials)
        } catch {
            noteFailure(error)
        }
    }

    private func noteFailure(_ error: any Error) {
        // A node that stops leaves it to others.
        if !(error is CancellationError) { membership.noteFailure(error) }
    }

    /// What this node's earlier starts have left: it knows them from its own roster, and needs no claim.
    private func buryEarlierStarts(_ burials: inout [String: Burial]) async throws {
        guard local.roster.hasInherited else { return }
        if burials[node.name] == nil {
            let inherited = local.roster.inherited
            guard !inherited.isEmpty else { return }
            burials[node.name] = Burial(
                orphans: inherited.mapValues { .init(listed: $0) }, pages: [:], arePagesRenewed: true,
                living: node.incarnation, incarnation: node.incarnation)
        }
        if try await walk(node.name, &burials[node.name]) { burials[node.name] = nil }
    }

    /// One node at a time ends what another one has left; a claim that is not renewed lapses.
    private func holdClaim(to name: String) async throws(StoreError) -> Bool {
        let key = names.burial(of: name)
        var claim = WireClaim()
        claim.node = name
        claim.by = node.name
        claim.incarnation = node.incarnation
        let bytes = try encoded(claim)
        guard let entry = try await store.get(key) else {
            return try await store.putIfAbsent(bytes, for: key, timeToLive: Membership.longestLease) != .conflict
        }
        let holder: WireClaim = try decoded(entry.bytes, "a claim in the store cannot be read")
        try check(holder.node, is: name)
        guard holder.by == claim.by, holder.incarnation == claim.incarnation else { return false }
        return try await store.put(
            bytes, for: key, timeToLive: Membership.longestLease, if: .unchanged(since: entry.token))
            != .conflict
    }

    private func takeUp(_ name: String, _ member: Directory.Member) async throws(StoreError) -> Burial {
        let pages = try await readRoster(of: name)
        var orphans: [[UInt8]: Burial.Orphan] = [:]
        for page in pages.values { for (digest, listed) in page.entries { orphans[digest] = .init(listed: listed) } }
        return Burial(
            orphans: orphans, pages: pages.mapValues(\.token), living: nil, incarnation: member.incarnation)
    }

    /// Looks at what is due.
    ///
    /// - Returns: whether nothing is left.
    private func walk(_ name: String, _ burial: inout Burial?) async throws -> Bool {
        var renewed = clock.monotonicNanoseconds()
        while let due = burial?.due(at: clock.wallMilliseconds(), atMost: Self.orphansOfRead), !due.isEmpty {
            try Task.checkCancellation()
            if name != node.name, clock.monotonicNanoseconds() &- renewed > Membership.longestBeat.nanoseconds {
                guard try await holdClaim(to: name) else { return false }
                renewed = clock.monotonicNanoseconds()
            }
            let sessions = due.map { names.keys(ofDigest: $0, generation: names.generation) }
            let results = await store.get(sessions.flatMap { [$0.data, $0.access] })
            for (index, keys) in sessions.enumerated() {
                guard let orphan = burial?.orphans[keys.digest], let living = burial.map(\.living) else { continue }
                let stored = try storedSession(results[2 * index], results[2 * index + 1], keys)
                let decision = OrphanDecision(
                    stored: stored, of: name, living: living, listed: orphan.listed, now: clock.wallMilliseconds(),
                    tolerance: expiryTolerance, keepsRule: keeps(.r22))
                burial?.orphans[keys.digest] = try await act(on: decision, keys, orphan)
                if name == node.name, burial?.orphans[keys.digest] == nil { local.roster.settle(keys.digest) }
            }
        }
        if burial?.arePagesRenewed == false, let burial { try await renewPages(of: name, burial) }
        burial?.arePagesRenewed = true
        return burial?.orphans.isEmpty ?? false
    }

    /// - Returns: what is left to do; `nil` if it is settled.
    private func act(
        on decision: OrphanDecision, _ keys: SessionStoreKeys, _ orphan: Burial.Orphan
    ) async throws -> Burial.Orphan? {
        var orphan = orphan
        switch decision {
        case .settled: return nil
        case .end(let judged):
            guard try await end(nil, keys, reason: .expired, judged: judged) == .not else { return nil }
            // Somebody has taken it over meanwhile, and that is what the next look finds.
            orphan.due = clock.wallMilliseconds() + Membership.longestBeat.milliseconds
        case .wait(let due):
            // Its time to live ends when others may judge its expiry: it is kept until somebody has. Once, since only a
            // request makes it expire later, and then it is not this node's to end.
            let left = Duration.milliseconds(due - clock.wallMilliseconds())
            do {
                _ = try await store.touch(keys.data, timeToLive: left + Self.orphanMargin)
            } catch {
                throw SessionError(error)
            }
            orphan.due = due
        }
        return orphan
    }

    /// The record, with the later one of the two access times; `nil` if there is none, or none that can be read.
    private func storedSession(
        _ data: Result<StoreEntry?, StoreError>, _ access: Result<StoreEntry?, StoreError>, _ keys: SessionStoreKeys
    ) throws(StoreError) -> StoredSession? {
        guard let data = try data.get() else { return nil }
        let access = try access.get()
        do {
            guard case .record(var record) = try StoredSession(bytes: data.bytes, keys: keys) else { return nil }
            if let access {
                record.accessedAt = max(record.accessedAt, try AccessTime(bytes: access.bytes, keys: keys).accessedAt)
            }
            return .record(record)
        } catch {
            logger.warning(
                "A session of a node that is gone cannot be read; nobody ends it before its time to live does",
                metadata: [LogKey.node: "\(node.name)", LogKey.error: "\(error)"])
            return nil
        }
    }

    /// Whoever takes over from this node has to find the pages as long as there is something to do.
    private func renewPages(of name: String, _ burial: Burial) async throws(StoreError) {
        guard let last = burial.orphans.values.map(\.due).max() else { return }
        let timeToLive = Duration.milliseconds(max(0, last - clock.wallMilliseconds())) + Self.orphanMargin
        for page in burial.pages.keys.sorted() {
            _ = try await store.touch(names.roster(of: name, page: page), timeToLive: timeToLive)
        }
    }

    /// Nothing is left: pages, directory entry and claim go, unless the node is back.
    private func close(_ name: String, _ burial: Burial?) async throws(StoreError) -> Bool {
        guard let burial else { return false }
        for (page, token) in burial.pages {
            let deleted = try await store.delete(names.roster(of: name, page: page), ifUnchangedSince: token)
            // Written again: the node is back.
            if deleted == .conflict { return true }
        }
        try await membership.remove(name, incarnation: burial.incarnation)
        // Nobody else claims it any more: it is in no directory.
        _ = try await store.delete(names.burial(of: name))
        return true
    }
}

extension Membership {
    /// The nodes that are gone: they left, or have given no sign of life for a whole lease.
    func gone() -> [String: Directory.Member] {
        let now = clock.monotonicNanoseconds()
        return state.withLock { state in
            guard let directory = state.directory else { return [:] }
            return directory.members.filter { name, member in
                guard name != node.name, let sighting = state.sightings[name] else { return false }
                if member.hasLeft, !sighting.isThere { return true }
                return sighting.standing(at: now, lease: leaseNanoseconds) == .lapsed
            }
        }
    }

    /// Takes a node out of the directory, unless it has started anew.
    func remove(_ name: String, incarnation: UInt64) async throws(StoreError) {
        try await changeDirectory { directory in
            if directory.members[name]?.incarnation == incarnation { directory.members[name] = nil }
        }
    }
}
