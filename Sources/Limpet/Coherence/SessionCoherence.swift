import Logging

/// The coherence protocol (see the article Coherence): what a node does with the store, so that a session that lives in many
/// memories is one session.
///
/// The record in the store is the truth, and a conditional write on it the only commit. The rules are values in
/// `Decisions.swift`; the sequences over the store are extensions of this class, a file for each part of a session's life:
/// load, commit, create and end.
final class SessionCoherence: Sendable {
    /// The largest difference of nodes' clocks that is tolerated: whoever judges another node's times adds it.
    static let slack = Duration.seconds(10)
    /// How long the store keeps what belongs to nodes and not to sessions. As long as memcached can, with a day to spare: it takes
    /// more than 30 days for a date.
    static let nodeTimeToLive = Duration.seconds(29 * 86_400)
    /// What a change counter is raised by, to ask for the records of a bucket: more than all changes between two polls.
    static let ask: UInt64 = 1 << 16
    /// How often a sequence begins anew after a conflict or an unknown outcome, before the request is answered with 503.
    static let attempts = 5
    /// No attempt begins later than so many of the store's time-outs after the first. An attempt that fails by time-outs
    /// has met two of them or more: a second one is worth it, a third is not.
    static let attemptTimeouts = 4

    let node: NodeIdentity
    let configuration: SessionConfiguration
    let store: StoreGuard
    let names: StoreNames
    let local: LocalSessions
    let refresh: TokenRefresh
    let watch: PeerWatch
    let membership: Membership
    let rotations = FailedRotations()
    let unsent = UnsentSessions()
    let history = SessionHistory()
    let clock: any NodeClock
    let events: SessionEvents
    let statistics: SessionStatistics
    let locks: SessionLocks
    let clusterLocks: ClusterLocks
    let clusterWaits: ClusterWaits
    let logger: Logger
    private let broken: Rule?

    /// - Parameter broken: a rule that is not kept, to prove that somebody notices.
    init(
        store: any SharedStore, configuration: SessionConfiguration, locks: SessionLocks, clock: any NodeClock,
        events: SessionEvents, statistics: SessionStatistics, logger: Logger, broken: Rule?
    ) {
        node = NodeIdentity(name: configuration.node, incarnation: .random())
        local = LocalSessions(node: node)
        self.configuration = configuration
        self.store = StoreGuard(
            store, timeout: configuration.store.timeout, clock: clock, statistics: statistics, logger: logger,
            recovered: { [unsent] in unsent.wake() })
        names = StoreNames(
            prefix: configuration.store.prefix, contextPath: configuration.contextPath,
            virtualHost: configuration.virtualHost, servers: { store.server(ofGroup: $0) })
        refresh = TokenRefresh(store: self.store)
        watch = PeerWatch(
            servers: store.serverCount, node: node.name, names: names, interval: configuration.peerPoll)
        isRoaming = configuration.mode == .roaming
        isClusterLocked = configuration.lock.scope == .cluster && broken != .r23
        clusterWaits = ClusterWaits(clock: clock)
        clusterLocks = ClusterLocks(lease: configuration.lock.lease, waits: clusterWaits)
        membership = Membership(
            node: node, store: self.store, names: names, local: local, poll: configuration.peerPoll,
            locks: isClusterLocked ? clusterLocks : nil, clock: clock, events: events, statistics: statistics,
            logger: logger, broken: broken)
        self.clock = clock
        self.events = events
        self.statistics = statistics
        self.locks = locks
        self.logger = logger
        self.broken = broken
        servesWithoutStore = configuration.mode == .sticky && configuration.store.whenUnavailable == .local
        saveIntervalNanoseconds = configuration.saveInterval.nanoseconds
        saveIntervalMilliseconds = configuration.saveInterval.milliseconds
        latestAttemptNanoseconds = (configuration.store.timeout * Self.attemptTimeouts).nanoseconds
    }

    /// Whether this node keeps a rule: always, unless a test breaks it on purpose.
    func keeps(_ rule: Rule) -> Bool { broken != rule }

    /// The balancer has no affinity: a session may be used on any node.
    let isRoaming: Bool
    /// R23: a request keeps others out of its session on all nodes.
    let isClusterLocked: Bool
    let saveIntervalNanoseconds: UInt64
    /// R25: not in roaming mode, which promises that nothing stale is ever read.
    let servesWithoutStore: Bool
    let saveIntervalMilliseconds: Int64
    private let latestAttemptNanoseconds: UInt64

    /// How long the store keeps a session's keys: the home's memory may be ahead by the save interval, and its clock by the
    /// slack.
    func timeToLive(maxInactive: Int64) -> Duration {
        .milliseconds(maxInactive) + configuration.saveInterval + Self.slack
    }

