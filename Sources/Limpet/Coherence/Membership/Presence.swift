import SwiftProtobuf

/// What `n/<node>` holds: a node's sign of life. The node itself is authoritative for it.
struct Presence: Sendable, Equatable {
    let node: NodeIdentity
    /// Milliseconds since 1970, on the node's own clock: when it started, and when it wrote this.
    let startedAt: Int64
    var beatenAt: Int64
    /// Rises with every beat.
    var heartbeat: UInt64
    /// How many sessions are at home there.
    var sessions: Int
    /// For each server, the boot mark of the newest loss of memory after which the node has put back what it is home of.
    var through: [Int: UInt64]

    /// - Throws: ``StoreError`` (`corrupt`) if the bytes are no presence of this node.
    init(bytes: [UInt8], of name: String) throws(StoreError) {
        let wire: WirePresence = try decoded(bytes, "a node's presence in the store cannot be read")
        try check(wire.node, is: name)
        node = NodeIdentity(name: wire.node, incarnation: wire.incarnation)
        startedAt = wire.startedAt
        beatenAt = wire.beatenAt
        heartbeat = wire.heartbeat
        sessions = Int(clamping: wire.sessions)
        through = Dictionary(wire.through.map { (Int($0.server), $0.mark) }) { _, newer in newer }
    }

    init(
        node: NodeIdentity, startedAt: Int64, beatenAt: Int64, heartbeat: UInt64, sessions: Int, through: [Int: UInt64]
    ) {
        self.node = node
        self.startedAt = startedAt
        self.beatenAt = beatenAt
        self.heartbeat = heartbeat
        self.sessions = sessions
        self.through = through
    }

    func bytes() throws(StoreError) -> [UInt8] {
        var wire = WirePresence()
        wire.node = node.name
        wire.incarnation = node.incarnation
        wire.startedAt = startedAt
        wire.beatenAt = beatenAt
        wire.heartbeat = heartbeat
        wire.sessions = UInt64(clamping: sessions)
        wire.through = through.sorted { $0.key < $1.key }.map { server, mark in
            var wire = WireServerMark()
            wire.server = UInt32(clamping: server)
            wire.mark = mark
            return wire
        }
        return try encoded(wire)
    }
}

/// What one node has seen of another's presence, on its own clock.
struct PeerSighting: Sendable {
    enum Standing: Sendable, Equatable {
        /// It has given a sign of life within the lease.
        case alive
        /// It is not there, but not for a whole lease yet.
        case unsure
        /// It has given no sign for a whole lease, during which somebody looked all the time.
        case lapsed
    }

    /// The newest presence that was seen; it may be gone by now.
    private(set) var presence: Presence?
    /// Whether there was one at the last look.
    private(set) var isThere = false
    /// Since when there has been no new sign of life.
    private var quietSince: UInt64?
    private var lookedAt: UInt64?

    /// - Returns: whether the presence is a new sign of life of a node that was seen before: its clock is the present then.
    @discardableResult
    mutating func see(_ found: Presence?, at now: UInt64, lease: UInt64) -> Bool {
        defer {
            lookedAt = now
            isThere = found != nil
        }
        if let found, found.node != presence?.node || found.heartbeat != presence?.heartbeat {
            let isKnown = found.node == presence?.node
            presence = found
            quietSince = now
            return isKnown
        }
        // What happened to a missing presence while nobody looked, nobody knows: the store may have lost it this moment.
        let looksAllTheTime = lookedAt.map { now &- $0 <= lease } ?? false
        if quietSince == nil || found == nil && !looksAllTheTime { quietSince = now }
        return false
    }

    /// The store could not be asked.
    mutating func cannotSee() {
        if !isThere { quietSince = nil }
    }

    func standing(at now: UInt64, lease: UInt64) -> Standing {
        guard let quietSince else { return .unsure }
        // Somebody who asked later may have had the answer earlier.
        if now > quietSince, now - quietSince >= lease { return .lapsed }
        return isThere ? .alive : .unsure
    }
}

func decoded<Wire: SwiftProtobuf.Message>(_ bytes: [UInt8], _ failure: String) throws(StoreError) -> Wire {
    do {
        return try Wire(serializedBytes: bytes)
    } catch {
        throw StoreError(.corrupt, failure, mayHaveTakenEffect: false)
    }
}

func check(_ name: String, is expected: String) throws(StoreError) {
    guard name == expected else {
        throw StoreError(.corrupt, "the store answered with another key's value", mayHaveTakenEffect: false)
    }
}
