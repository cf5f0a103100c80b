import ServiceLifecycle

/// The store as the coherence sequences see it: every call is counted.
struct CountedStore: Sendable {
    private let store: any SharedStore
    private let statistics: SessionStatistics

    init(_ store: any SharedStore, statistics: SessionStatistics) {
        self.store = store
        self.statistics = statistics
    }

    var serverCount: Int { store.serverCount }

    func server(ofGroup group: String) -> Int { store.server(ofGroup: group) }

    func get(_ keys: [StoreKey]) async -> [Result<StoreEntry?, StoreError>] {
        statistics.storeGets.add(1)
        return await store.get(keys)
    }

    func get(_ key: StoreKey) async throws(StoreError) -> StoreEntry? {
        try await get([key])[0].get()
    }

    func put(
        _ bytes: [UInt8], for key: StoreKey, timeToLive: Duration, if condition: StoreCondition
    ) async throws(StoreError) -> StorePut {
        statistics.storePuts.add(1)
        return try await store.put(bytes, for: key, timeToLive: timeToLive, if: condition)
    }

    /// An increment whose outcome is unknown may be repeated: once too often costs only reloads.
    func increment(_ key: StoreKey, by amount: UInt64 = 1) async throws(StoreError) -> UInt64? {
        try await increment([key], by: amount)[0]
    }

    /// Raises counters of one server, in order; those that are missing stay so.
    func increment(_ keys: [StoreKey], by amount: UInt64 = 1) async throws(StoreError) -> [UInt64?] {
        do {
            statistics.storeIncrements.add(1)
            return try await store.increment(keys, by: amount)
        } catch  where error.mayHaveTakenEffect {
            statistics.storeIncrements.add(1)
            return try await store.increment(keys, by: amount)
        }
    }

    func touch(_ key: StoreKey, timeToLive: Duration) async throws(StoreError) -> Bool {
        statistics.storeTouches.add(1)
        return try await store.touch(key, timeToLive: timeToLive)
    }

    /// Puts a value that nobody else would write, if the key is absent, and finds out what became of it: a put whose outcome
    /// is unknown is repeated, and a conflict may be with oneself.
    func putIfAbsent(
        _ bytes: [UInt8], for key: StoreKey, timeToLive: Duration
    ) async throws(StoreError) -> StorePut {
        do {
            return try await put(bytes, for: key, timeToLive: timeToLive, if: .absent)
        } catch  where error.mayHaveTakenEffect {
            switch try await put(bytes, for: key, timeToLive: timeToLive, if: .absent) {
            case .stored(let token): return .stored(token)
            case .conflict:
                guard let entry = try await get(key), entry.bytes == bytes else { return .conflict }
                return .stored(entry.token)
            }
        }
    }
}
