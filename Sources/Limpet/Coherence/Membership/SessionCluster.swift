#if canImport(FoundationEssentials)
    public import FoundationEssentials
#else
    public import Foundation
#endif

/// The cluster as this node sees it: ``SessionManager/cluster``. Everything is read from the store when it is asked for.
///
/// All functions throw ``SessionError`` if the store cannot be asked.
public struct SessionCluster: Sendable {
    private let coherence: SessionCoherence

    init(_ coherence: SessionCoherence) {
        self.coherence = coherence
    }

    /// A node of the cluster.
    public struct Node: Sendable, Hashable, Codable {
        /// Whether a node can be reckoned with.
        public enum State: String, Sendable, Hashable, Codable {
            /// It gives signs of life.
            case alive
            /// It gives none, and has not left. Another node ends its sessions as they expire.
            case lapsed
            /// It stopped in good order. Another node ends its sessions as they expire.
            case left
        }

        /// Its name: `session.node`.
        public let name: String
        /// Which of its starts: 16 hexadecimal digits.
        public let incarnation: String
        /// Whether it can be reckoned with.
        public let state: State
        /// When it started, on its own clock; `nil` unless it is alive.
        public let startedAt: Date?
        /// Its last sign of life, on its own clock; `nil` unless it is alive.
        public let lastBeatAt: Date?
        /// How many sessions were at home there at its last sign of life; 0 unless it is alive.
        public let sessions: Int
    }

    /// Where a session is at home.
    public struct Home: Sendable, Hashable, Codable {
        /// The node's name.
        public let node: String
        /// Which of its starts: 16 hexadecimal digits.
        public let incarnation: String
        /// The session's cache version.
        public let epoch: UInt64
        /// Whether that start of the node gives signs of life.
        public let isAlive: Bool
    }

    /// All nodes, in the order of their names: those that run, and those that are gone but whose sessions have not all
    /// ended or moved.
    public func nodes() async throws -> [Node] {
        try await coherence.nodes()
    }

    /// How many sessions are at home on nodes that are alive, as of their last signs of life: up to a few seconds ago.
    public func total() async throws -> Int {
        try await nodes().reduce(0) { $0 + $1.sessions }
    }

    /// Where a session is at home; `nil` if there is no such session.
    public func home(of id: SessionID) async throws -> Home? {
        try await coherence.home(of: id)
    }

    /// Ends all sessions of the cluster: on this node before this returns, on the others within
    /// `session.peerPollMilliseconds`.
    ///
    /// A request that has its session meanwhile stores nothing, and its client loses the cookie. Each node tells
    /// ``SessionEvents/cleared``. What the store has of the sessions is never read again, and goes when it would have
    /// expired.
    public func clear() async throws {
        try await coherence.membership.clear()
    }
}

extension SessionCoherence {
    fileprivate func nodes() async throws(SessionError) -> [SessionCluster.Node] {
        do {
            guard let entry = try await store.get(names.directory) else { return [] }
            let members = try Directory(bytes: entry.bytes).members.sorted { $0.key < $1.key }
            let results = await store.get(members.map { names.presence(of: $0.key) })
            var nodes: [SessionCluster.Node] = []
            for ((name, member), result) in zip(members, results) {
                let presence = try result.get().map { entry throws(StoreError) in
                    try Presence(bytes: entry.bytes, of: name)
                }
                nodes.append(SessionCluster.Node(name, member, presence))
            }
            return nodes
        } catch {
            throw SessionError(error)
        }
    }

    fileprivate func home(of id: SessionID) async throws -> SessionCluster.Home? {
        try await membership.awaitGeneration()
        guard case .record(let record) = try await readData(names.keys(of: id)).0 else { return nil }
        let home = record.home
        do {
            let presence = try await store.get(names.presence(of: home.name)).map { entry throws(StoreError) in
                try Presence(bytes: entry.bytes, of: home.name)
            }
            return SessionCluster.Home(
                node: home.name, incarnation: home.incarnationText, epoch: record.epoch.value,
                isAlive: presence?.node == home)
        } catch {
            throw SessionError(error)
        }
    }
}

extension SessionCluster.Node {
    fileprivate init(_ name: String, _ member: Directory.Member, _ presence: Presence?) {
        // One of an earlier start says nothing about this one.
        let presence = presence?.node.incarnation == member.incarnation ? presence : nil
        self.init(
            name: name, incarnation: NodeIdentity(name: name, incarnation: member.incarnation).incarnationText,
            state: member.hasLeft ? .left : presence == nil ? .lapsed : .alive,
            startedAt: presence.map { Date(timeIntervalSince1970: Double($0.startedAt) / 1000) },
            lastBeatAt: presence.map { Date(timeIntervalSince1970: Double($0.beatenAt) / 1000) },
            sessions: presence?.sessions ?? 0)
    }
}

extension NodeIdentity {
    fileprivate var incarnationText: String {
        let digits = String(incarnation, radix: 16)
        return String(repeating: "0", count: 16 - digits.count) + digits
    }
}
