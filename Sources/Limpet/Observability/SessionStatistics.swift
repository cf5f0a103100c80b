import Synchronization

/// What the sessions of this node did since it started: counters that cost a few nanoseconds, read with
/// ``SessionManager/statistics``.
package final class SessionStatistics: Sendable {
    package init() {}

    /// A number that only grows.
    final class Counter: Sendable {
        private let number = Atomic<Int>(0)
        func add(_ amount: Int) { number.add(amount, ordering: .relaxed) }
        var value: Int { number.load(ordering: .relaxed) }
    }

    /// Calls of the store by kind.
    final class StoreCalls: Sendable {
        let gets = Counter()
        let puts = Counter()
        let increments = Counter()
        let touches = Counter()
        let deletes = Counter()
    }

    /// Whether what runs belongs to no session: the watch and the membership.
    @TaskLocal static var isBackground = false

    /// Where calls of the store are counted now.
    var currentStoreCalls: StoreCalls { Self.isBackground ? backgroundStoreCalls : storeCalls }

    let localHits = Counter()
    let verified = Counter()
    let loads = Counter()
    let oldIDReads = Counter()
    let takeovers = Counter()
    let created = Counter()
    let commits = Counter()
    let merges = Counter()
    let conflicts = Counter()
    let writesRefused = Counter()
    let accessTimeSaves = Counter()
    let accessTimeSaveFailures = Counter()
    let republished = Counter()
    let destroyed = Counter()
    let staleCopiesDropped = Counter()
    let memoryLosses = Counter()
    let failedPolls = Counter()
    let lockWaits = Counter()
    let lockTimeouts = Counter()
    let lockWaitsAbandoned = Counter()
    let lockWaitsRejected = Counter()
    let clusterLockWaits = Counter()
    let locksHandedOver = Counter()
    let locksLost = Counter()
    let lostLeases = Counter()
    let undecodable = Counter()
    let writesAfterSeal = Counter()
    let unknownOutcomes = Counter()
    let unknownOutcomesResolved = Counter()
    let storeOutages = Counter()
    let unsentDelivered = Counter()
    let unsentDropped = Counter()
    /// Calls of the store for sessions, and those that the node makes for itself all the time: its watch and its membership.
    let storeCalls = StoreCalls()
    let backgroundStoreCalls = StoreCalls()
    private let failedNames = Locked<Set<String>>([])

    /// Whether an attribute of this name is the first of its name that could not be decoded: it is said once.
    func isFirstFailure(of name: String) -> Bool { failedNames.withLock { $0.insert(name).inserted } }
}

/// The counters of a node, since it started.
public struct SessionStatisticsSnapshot: Sendable, Hashable, Codable {
    /// Requests whose session was in memory and trusted: no store call.
    public var localHits = 0
    /// Requests whose session was in memory and compared with the store's epoch.
    public var verified = 0
    /// Requests whose session was read from the store.
    public var loads = 0
    /// Requests with an id that was changed a moment before, which read the session as it was.
    public var oldIDReads = 0
    /// Sessions that came home here from another node, or from an earlier start of this one.
    public var takeovers = 0
    /// Sessions that were created here.
    public var created = 0
    /// Changes that the store acknowledged, merges included.
    public var commits = 0
    /// Changes that were put on a newer record of another node.
    public var merges = 0
    /// Conditional writes that the store refused.
    public var conflicts = 0
    /// Writes that met the end of their session, or the end of its old id, and were refused.
    public var writesRefused = 0
    /// Access times that were written without a change.
    public var accessTimeSaves = 0
    /// Access times that could not be written; they are with the next request.
    public var accessTimeSaveFailures = 0
    /// Sessions that the store had lost and that this node put back.
    public var republished = 0
    /// Sessions that this node ended: invalidated or expired.
    public var destroyed = 0
    /// Copies that other nodes had made stale, found by the watch.
    public var staleCopiesDropped = 0
    /// How often a server of the store lost its memory.
    public var memoryLosses = 0
    /// Polls of the watch that the store did not answer.
    public var failedPolls = 0
    /// Requests that waited in line for their session.
    public var lockWaits = 0
    /// Those that waited in vain, for as long as `lock.timeoutMilliseconds`.
    public var lockTimeouts = 0
    /// Those that were cancelled while they waited: their clients went away.
    public var lockWaitsAbandoned = 0
    /// Those that found the line full (`lock.maxWaiters`).
    public var lockWaitsRejected = 0
    /// Requests that waited for another node to let go of their session (`lock.scope`: `cluster`).
    public var clusterLockWaits = 0
    /// Sessions that this node let go of because another one wanted them.
    public var locksHandedOver = 0
    /// Sessions whose lock another node has taken, or the store has lost, while this one held it.
    public var locksLost = 0
    /// How often this node gave no sign of life for so long that it relied on none of its locks any more.
    public var lostLeases = 0
    /// Attributes that could not be decoded as the type that was asked for.
    public var undecodable = 0
    /// Writes that came after the session was sealed, and were refused.
    public var writesAfterSeal = 0
    /// Conditional writes that the store did not answer: they may have happened.
    public var unknownOutcomes = 0
    /// Those of them about whose keys the store has answered since.
    public var unknownOutcomesResolved = 0
    /// How often a server of the store was left alone because it did not answer.
    public var storeOutages = 0
    /// Sessions whose changes wait here until the store is back, now (`store.whenUnavailable`: `local`).
    public var unsentSessions = 0
    /// How often a session's changes waited, and were acknowledged by the store since.
    public var unsentDelivered = 0
    /// How often a session's changes waited in vain: they were superseded by its end, or the store has no room for them.
    public var unsentDropped = 0
    /// Calls of the store for sessions by kind.
    public var storeOperations = StoreOperations()
    /// Calls of the store that the node makes whether or not there are requests: the watch for others' changes, signs of life, and
    /// what they lead to.
    public var backgroundStoreOperations = StoreOperations()
    /// Sessions in this node's memory now.
    public var sessionsInMemory = 0
    /// Sessions that a request is in now.
    public var sessionsEntered = 0
    /// Requests that are in a session now.
    public var requestsInside = 0
    /// Requests that wait in line for a session now.
    public var requestsWaiting = 0