    /// A tombstone outlives whoever could still write (a home that has not asked since, and the longest request), and every
    /// copy that an earlier home could put back: once tombstone and epoch are gone, such a copy looks like a session that
    /// the store has lost.
    func tombstoneTimeToLive(maxInactive: Int64) -> Duration {
        max(
            configuration.saveInterval + configuration.maxRequest + Self.slack,
            timeToLive(maxInactive: maxInactive))
    }

    /// What a foreign judge of an expiry adds to it.
    var expiryTolerance: Int64 { keeps(.r14) ? (configuration.saveInterval + Self.slack).milliseconds : 0 }

    /// R6: tells a node that its copy becomes stale. After the epoch was raised, and before the record is changed: whoever finds the
    /// counter changed finds the epoch changed.
    ///
    /// The bucket comes first, so that a root that was seen to change never has an older bucket below it. Counters that are
    /// missing count as changed for who they belong to.
    func bump(_ home: NodeIdentity, _ keys: SessionStoreKeys) async throws(SessionError) {
        guard home != node else { return }
        try await bump(home.name, keys)
    }

    /// - Parameter asksForRecord: the epoch is as it was, and the record is missing: the node looks at the records of the bucket, too.
    func bump(_ home: String, _ keys: SessionStoreKeys, asksForRecord: Bool = false) async throws(SessionError) {
        let root = names.changes(of: home, server: keys.server)
        let bucket = names.changes(of: home, server: keys.server, bucket: keys.bucket)
        let amount = asksForRecord ? Self.ask : 1
        do {
            guard try await store.increment([bucket, root], by: amount)[0] == nil else { return }
            // A bucket is made by the first who needs it. The root once more: it was raised before there was anything to see.
            let fresh = Epoch(wallMilliseconds: clock.wallMilliseconds())
            if case .conflict = try await store.putIfAbsent(fresh.ascii, for: bucket, timeToLive: Self.nodeTimeToLive) {
                _ = try await store.increment(bucket, by: amount)
            }
            _ = try await store.increment(root)
        } catch {
            throw SessionError(error)
        }
    }

    /// Raises a session's epoch counter beyond the epoch of a record, makes it if it is missing, and returns its value,
    /// which no other node gets.
    ///
    /// The counter is never set, only made where it is absent and raised: two nodes that do so at once get two numbers.
    func raiseEpoch(_ keys: SessionStoreKeys, beyond epoch: Epoch, timeToLive: Duration) async throws(SessionError)
        -> Epoch
    {
        guard keeps(.r6) else { return Epoch(epoch.value + 1) }
        do {
            for _ in 0..<Self.attempts {
                if !keeps(.r11) { return try await setEpoch(keys, beyond: epoch, timeToLive: timeToLive) }
                if let value = try await store.increment(keys.epoch) {
                    if value > epoch.value { return Epoch(value) }
                    // Below the record's: made by a node whose clock is behind. Another one that raises it at the same time
                    // only makes it higher.
                    if let raised = try await store.increment(keys.epoch, by: epoch.value - value + 1) {
                        return Epoch(raised)
                    }
                } else {
                    let fresh = Epoch(wallMilliseconds: clock.wallMilliseconds(), after: [epoch])
                    if case .stored = try await store.putIfAbsent(fresh.ascii, for: keys.epoch, timeToLive: timeToLive)
                    {
                        return fresh
                    }
                }
            }
        } catch {
            throw SessionError(error)
        }
        throw tooManyConflicts()
    }

    /// What R11 forbids: two nodes that do so at once get one number.
    private func setEpoch(
        _ keys: SessionStoreKeys, beyond epoch: Epoch, timeToLive: Duration
    ) async throws(StoreError) -> Epoch {
        let found = try await store.get(keys.epoch).flatMap { Epoch(ascii: $0.bytes) }
        let next = Epoch(max(found?.value ?? 0, epoch.value) + 1)
        _ = try await store.put(next.ascii, for: keys.epoch, timeToLive: timeToLive, if: .always)
        return next
    }

    /// Before a sequence begins anew: at once the first time, after that a few milliseconds, at random, so that two nodes
    /// that met once do not meet again.
    ///
    /// - Parameter began: when the sequence began.
    /// - Throws: ``SessionError`` (`outcomeUnknown`) if the store takes so long that another attempt would be too late.
    func pause(before attempt: Int, since began: UInt64) async throws {
        guard attempt > 0 else { return }
        guard clock.monotonicNanoseconds() < began + latestAttemptNanoseconds else {
            throw SessionError(.outcomeUnknown, "the store was too slow for what the request had to do")
        }
        guard attempt > 1 else { return }
        var random = SessionRandom()
        try await clock.sleep(for: .microseconds(.random(in: 1000...4000, using: &random) * attempt))
    }

    func tooManyConflicts() -> SessionError {
        SessionError(.conflict, "the session was changed elsewhere \(Self.attempts) times while this request wrote it")
    }
}
