import HeapModule

/// The store of a single node: a dictionary in the memory of this process, with the same contract as a server.
///
/// It is **authoritative** for the process and ends with it: nothing to install or start, and nothing that outlives a
/// restart. It has one server, number 0. No operation suspends.
public final class MemoryStore: SharedStore {
    fileprivate struct Value {
        var bytes: [UInt8]
        var token: UInt64
        /// On the monotonic clock, in nanoseconds: from this moment on the value is absent.
        var expires: UInt64
    }

    /// When a value has to be looked at again. A value that was touched or written since has a later mark as well.
    fileprivate struct Mark: Comparable {
        let expires: UInt64
        let name: String

        static func < (a: Mark, b: Mark) -> Bool { a.expires < b.expires }
    }

    fileprivate struct State {
        var values: [String: Value] = [:]
        var marks = Heap<Mark>()
        var lastToken: UInt64 = 0
    }

    /// How many expired values a write removes at most, so that no write pays for all that expired in a quiet hour. More
    /// than one, so that the removal overtakes the writes.
    private static let removedByWrite = 16
    /// Nothing is kept for longer than a century: sums of nanoseconds stay within 64 bits.
    private static let longestTimeToLive = Duration.seconds(100 * 365 * 86_400)

    private let clock: any NodeClock
    private let maxValueBytes: Int
    private let state = Locked(State())

    /// Makes an empty store.
    ///
    /// - Parameters:
    ///   - clock: what times to live are measured on.
    ///   - maxValueBytes: the largest value, in bytes. The default is what a memcached with its default item size of 1 MiB
    ///     surely takes, so that a session that fits here fits there.
    public init(clock: any NodeClock = SystemClock(), maxValueBytes: Int = 1_000_000) {
        self.clock = clock
        self.maxValueBytes = maxValueBytes
    }

    /// How many values are in memory, expired ones that were not removed yet included.
    var count: Int { state.withLock { $0.values.count } }
    /// How many marks are in memory.
    var markCount: Int { state.withLock { $0.marks.count } }

    /// Reads keys, each for itself.
    public func get(_ keys: [StoreKey]) async -> [Result<StoreEntry?, StoreError>] {
        let now = clock.monotonicNanoseconds()
        return state.withLock { state in
            keys.map { key in
                Result { () throws(StoreError) in
                    try check(key)
                    guard let value = state.value(key.name, now) else { return nil }
                    return StoreEntry(bytes: value.bytes, token: StoreToken(value: value.token, generation: 0))
                }
            }
        }
    }

    /// Writes one value, if the condition holds, and tells its token.
    public func put(
        _ bytes: [UInt8], for key: StoreKey, timeToLive: Duration, if condition: StoreCondition
    ) async throws(StoreError) -> StorePut {
        try check(key)
        guard bytes.count <= maxValueBytes else {
            throw StoreError(.tooLarge, "the value is larger than the store takes", mayHaveTakenEffect: false)
        }
        let now = clock.monotonicNanoseconds()
        let expires = now + min(timeToLive, Self.longestTimeToLive).nanoseconds
        return state.withLock { state in
            state.removeExpired(now, atMost: Self.removedByWrite)
            let old = state.value(key.name, now)
            switch condition {
            case .absent: guard old == nil else { return .conflict }
            case .unchanged(let token): guard let old, token.names(old.token) else { return .conflict }
            case .always: break
            }
            let token = state.nextToken()
            state.values[key.name] = Value(bytes: bytes, token: token, expires: expires)
            state.mark(key.name, expires)
            return .stored(StoreToken(value: token, generation: 0))
        }
    }