    /// Calls of the store by kind; one call may read many keys.
    public struct StoreOperations: Sendable, Hashable, Codable {
        /// Reads.
        public var get = 0
        /// Writes, with or without a condition.
        public var put = 0
        /// Increments.
        public var increment = 0
        /// Renewals of a time to live.
        public var touch = 0
        /// Deletions.
        public var delete = 0

        init() {}

        init(_ calls: SessionStatistics.StoreCalls) {
            get = calls.gets.value
            put = calls.puts.value
            increment = calls.increments.value
            touch = calls.touches.value
            delete = calls.deletes.value
        }

        /// All calls together.
        public var total: Int {
            return self.get + put + increment + touch + delete
        }
    }

    init(
        _ statistics: SessionStatistics, sessionsInMemory: Int, locks: SessionLocks.Count, unsentSessions: Int
    ) {
        localHits = statistics.localHits.value
        verified = statistics.verified.value
        loads = statistics.loads.value
        oldIDReads = statistics.oldIDReads.value
        takeovers = statistics.takeovers.value
        created = statistics.created.value
        commits = statistics.commits.value
        merges = statistics.merges.value
        conflicts = statistics.conflicts.value
        writesRefused = statistics.writesRefused.value
        accessTimeSaves = statistics.accessTimeSaves.value
        accessTimeSaveFailures = statistics.accessTimeSaveFailures.value
        republished = statistics.republished.value
        destroyed = statistics.destroyed.value
        staleCopiesDropped = statistics.staleCopiesDropped.value
        memoryLosses = statistics.memoryLosses.value
        failedPolls = statistics.failedPolls.value
        lockWaits = statistics.lockWaits.value
        lockTimeouts = statistics.lockTimeouts.value
        lockWaitsAbandoned = statistics.lockWaitsAbandoned.value
        lockWaitsRejected = statistics.lockWaitsRejected.value
        clusterLockWaits = statistics.clusterLockWaits.value
        locksHandedOver = statistics.locksHandedOver.value
        locksLost = statistics.locksLost.value
        lostLeases = statistics.lostLeases.value
        undecodable = statistics.undecodable.value
        writesAfterSeal = statistics.writesAfterSeal.value
        unknownOutcomes = statistics.unknownOutcomes.value
        unknownOutcomesResolved = statistics.unknownOutcomesResolved.value
        storeOutages = statistics.storeOutages.value
        unsentDelivered = statistics.unsentDelivered.value
        unsentDropped = statistics.unsentDropped.value
        storeOperations = StoreOperations(statistics.storeCalls)
        backgroundStoreOperations = StoreOperations(statistics.backgroundStoreCalls)
        self.sessionsInMemory = sessionsInMemory
        sessionsEntered = locks.sessions
        requestsInside = locks.inside
        requestsWaiting = locks.waiting
        self.unsentSessions = unsentSessions
    }
}
