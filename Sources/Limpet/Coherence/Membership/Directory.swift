/// What `m` holds: the nodes of the cluster.
///
/// The store's is authoritative while it is there. Each node remembers it and puts it back if the store has lost it; since
/// several do so, each with what it knows, two directories of different *lineage* are merged, while one of the same
/// lineage is simply the newer one.
struct Directory: Sendable, Equatable {
    struct Member: Sendable, Equatable {
        var incarnation: UInt64
        /// It stopped in good order; the sessions that it was home of are not all ended or taken over yet.
        var hasLeft = false
    }

    /// Random, new each time that a directory is made from nothing.
    let lineage: UInt64
    var members: [String: Member]

    init(lineage: UInt64 = .random(), members: [String: Member] = [:]) {
        self.lineage = lineage
        self.members = members
    }

    /// - Throws: ``StoreError`` (`corrupt`).
    init(bytes: [UInt8]) throws(StoreError) {
        let wire: WireDirectory = try decoded(bytes, "the directory of nodes in the store cannot be read")
        lineage = wire.lineage
        members = Dictionary(
            wire.members.map { ($0.node, Member(incarnation: $0.incarnation, hasLeft: $0.left)) }
        ) { _, newer in newer }
    }

    func bytes() throws(StoreError) -> [UInt8] {
        var wire = WireDirectory()
        wire.lineage = lineage
        wire.members = members.sorted { $0.key < $1.key }.map { name, member in
            var wire = WireMember()
            wire.node = name
            wire.incarnation = member.incarnation
            wire.left = member.hasLeft
            return wire
        }
        return try encoded(wire)
    }

    /// What is right, of what the store has and what this node remembers.
    static func merging(_ stored: Directory?, _ remembered: Directory?) -> Directory {
        guard var merged = stored else { return Directory(members: remembered?.members ?? [:]) }
        guard let remembered, remembered.lineage != merged.lineage else { return merged }
        // Each node states its own entry itself, in the one that is there now.
        merged.members.merge(remembered.members) { stored, _ in stored }
        return merged
    }

    var names: [String] { members.keys.sorted() }
}

/// What a node does with what it read of the directory.
enum DirectoryDecision: Equatable {
    /// It is right, and known from now on.
    case learn
    /// Another lineage, or without this node: swap it for what is right.
    case mend
    /// It is missing and this node knows none: those who do may put it back.
    case wait
    /// It is missing: make it from what is known.
    case make

    init(stored: Directory?, remembered: Directory?, node: NodeIdentity, hasWaited: Bool) {
        guard let stored else {
            self = remembered != nil || hasWaited ? .make : .wait
            return
        }
        var right = Directory.merging(stored, remembered)
        right.members[node.name] = .init(incarnation: node.incarnation)
        self = right == stored ? .learn : .mend
    }
}
