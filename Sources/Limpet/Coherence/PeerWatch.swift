import Synchronization

/// What this node knows of the changes that others make to its sessions: rules R5 and R17.
///
/// Nothing here is authoritative: the change counters and epochs in the store are. What stands here is what the last polls
/// read of them, and which copies have to be looked at again.
final class PeerWatch: Sendable {
    /// What the last poll of one server read.
    struct Known: Sendable {
        /// The boot mark: another one, and the server's memory was lost.
        var bootMark: UInt64?
        /// This node's change counters: for the whole server, and for each bucket; `nil` for those that were missing.
        var root: UInt64?
        var buckets = [UInt64?](repeating: nil, count: StoreNames.buckets)
    }

    /// A copy that has to be compared with its record.
    struct Doubtful: Sendable {
        let copy: SessionCopy
        /// Since the server's memory was lost: until it is dealt with, this node is not through with the loss.
        var isSwept: Bool
        /// When it is looked at: in one of the next polls, the later the more often it was looked at in vain.
        var due: UInt64 = 0
        var looks: UInt64 = 0
    }

    private struct State {
        var known = Known()
        var polls: UInt64 = 0
        var doubtful: [Doubtful] = []
        /// The loss that is not announced as dealt with yet, and the last copy that was on its way when it was noticed.
        var unannounced: UInt64?
        var lastArrival: UInt64 = 0
        /// The loss that all nodes are known to be through with.
        var settled: UInt64?
    }

    private final class Server: Sendable {
        let root: StoreKey
        let buckets: [StoreKey]
        let bootMark: StoreKey
        /// When the last poll began that succeeded; 0 before the first.
        let succeededAt = Atomic<UInt64>(0)
        let state = Locked(State())

        init(_ number: Int, node: String, names: StoreNames) {
            root = names.changes(of: node, server: number)
            buckets = (0..<StoreNames.buckets).map { names.changes(of: node, server: number, bucket: $0) }
            bootMark = names.bootMark(server: number)
        }
    }

    /// A session that is on its way into this node's memory.
    private struct Arrival {
        let server: Int
        let bucket: Int
        var isOvertaken = false
    }

    private struct Arrivals {
        var last: UInt64 = 0
        var expected: [UInt64: Arrival] = [:]
    }

    /// A copy that was looked at in vain again and again is looked at every 64th poll: every 16 seconds.
    private static let longestPause: UInt64 = 64

    private let servers: [Server]
    private let arrivals = Locked(Arrivals())
    /// Two polls, in nanoseconds: a node that has not heard for longer verifies what it serves.
    private let patience: UInt64

    init(servers count: Int, node: String, names: StoreNames, interval: Duration) {
        servers = (0..<count).map { Server($0, node: node, names: names) }
        patience = (interval * 2).nanoseconds
    }

    /// R1: whether the last two polls of a server, or one of them, succeeded. For the sticky path: two loads.
    func isFresh(_ server: Int, now: UInt64) -> Bool {
        let succeededAt = servers[server].succeededAt.load(ordering: .acquiring)
        return succeededAt != 0 && now &- succeededAt < patience
    }

    /// A poll has compared everything that others had changed when it began.
    func succeeded(_ server: Int, begunAt: UInt64) {
        servers[server].succeededAt.store(begunAt, ordering: .releasing)
    }

    // MARK: What a poll reads

    func rootKey(_ server: Int) -> StoreKey { servers[server].root }
    func bucketKeys(_ server: Int) -> [StoreKey] { servers[server].buckets }
    func bootMarkKey(_ server: Int) -> StoreKey { servers[server].bootMark }

    func known(_ server: Int) -> Known { servers[server].state.withLock { $0.known } }

    func learn(_ server: Int, _ change: (inout Known) -> Void) {
        servers[server].state.withLock { change(&$0.known) }
    }

    // MARK: Sessions that are on their way (R5)

    /// A session is about to be read from the store, or written to it, and to become a copy here.
    func expect(_ keys: SessionStoreKeys) -> UInt64 {
        arrivals.withLock { arrivals in
            arrivals.last += 1
            arrivals.expected[arrivals.last] = Arrival(server: keys.server, bucket: keys.bucket)
            return arrivals.last
        }
    }

    /// The session is here, or will not come. If somebody has changed a session of its bucket meanwhile, it may be stale on
    /// arrival, or the only copy after a loss of memory: nobody reads it, and it is looked at.
    func arrived(_ number: UInt64, _ copy: SessionCopy?) {
        let overtaken = arrivals.withLock { arrivals -> Arrival? in
            guard let arrival = arrivals.expected[number], !arrival.isOvertaken else {
                return arrivals.expected[number]
            }
            arrivals.expected[number] = nil
            return nil
        }
        guard let arrival = overtaken else { return }
        if let copy {
            copy.withState { $0.isSuspect = true }
            let isSwept = servers[arrival.server].state.withLock { $0.unannounced != nil }
            doubt(arrival.server, [copy], isSwept: isSwept)
        }
        // Not before: who announces that this node is through with a loss has to see either the arrival or the doubt.
        arrivals.withLock { _ = $0.expected.removeValue(forKey: number) }
    }

