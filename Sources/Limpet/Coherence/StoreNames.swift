#if canImport(FoundationEssentials)
    import FoundationEssentials
#else
    import Foundation
#endif
import Crypto

/// Makes the store's keys of one session manager.
///
/// `<prefix><wire version>:<generation>:<scope>:` + key. The scope is a short hash of context path and virtual host, so
/// that applications that share a memcached do not share sessions.
struct StoreNames: Sendable {
    /// The version of the record on the wire: a build with another one has other keys.
    static let wireVersion = 1
    /// Raised by a cluster-wide clear; there is none yet.
    static let generation = 0

    private let start: String

    init(prefix: String, contextPath: String, virtualHost: String) {
        let scope = Array(SHA256.hash(data: Data("\(contextPath)\n\(virtualHost)".utf8)).prefix(6)).base64url
        start = "\(prefix)\(Self.wireVersion):\(Self.generation):\(scope):"
    }

    func keys(of id: SessionID) -> SessionStoreKeys {
        SessionStoreKeys(start: start, digest: id.digest)
    }
}

/// The store's keys of one session. All of them live on one server.
struct SessionStoreKeys: Sendable {
    /// SHA-256 of the id. Stands in the record, so that another key's value is noticed.
    let digest: [UInt8]
    /// The record, or a tombstone.
    let data: StoreKey
    /// The epoch.
    let epoch: StoreKey
    /// The access time, written on the save interval without touching the record.
    let access: StoreKey

    init(start: String, digest: [UInt8]) {
        self.digest = digest
        let hash = digest.base64url
        data = StoreKey("\(start)d/\(hash)", placement: .group(hash))
        epoch = StoreKey("\(start)v/\(hash)", placement: .group(hash))
        access = StoreKey("\(start)a/\(hash)", placement: .group(hash))
    }
}
