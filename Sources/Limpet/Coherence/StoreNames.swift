#if canImport(FoundationEssentials)
    import FoundationEssentials
#else
    import Foundation
#endif
import Crypto
import Synchronization

/// Makes the store's keys of one session manager.
///
/// A session's keys begin with `<prefix><wire version>:<generation>:<scope>:`, those of the nodes with
/// `<prefix><wire version>:n:<scope>:`. The scope is a short hash of context path and virtual host, so that applications that
/// share a memcached do not share sessions.
final class StoreNames: Sendable {
    /// The version of the record on the wire: a build with another one has other keys.
    static let wireVersion = 1
    /// A node's change counters for the sessions of one server: one for each first byte of a session's hash.
    static let buckets = 256

    private let start: String
    private let scope: String
    private let servers: @Sendable (String) -> Int
    private let currentGeneration = Atomic<UInt64>(0)

    /// - Parameter servers: which server keeps a group.
    init(prefix: String, contextPath: String, virtualHost: String, servers: @escaping @Sendable (String) -> Int) {
        scope = Array(SHA256.hash(data: Data("\(contextPath)\n\(virtualHost)".utf8)).prefix(6)).base64url
        start = "\(prefix)\(Self.wireVersion):"
        self.servers = servers
    }

    /// How often all sessions of the cluster were ended at once, as far as this node knows. It is part of the sessions' keys.
    var generation: UInt64 {
        get { currentGeneration.load(ordering: .acquiring) }
        set { currentGeneration.store(newValue, ordering: .releasing) }
    }

    func keys(of id: SessionID) -> SessionStoreKeys { keys(ofDigest: id.digest, generation: generation) }

    func keys(ofDigest digest: [UInt8], generation: UInt64) -> SessionStoreKeys {
        let group = digest.base64url
        return SessionStoreKeys(
            start: "\(start)\(generation):\(scope):", generation: generation, digest: digest, group: group,
            server: servers(group))
    }

    /// A node's change counter for all sessions of a server.
    func changes(of node: String, server: Int) -> StoreKey { ofServer("c/\(node)", server) }

    /// A node's change counter for the sessions of a server whose hashes begin with one byte.
    func changes(of node: String, server: Int, bucket: Int) -> StoreKey { ofServer("c/\(node)/\(bucket)", server) }

    /// The boot mark: missing or changed, the server's memory was lost.
    func bootMark(server: Int) -> StoreKey { ofServer("b", server) }

    /// How often all sessions were ended at once.
    var generationCounter: StoreKey { ofServer("g", 0) }

    /// The names of all nodes.
    var directory: StoreKey { ofServer("m", 0) }

    /// A node's sign of life.
    func presence(of node: String) -> StoreKey { ofNode("n/\(node)", node) }

    /// The claim of whoever ends what a dead node has left.
    func burial(of node: String) -> StoreKey { ofNode("o/\(node)", node) }

    /// A part of the list of sessions that are at home on a node.
    func roster(of node: String, page: Int) -> StoreKey { ofNode("r/\(node)/\(page)", node) }

    private func ofServer(_ name: String, _ server: Int) -> StoreKey {
        StoreKey("\(start)n:\(scope):\(name)", placement: .server(server))
    }

    private func ofNode(_ name: String, _ node: String) -> StoreKey {
        StoreKey("\(start)n:\(scope):\(name)", placement: .group("n/\(node)"))
    }
}

/// The store's keys of one session. All of them live on one server.
struct SessionStoreKeys: Sendable {
    /// How often all sessions had been ended when the keys were made: those of an earlier generation lead nowhere.
    let generation: UInt64
    /// SHA-256 of the id. Stands in the record, so that another key's value is noticed.
    let digest: [UInt8]
    /// The number of the server that the keys live on.
    let server: Int
    /// The record, or a tombstone.
    let data: StoreKey
    /// The epoch.
    let epoch: StoreKey
    /// The access time, written on the save interval without touching the record.
    let access: StoreKey

    init(start: String, generation: UInt64, digest: [UInt8], group: String, server: Int) {
        self.generation = generation
        self.digest = digest
        self.server = server
        data = StoreKey("\(start)d/\(group)", placement: .group(group))
        epoch = StoreKey("\(start)v/\(group)", placement: .group(group))
        access = StoreKey("\(start)a/\(group)", placement: .group(group))
    }

    /// The cluster's lock: the node that holds it. Made when it is needed: most clusters have no such locks.
    var lock: StoreKey { beside("l") }
    /// A contender's mark: it wants the lock.
    var want: StoreKey { beside("w") }

    private func beside(_ kind: String) -> StoreKey {
        guard case .group(let group) = data.placement else { preconditionFailure("a session's keys are a group") }
        return StoreKey("\(data.name.dropLast(group.utf8.count + 2))\(kind)/\(group)", placement: data.placement)
    }

    /// Which of a node's change counters stands for the session.
    var bucket: Int { Int(digest[0]) }
}