    /// Others have changed sessions in these buckets.
    func overtakeArrivals(_ server: Int, _ buckets: BucketSet) {
        arrivals.withLock { arrivals in
            for (number, arrival) in arrivals.expected
            where arrival.server == server && buckets.contains(arrival.bucket) {
                arrivals.expected[number]?.isOvertaken = true
            }
        }
    }

    /// Whether a session is still on its way that was so when the loss was noticed: it may be the only copy.
    private func expectsArrival(_ server: Int, upTo last: UInt64) -> Bool {
        arrivals.withLock { $0.expected.contains { $0.key <= last && $0.value.server == server } }
    }

    // MARK: Copies that are looked at again

    /// Copies to be compared with their records, with the next poll at the latest.
    func doubt(_ server: Int, _ copies: [SessionCopy], isSwept: Bool = false) {
        servers[server].state.withLock { state in
            state.doubtful.append(contentsOf: copies.map { Doubtful(copy: $0, isSwept: isSwept) })
        }
    }

    /// Takes up to `limit` copies whose time has come.
    func takeDoubtful(_ server: Int, atMost limit: Int) -> [Doubtful] {
        servers[server].state.withLock { state in
            state.polls += 1
            var places: [ObjectIdentifier: Int] = [:]
            var once: [Doubtful] = []
            for doubtful in state.doubtful {
                if let place = places[ObjectIdentifier(doubtful.copy)] {
                    // The earlier look counts: somebody may wait for it, and so may the sweep.
                    once[place].isSwept = once[place].isSwept || doubtful.isSwept
                    once[place].due = min(once[place].due, doubtful.due)
                    once[place].looks = min(once[place].looks, doubtful.looks)
                } else {
                    places[ObjectIdentifier(doubtful.copy)] = once.count
                    once.append(doubtful)
                }
            }
            var taken: [Doubtful] = []
            var left: [Doubtful] = []
            for doubtful in once {
                if doubtful.due <= state.polls, taken.count < limit {
                    taken.append(doubtful)
                } else {
                    left.append(doubtful)
                }
            }
            state.doubtful = left
            return taken
        }
    }

    /// A copy has to be looked at again.
    ///
    /// - Parameter isBusy: nothing was found out, because a request is in the session: with the next poll.
    func lookAgain(_ server: Int, _ doubtful: Doubtful, isBusy: Bool) {
        servers[server].state.withLock { state in
            var next = doubtful
            if !isBusy {
                next = Doubtful(copy: doubtful.copy, isSwept: false)
                next.looks = doubtful.looks + 1
            }
            // After the first look in vain with the next poll, too: the change that was announced may have come just then.
            next.due = state.polls + (isBusy ? 1 : min(1 << min(next.looks - 1, 6), Self.longestPause))
            state.doubtful.append(next)
        }
    }

    // MARK: Lost memory (R19)

    func memoryLost(_ server: Int, mark: UInt64) {
        let last = arrivals.withLock { $0.last }
        servers[server].state.withLock { state in
            state.unannounced = mark
            state.lastArrival = last
            state.settled = nil
        }
    }

    /// The loss that this node is through with since the last call.
    func takeThrough(_ server: Int) -> UInt64? {
        let last = servers[server].state.withLock { $0.lastArrival }
        if expectsArrival(server, upTo: last) { return nil }
        return servers[server].state.withLock { state in
            guard let mark = state.unannounced, !state.doubtful.contains(where: \.isSwept) else { return nil }
            state.unannounced = nil
            return mark
        }
    }

    /// The boot mark of a server's last loss, if all nodes are known to be through with it.
    func settledMark(_ server: Int) -> UInt64? { servers[server].state.withLock { $0.settled } }

    func settle(_ server: Int, mark: UInt64) {
        servers[server].state.withLock { state in
            if state.known.bootMark == mark { state.settled = mark }
        }
    }
}

/// Some of the 256 buckets.
struct BucketSet: Sendable, Equatable {
    private var words: (UInt64, UInt64, UInt64, UInt64)

    init() { words = (0, 0, 0, 0) }

    static var all: Self {
        var all = Self()
        all.words = (.max, .max, .max, .max)
        return all
    }

    var isEmpty: Bool { words == (0, 0, 0, 0) }

    static func == (first: Self, second: Self) -> Bool { first.words == second.words }

    func contains(_ bucket: Int) -> Bool {
        let word =
            switch bucket >> 6 {
            case 0: words.0
            case 1: words.1
            case 2: words.2
            default: words.3
            }
        return word >> UInt64(bucket & 63) & 1 == 1
    }

    mutating func insert(_ bucket: Int) {
        let bit = UInt64(1) << UInt64(bucket & 63)
        switch bucket >> 6 {
        case 0: words.0 |= bit
        case 1: words.1 |= bit
        case 2: words.2 |= bit
        default: words.3 |= bit
        }
    }
}
