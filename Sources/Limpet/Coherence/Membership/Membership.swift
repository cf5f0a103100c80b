import Logging
import Synchronization

/// This node among the others: its presence, the directory of all nodes, and the generation of the sessions.
///
/// ```
///            first beat that is stored              leave
///   joining ──────────────────────────▶ a member ─────────▶ gone
///                                         │    ▲
///              its entry or the directory │    │ the next beat puts it back
///              is missing from the store  ▼    │
///                                        forgotten
/// ```
///
/// The store is authoritative for what other nodes are; this object remembers it, to put it back after a loss of memory.
/// No answer about a session is right because of what stands here: homes and locks carry the incarnation, and the
/// conditional write decides.
final class Membership: Sendable {
    /// How long a node counts as alive after its last sign of life. Ten seconds outlast a pause of the process and a
    /// restarted store, and are soon enough for what waits for it: expired sessions of a dead node.
    static let longestLease = Duration.seconds(10)
    /// Three beats may get lost before the lease ends.
    static let longestBeat = longestLease / 4
    /// ``longestLease``, or that of the cluster's locks (R23), which wait for it.
    let lease: Duration
    /// For what is kept as long as the cluster is: longer than any session (a year), since an old generation must not come
    /// back. Started anew every day.
    static let longest = Duration.seconds(400 * 86_400)
    private static let renewal = Duration.seconds(86_400)

    struct State {
        /// A node that does not run knows of no others, and they do not know of it.
        var hasBegun = false
        /// It stays out from then on, whatever a poll that was on its way still reads.
        var hasLeft = false
        var heartbeat: UInt64 = 0
        var through: [Int: UInt64] = [:]
        var directory: Directory?
        /// The directory as it was read or written last.
        var directoryBytes: [UInt8]?
        /// Since when the directory has been as this node knows it: made, or of this lineage.
        var directorySince: UInt64 = 0
        var directoryMissingSince: UInt64?
        var sightings: [String: PeerSighting] = [:]
        /// Whose clocks were found to differ.
        var skewed: Set<NodeIdentity> = []
        /// How many different heartbeats of other processes under this node's name were seen.
        var namesakes: [UInt64: (heartbeat: UInt64, count: Int)] = [:]
        var sightedAt: UInt64?
        var renewedAt: UInt64?
        var generation: UInt64?
        var generationMissingSince: UInt64?
        var isFailing = false
    }

    let node: NodeIdentity
    let store: StoreGuard
    let names: StoreNames
    let local: LocalSessions
    private let locks: ClusterLocks?
    private let statistics: SessionStatistics
    let clock: any NodeClock
    let events: SessionEvents
    let logger: Logger
    let broken: Rule?
    let state = Locked(State())
    /// Two polls: the time that nodes which know something get to put it back, before one that does not makes it anew.
    let patience: UInt64
    private let poll: UInt64
    private let startedAt: Int64
    /// Running, and without knowing the generation: requests that need the store's keys wait.
    private let isJoining = Atomic<Bool>(false)

    init(
        node: NodeIdentity, store: StoreGuard, names: StoreNames, local: LocalSessions, poll: Duration,
        locks: ClusterLocks?, clock: any NodeClock, events: SessionEvents, statistics: SessionStatistics,
        logger: Logger,
        broken: Rule?
    ) {
        lease = locks.map { .nanoseconds(Int64($0.lease)) } ?? Self.longestLease
        self.locks = locks
        self.statistics = statistics
        self.node = node
        self.store = store
        self.names = names
        self.local = local
        self.clock = clock
        self.events = events
        self.logger = logger
        self.broken = broken
        self.poll = poll.nanoseconds
        patience = 2 * poll.nanoseconds
        startedAt = clock.wallMilliseconds()
    }

    var heartbeat: Duration { lease / 4 }
    var leaseNanoseconds: UInt64 { lease.nanoseconds }
    /// Stores end a time to live up to a second early.
    private var presenceTimeToLive: Duration { lease + .seconds(1) }

    /// Joins the cluster and stays in it until the task is cancelled.
    func run() async {
        await join()
        while true {
            do { try await clock.sleep(for: heartbeat) } catch { return }  // Cancelled: the node stops.
            await beat()
        }
    }

    /// Learns the generation, and enters the directory. What fails is tried again with every beat.
    func join() async {
        state.withLock { $0.hasLeft = false }
        isJoining.store(true, ordering: .releasing)
        await beat()
        guard !isMember else { return }
        // The store knows no cluster: whoever does gets the time to put it back.
        do { try await clock.sleep(for: .nanoseconds(Int64(patience))) } catch { return }  // Cancelled: the node stops.
        await beat()
    }

    /// Whether this node knows the generation and stands in the directory.
    var isMember: Bool { state.withLock { $0.generation != nil && $0.directory?.members[node.name] != nil } }

    /// Before keys of a session are made that is not in memory: a node that is just starting has to know the generation.
    func awaitGeneration() async throws {
        guard isJoining.load(ordering: .acquiring) else { return }
        do {
            _ = try await knownGeneration()
        } catch let error as StoreError {
            throw SessionError(error)
        }
        isJoining.store(false, ordering: .releasing)
    }