    /// Adds to counters that exist, one after the other.
    public func increment(_ keys: [StoreKey], by amount: UInt64) async throws(StoreError) -> [UInt64?] {
        for key in keys { try check(key) }
        let now = clock.monotonicNanoseconds()
        var numbers: [UInt64?] = []
        numbers.reserveCapacity(keys.count)
        for (index, key) in keys.enumerated() {
            let number = try state.withLock { state throws(StoreError) -> UInt64? in
                guard var value = state.value(key.name, now) else { return nil }
                guard let number = UInt64(decimal: value.bytes) else {
                    throw StoreError(.corrupt, "a counter holds no number", mayHaveTakenEffect: index > 0)
                }
                value.bytes = Array(String(number &+ amount).utf8)
                value.token = state.nextToken()
                state.values[key.name] = value
                return number &+ amount
            }
            numbers.append(number)
        }
        return numbers
    }

    /// Starts the time to live of a key anew.
    public func touch(_ key: StoreKey, timeToLive: Duration) async throws(StoreError) -> Bool {
        try check(key)
        let now = clock.monotonicNanoseconds()
        let expires = now + min(timeToLive, Self.longestTimeToLive).nanoseconds
        return state.withLock { state in
            guard state.value(key.name, now) != nil else { return false }
            state.values[key.name]?.expires = expires
            state.mark(key.name, expires)
            return true
        }
    }

    /// Deletes a key, if the condition holds.
    public func delete(_ key: StoreKey, ifUnchangedSince token: StoreToken?) async throws(StoreError) -> StoreDelete {
        try check(key)
        let now = clock.monotonicNanoseconds()
        return state.withLock { state in
            guard let value = state.value(key.name, now) else { return .absent }
            if let token, !token.names(value.token) { return .conflict }
            state.values[key.name] = nil
            return .deleted
        }
    }

    private func check(_ key: StoreKey) throws(StoreError) {
        guard key.isValid else {
            throw StoreError(.invalidKey, "the key is not one that stores take", mayHaveTakenEffect: false)
        }
        if case .server(let number) = key.placement, number != 0 {
            throw StoreError(.invalidKey, "the store has one server, number 0", mayHaveTakenEffect: false)
        }
    }
}

extension MemoryStore.State {
    /// The value, unless it expired.
    fileprivate func value(_ name: String, _ now: UInt64) -> MemoryStore.Value? {
        guard let value = values[name], value.expires > now else { return nil }
        return value
    }

    fileprivate mutating func nextToken() -> UInt64 {
        lastToken += 1
        return lastToken
    }

    /// Notes when to look at a value again. Marks that were left behind by later writes and by deletions are dropped, all
    /// at once, when they are more than the values: at the price of a constant for each write.
    fileprivate mutating func mark(_ name: String, _ expires: UInt64) {
        marks.insert(MemoryStore.Mark(expires: expires, name: name))
        if marks.count > 2 * values.count + 64 {
            marks = Heap(values.map { MemoryStore.Mark(expires: $0.value.expires, name: $0.key) })
        }
    }

    fileprivate mutating func removeExpired(_ now: UInt64, atMost limit: Int) {
        for _ in 0..<limit {
            guard let mark = marks.min, mark.expires <= now else { return }
            marks.removeMin()
            if let value = values[mark.name], value.expires <= now { values[mark.name] = nil }
        }
    }
}

extension StoreToken {
    /// Whether this is a token of the memory store that stands for `value`.
    fileprivate func names(_ value: UInt64) -> Bool { generation == 0 && self.value == value }
}

extension UInt64 {
    /// Reads an unsigned decimal number in ASCII, and nothing else: no sign, no space.
    fileprivate init?(decimal bytes: [UInt8]) {
        guard !bytes.isEmpty else { return nil }
        var number: UInt64 = 0
        for byte in bytes {
            guard (0x30...0x39).contains(byte) else { return nil }
            let (tens, tooLarge) = number.multipliedReportingOverflow(by: 10)
            let (sum, overflow) = tens.addingReportingOverflow(UInt64(byte - 0x30))
            if tooLarge || overflow { return nil }
            number = sum
        }
        self = number
    }
}
