import Limpet
import LimpetMemcached

/// The calls of one request, in order: `get d v a`, `increment v`, `put d`.
final class Calls: Sendable {
    /// The request that the current task serves.
    @TaskLocal static var ofRequest: Calls?

    private let calls = Locked<[String]>([])

    func add(_ call: String) { calls.withLock { $0.append(call) } }

    var text: String { calls.withLock { $0.isEmpty ? "–" : $0.joined(separator: ", ") } }
}

/// A memcached store that writes down what requests ask it, apart from what their node asks on its own.
final class RecordingStore: SharedStore {
    private let store: MemcachedStore
    /// Records that were read behind the answers, and in how many calls.
    let readBehind = Locked((records: 0, calls: 0))

    init(_ store: MemcachedStore) { self.store = store }

    var serverCount: Int { store.serverCount }
    func server(ofGroup group: String) -> Int { store.server(ofGroup: group) }
    func run() async throws { try await store.run() }

    /// The kind of a key is behind the last colon: `d/…`, `v/…`; a change counter is `c/node` or `c/node/bucket`.
    private func record(_ verb: String, _ keys: [StoreKey]) {
        let kinds = keys.map { key in
            let name = key.name.split(separator: ":").last ?? ""
            return name.split(separator: "/").first.map(String.init) ?? ""
        }
        if let calls = Calls.ofRequest {
            calls.add(([verb] + kinds).joined(separator: " "))
        } else if verb == "get", kinds.allSatisfy({ $0 == "d" }) {
            readBehind.withLock { $0 = ($0.records + keys.count, $0.calls + 1) }
        }
    }

    func get(_ keys: [StoreKey]) async -> [Result<StoreEntry?, StoreError>] {
        let results = await store.get(keys)
        record("get", keys)
        return results
    }

    func put(
        _ bytes: [UInt8], for key: StoreKey, timeToLive: Duration, if condition: StoreCondition
    ) async throws(StoreError) -> StorePut {
        record("put", [key])
        return try await store.put(bytes, for: key, timeToLive: timeToLive, if: condition)
    }

    func increment(_ keys: [StoreKey], by amount: UInt64) async throws(StoreError) -> [UInt64?] {
        record("increment", keys)
        return try await store.increment(keys, by: amount)
    }

    func touch(_ key: StoreKey, timeToLive: Duration) async throws(StoreError) -> Bool {
        record("touch", [key])
        return try await store.touch(key, timeToLive: timeToLive)
    }

    func delete(_ key: StoreKey, ifUnchangedSince token: StoreToken?) async throws(StoreError) -> StoreDelete {
        record("delete", [key])
        return try await store.delete(key, ifUnchangedSince: token)
    }
}