    /// One beat: looks at the others, puts right what the store has of this node, and gives a sign of life.
    func beat() async {
        state.withLock { $0.hasBegun = true }
        let failures = [await look(), await appear(), await renew()].compactMap(\.self)
        if let failure = failures.first {
            noteFailure(failure)
        } else {
            state.withLock { $0.isFailing = false }
        }
    }

    /// Leaves in good order: the sessions that are left are ended by others.
    func leave() async throws(StoreError) {
        let hasSessions = local.roster.isListed
        state.withLock { $0.hasLeft = true }
        try await changeDirectory { [node] directory in
            guard directory.members[node.name]?.incarnation == node.incarnation else { return }
            directory.members[node.name] =
                hasSessions ? .init(incarnation: node.incarnation, hasLeft: true) : nil
        }
        _ = try await store.delete(names.presence(of: node.name))
    }

    /// This node has put back what it is home of, after this server's loss of memory: it says so at once.
    func noteThrough(server: Int, mark: UInt64) async {
        state.withLock { $0.through[server] = mark }
        if let failure = await appear() { noteFailure(failure) }
    }

    /// A server's memory was lost: what this node keeps there for the cluster is put back.
    func memoryLost(server: Int) async {
        if server == 0, let failure = await look() { noteFailure(failure) }
        if server == store.number(ofServerOf: names.presence(of: node.name)), let failure = await appear() {
            noteFailure(failure)
        }
    }

    /// Whether every node of the cluster has put back what it is home of, after this server's loss of memory: it says so
    /// itself, or it is gone.
    func isEveryoneThrough(server: Int, mark: UInt64) async throws(StoreError) -> Bool {
        guard state.withLock({ $0.hasBegun }) else { return true }
        if let failure = await look() { throw failure }
        let now = clock.monotonicNanoseconds()
        return state.withLock { state in
            // A directory that is new to this node may lack those who have not put themselves back yet.
            guard let directory = state.directory, now &- state.directorySince >= patience else { return false }
            return directory.members.allSatisfy { name, member in
                if name == node.name { return state.through[server] == mark }
                if member.hasLeft { return true }
                guard let sighting = state.sightings[name] else { return false }
                if let presence = sighting.presence, presence.node.incarnation == member.incarnation,
                    presence.through[server] == mark
                {
                    return true
                }
                return sighting.standing(at: now, lease: leaseNanoseconds) == .lapsed
            }
        }
    }

    /// The names of the other nodes that may be alive, in order; as of a poll ago at most.
    ///
    /// A node whose presence is missing counts until it has been quiet for a whole lease: what the store has lost is no death.
    func othersAlive() async throws(StoreError) -> [String] {
        let isFresh = state.withLock { state in
            !state.hasBegun || state.sightedAt.map { clock.monotonicNanoseconds() &- $0 < poll } ?? false
        }
        if !isFresh, let failure = await look() { throw failure }
        let now = clock.monotonicNanoseconds()
        return state.withLock { state in
            state.sightings.filter { name, sighting in
                name != node.name && sighting.standing(at: now, lease: leaseNanoseconds) != .lapsed
            }.keys.sorted()
        }
    }

    /// Writes this node's presence.
    func appear() async -> StoreError? {
        let begunAt = clock.monotonicNanoseconds()
        let presence = state.withLock { state -> Presence? in
            guard !state.hasLeft else { return nil }
            state.heartbeat += 1
            return Presence(
                node: node, startedAt: startedAt, beatenAt: clock.wallMilliseconds(), heartbeat: state.heartbeat,
                sessions: local.roster.count, through: state.through)
        }
        guard let presence else { return nil }
        do {
            _ = try await store.put(
                try presence.bytes(), for: names.presence(of: node.name), timeToLive: presenceTimeToLive,
                if: .always)
            let now = clock.monotonicNanoseconds()
            if locks?.beat(begunAt: begunAt, acknowledgedAt: now) == true { statistics.lostLeases.add(1) }
            state.withLock { state in
                _ = state.sightings[node.name, default: PeerSighting()].see(
                    presence, at: now, lease: leaseNanoseconds)
            }
            return nil
        } catch {
            return error
        }
    }

    /// Starts the times to live of what is kept as long as the cluster is anew, once a day.
    private func renew() async -> StoreError? {
        let now = clock.monotonicNanoseconds()
        let isDue = state.withLock { $0.renewedAt.map { now &- $0 >= Self.renewal.nanoseconds } ?? true }
        guard isDue, isMember else { return nil }
        do {
            for key in [names.directory, names.generationCounter] {
                _ = try await store.touch(key, timeToLive: Self.longest)
            }
            state.withLock { $0.renewedAt = now }
            return nil
        } catch {
            return error
        }
    }

    /// Said once, until a beat succeeds again: the store's own trouble is told elsewhere.
    func noteFailure(_ error: any Error) {
        let isFirst = state.withLock { state in
            defer { state.isFailing = true }
            return !state.isFailing
        }
        guard isFirst else { return }
        logger.warning(
            "A node cannot take part in the cluster for now: tell that it lives, or learn of the others; it tries again with every beat",
            metadata: [LogKey.error: "\(error)", LogKey.node: "\(node.name)"])
    }

    func pause(before attempt: Int) async throws(CancellationError) {
        guard attempt > 1 else { return }
        var random = SessionRandom()
        do {
            try await clock.sleep(for: .microseconds(.random(in: 1000...4000, using: &random) * attempt))
        } catch {
            throw CancellationError()
        }
    }
}
