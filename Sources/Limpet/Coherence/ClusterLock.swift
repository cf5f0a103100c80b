// The cluster's locks (rule R23) as plain values: they decide, `EnterCluster.swift` acts.

/// What `l/<H>` holds. The store's is authoritative.
enum ClusterLock: Sendable, Equatable {
    /// One time that a node took the lock.
    struct Holding: Sendable, Equatable {
        let node: NodeIdentity
        /// New each time: a node that lost its lock and took it again holds another one.
        let number: UInt64
    }

    case held(Holding)
    /// Let go by its last holder, which nobody has to tell: unlike a lock that is missing.
    case free

    /// - Throws: ``StoreError`` (`corrupt`).
    init(bytes: [UInt8]) throws(StoreError) {
        let parts = String(decoding: bytes, as: UTF8.self).split(separator: " ", omittingEmptySubsequences: false)
        if parts == ["free"] {
            self = .free
        } else if parts.count == 3, let incarnation = UInt64(parts[1]), let number = UInt64(parts[2]) {
            self = .held(.init(node: .init(name: String(parts[0]), incarnation: incarnation), number: number))
        } else {
            throw StoreError(.corrupt, "a session's lock in the store cannot be read", mayHaveTakenEffect: false)
        }
    }

    /// `free`, or the node's name, its incarnation and the number, with spaces between them.
    var bytes: [UInt8] {
        switch self {
        case .held(let holding): Array("\(holding.node.name) \(holding.node.incarnation) \(holding.number)".utf8)
        case .free: Array("free".utf8)
        }
    }
}

/// **R23**: what a node that wants a lock does with what it found in the store.
enum ClusterLockDecision: Equatable {
    /// Take it with a put if absent, or a swap.
    case take(ClusterLockTaking)
    /// Leave a mark, tell the holder, and look again later.
    case wait

    /// - Parameters:
    ///   - holder: what is known of the node that the lock names.
    ///   - yields: this node has just let it go, for somebody who wants it.
    init(found: ClusterLock?, node: NodeIdentity, holder: PeerSighting.Standing, yields: Bool) {
        switch found {
        case nil: self = .take(.missing)
        case .free: self = yields ? .wait : .take(.free)
        case .held(let holding) where holding.node == node: self = .take(.own)
        case .held: self = holder == .lapsed ? .take(.lapsed) : .wait
        }
    }
}

/// How a lock was found that a node takes: it tells what others may still believe.
enum ClusterLockTaking: Equatable {
    /// Its holder let it go, and nobody is in the session.
    case free
    /// It names this node, which did not know that, or could not rely on it for a while.
    case own
    /// Its holder has given no sign of life for a whole lease. It trusts nothing any more, but a write of its may be on its way.
    case lapsed
    /// The store has lost it. Its holder may not know yet.
    case missing

    /// Whether a former holder may still write to the session: the record is swapped first, so that no such write is taken
    /// after this node has read.
    var needsFence: Bool { self != .free }
}

/// **R23**: since when, and until when, a node may rely on its presence, and on the locks that are as good as it is.
struct LeaseTrust: Sendable, Equatable {
    /// Stores end a time to live up to a second early, and clocks do not run alike.
    static let margin = Duration.milliseconds(1500)

    private let length: UInt64
    /// When the last beat began that the store has taken.
    private var beganAt: UInt64?
    /// Since when there has been no gap.
    private(set) var since: UInt64 = 0

    init(lease: Duration) {
        length = (lease - Self.margin).nanoseconds
    }

    /// The store has taken a beat.
    ///
    /// - Returns: whether there was a gap since the one before: what the node held may be somebody else's.
    mutating func beat(begunAt: UInt64, acknowledgedAt: UInt64) -> Bool {
        let hadGap = beganAt.map { acknowledgedAt &- $0 >= length }
        if hadGap != false { since = acknowledgedAt }
        beganAt = begunAt
        return hadGap ?? false
    }

    func holds(at now: UInt64) -> Bool { beganAt.map { now &- $0 < length } ?? false }
}

extension PeerSighting {
    /// Looks at the presence of one start of a node: another start's is none.
    ///
    /// - Parameters:
    ///   - asked: before the store was asked. A process that is stopped between the answer and this call must not take the
    ///     time in between for silence.
    ///   - answered: now.
    mutating func look(
        _ found: Presence?, at node: NodeIdentity, asked: UInt64, answered: UInt64, lease: UInt64
    ) -> Standing {
        let found = found?.node == node ? found : nil
        let isNews = found != nil && found?.heartbeat != presence?.heartbeat
        see(found, at: isNews ? answered : asked, lease: lease)
        return isNews ? .alive : standing(at: asked, lease: lease)
    }
}
