import Logging
import Synchronization

/// The store as the coherence sequences see it: every call is counted, and a server that does not answer is not asked for a
/// while (``CircuitBreaker``), so that requests do not queue up behind its time-outs.
///
/// Each server of the store has a breaker of its own. While it is open, calls of that server fail at once, as never sent;
/// those of the others go on.
final class StoreGuard: Sendable {
    private final class Server: Sendable {
        struct State {
            var breaker: CircuitBreaker
            /// The keys of conditional writes that nobody answered, until an answer about them comes.
            var unknown: Set<StoreKey> = []
        }

        let number: Int
        let state: Locked<State>
        /// The breaker's state for those who only look.
        let isAvailable = Atomic<Bool>(true)

        init(_ number: Int, _ limits: CircuitBreaker.Limits) {
            self.number = number
            state = Locked(State(breaker: CircuitBreaker(limits: limits)))
        }
    }

    /// So many unknown outcomes are followed up at most for each server: a node that has more has worse to tell.
    private static let unknownOutcomes = 1000

    private let store: any SharedStore
    private let servers: [Server]
    private let clock: any NodeClock
    private let statistics: SessionStatistics
    private let logger: Logger
    private let recovered: @Sendable () -> Void

    /// - Parameters:
    ///   - timeout: how long the store may take for a call; the breakers reckon with it.
    ///   - recovered: told when a server answers again.
    init(
        _ store: any SharedStore, timeout: Duration, clock: any NodeClock, statistics: SessionStatistics,
        logger: Logger,
        recovered: @escaping @Sendable () -> Void = {}
    ) {
        self.store = store
        let limits = CircuitBreaker.Limits(timeout: timeout)
        servers = (0..<store.serverCount).map { Server($0, limits) }
        self.clock = clock
        self.statistics = statistics
        self.logger = logger
        self.recovered = recovered
    }

    var serverCount: Int { store.serverCount }

    func server(ofGroup group: String) -> Int { store.server(ofGroup: group) }

    /// Whether a server's breaker is closed: one atomic load.
    func isAvailable(server: Int) -> Bool { servers[server].isAvailable.load(ordering: .relaxed) }

    // MARK: Calls

    /// - Parameter isProbe: whether the servers are asked even if they have not answered for a while.
    func get(_ keys: [StoreKey], isProbe: Bool = false) async -> [Result<StoreEntry?, StoreError>] {
        if let first = keys.first {
            let server = server(of: first)
            if servers.count == 1 || keys.dropFirst().allSatisfy({ self.server(of: $0) === server }) {
                return await get(keys, of: server, isProbe: isProbe)
            }
        }
        return await getFromMany(keys, isProbe: isProbe)
    }

    private func get(
        _ keys: [StoreKey], of server: Server?, isProbe: Bool
    ) async -> [Result<StoreEntry?, StoreError>] {
        let admission = admit(server, isProbe: isProbe)
        if case .refuse = admission { return keys.map { _ in .failure(StoreError.refused) } }
        statistics.currentStoreCalls.gets.add(1)
        let results = await store.get(keys)
        note(Array(keys.indices), of: keys, results, server, admission)
        return results
    }

    /// One call for the servers that may be asked; the keys of the others fail.
    private func getFromMany(_ keys: [StoreKey], isProbe: Bool) async -> [Result<StoreEntry?, StoreError>] {
        var parts: [(server: Server?, admission: CircuitBreaker.Admission, indices: [Int])] = []
        for (index, key) in keys.enumerated() {
            let server = server(of: key)
            if let part = parts.firstIndex(where: { $0.server === server }) {
                parts[part].indices.append(index)
            } else {
                parts.append((server, admit(server, isProbe: isProbe), [index]))
            }
        }
        let asked = parts.flatMap { part in if case .refuse = part.admission { [Int]() } else { part.indices } }
        var results = [Result<StoreEntry?, StoreError>](repeating: .failure(StoreError.refused), count: keys.count)
        if !asked.isEmpty {
            statistics.currentStoreCalls.gets.add(1)
            for (index, result) in zip(asked, await store.get(asked.map { keys[$0] })) { results[index] = result }
        }
        for part in parts { note(part.indices, of: keys, results, part.server, part.admission) }
        return results
    }

    func get(_ key: StoreKey) async throws(StoreError) -> StoreEntry? {
        try await get([key])[0].get()
    }

    func put(
        _ bytes: [UInt8], for key: StoreKey, timeToLive: Duration, if condition: StoreCondition
    ) async throws(StoreError) -> StorePut {
        try await change(key, condition: condition) { () async throws(StoreError) -> StorePut in
            statistics.currentStoreCalls.puts.add(1)
            return try await store.put(bytes, for: key, timeToLive: timeToLive, if: condition)
        }
    }

    /// An increment whose outcome is unknown may be repeated: once too often costs only reloads.
    func increment(_ key: StoreKey, by amount: UInt64 = 1) async throws(StoreError) -> UInt64? {
        try await increment([key], by: amount)[0]
    }

    /// Raises counters of one server, in order; those that are missing stay so.
    func increment(_ keys: [StoreKey], by amount: UInt64 = 1) async throws(StoreError) -> [UInt64?] {
        guard let first = keys.first else { return [] }
        let increment = { () async throws(StoreError) -> [UInt64?] in
            self.statistics.currentStoreCalls.increments.add(1)
            return try await self.store.increment(keys, by: amount)
        }
        do {
            return try await change(first, increment)
        } catch  where error.mayHaveTakenEffect {
            return try await change(first, increment)
        }
    }

    func touch(_ key: StoreKey, timeToLive: Duration) async throws(StoreError) -> Bool {
        try await change(key) { () async throws(StoreError) -> Bool in
            statistics.currentStoreCalls.touches.add(1)
            return try await store.touch(key, timeToLive: timeToLive)
        }
    }

    func delete(_ key: StoreKey, ifUnchangedSince token: StoreToken? = nil) async throws(StoreError) -> StoreDelete {
        let condition = token.map { StoreCondition.unchanged(since: $0) } ?? .always
        return try await change(key, condition: condition) { () async throws(StoreError) -> StoreDelete in
            statistics.currentStoreCalls.deletes.add(1)
            return try await store.delete(key, ifUnchangedSince: token)
        }
    }

    /// The number of the server that a key lives on.
    func number(ofServerOf key: StoreKey) -> Int? { server(of: key)?.number }

    /// Puts a value that nobody else would write, if the key is absent, and finds out what became of it: a put whose outcome
    /// is unknown is repeated, and a conflict may be with oneself.
    func putIfAbsent(
        _ bytes: [UInt8], for key: StoreKey, timeToLive: Duration
    ) async throws(StoreError) -> StorePut {
        do {
            return try await put(bytes, for: key, timeToLive: timeToLive, if: .absent)
        } catch  where error.mayHaveTakenEffect {
            do {
                switch try await put(bytes, for: key, timeToLive: timeToLive, if: .absent) {
                case .stored(let token): return .stored(token)
                case .conflict:
                    guard let entry = try await get(key), entry.bytes == bytes else { return .conflict }
                    return .stored(entry.token)
                }
            } catch {
                // The second was not sent, perhaps, but the first was.
                throw StoreError(error.code, error.message, mayHaveTakenEffect: true)
            }
        }
    }

    // MARK: Breakers

    /// The server of a key; `nil` for a placement that is none, which the store refuses.
    private func server(of key: StoreKey) -> Server? {
        switch key.placement {
        case .group(let group): servers[servers.count == 1 ? 0 : store.server(ofGroup: group)]
        case .server(let number): servers.indices.contains(number) ? servers[number] : nil
        }
    }

    private func admit(_ server: Server?, isProbe: Bool) -> CircuitBreaker.Admission {
        guard let server, !server.isAvailable.load(ordering: .relaxed) else { return .call }
        return server.state.withLock { $0.breaker.admit(isProbe: isProbe, at: clock.monotonicNanoseconds()) }
    }

    /// Makes a call that changes something. It is never the probe itself: a probe may end in a time-out, and nobody would
    /// know what became of the change.
    private func change<Value>(
        _ key: StoreKey, condition: StoreCondition = .always, _ call: () async throws(StoreError) -> Value
    ) async throws(StoreError) -> Value {
        let server = server(of: key)
        var admission = admit(server, isProbe: false)
        if case .probe = admission {
            statistics.currentStoreCalls.gets.add(1)
            let results = await store.get([key])
            note([0], of: [key], results, server, admission)
            admission = admit(server, isProbe: false)
        }
        guard case .call = admission else { throw StoreError.refused }
        do {
            let value = try await call()
            note(.answered([key]), server, admission)
            return value
        } catch {
            if error.isOutage {
                let isUnknown = error.mayHaveTakenEffect && condition != .always
                note(.failed(error, unknown: isUnknown ? key : nil), server, admission)
            } else {
                note(.answered([key]), server, admission)
            }
            throw error
        }
    }

    private enum Outcome {
        /// The server has answered about these keys, whatever it answered.
        case answered([StoreKey])
        /// It has not; with the key of a conditional write that may have happened.
        case failed(StoreError, unknown: StoreKey?)
    }

    private func note(
        _ indices: [Int], of keys: [StoreKey], _ results: [Result<StoreEntry?, StoreError>], _ server: Server?,
        _ admission: CircuitBreaker.Admission
    ) {
        if case .refuse = admission { return }
        var outage: StoreError?
        let answered = indices.filter { index in
            guard case .failure(let error) = results[index], error.isOutage else { return true }
            outage = error
            return false
        }
        if let outage, answered.isEmpty {
            note(.failed(outage, unknown: nil), server, admission)
        } else {
            note(.answered(answered.map { keys[$0] }), server, admission)
        }
    }

    private func note(_ outcome: Outcome, _ server: Server?, _ admission: CircuitBreaker.Admission) {
        guard let server else { return }
        let now = clock.monotonicNanoseconds()
        let transition = server.state.withLock { state in
            switch outcome {
            case .answered(let keys):
                if !state.unknown.isEmpty {
                    statistics.unknownOutcomesResolved.add(keys.count { state.unknown.remove($0) != nil })
                }
            case .failed(_, let key?):
                statistics.unknownOutcomes.add(1)
                if state.unknown.count < Self.unknownOutcomes { state.unknown.insert(key) }
            case .failed(_, nil): break
            }
            var isAnswer = true
            if case .failed = outcome { isAnswer = false }
            let transition = state.breaker.note(answered: isAnswer, admission, at: now)
            // Under the lock, so that the last transition is the one that stays.
            switch transition {
            case .opened: server.isAvailable.store(false, ordering: .relaxed)
            case .closed: server.isAvailable.store(true, ordering: .relaxed)
            case nil: break
            }
            return transition
        }
        switch (transition, outcome) {
        case (.opened, .failed(let error, _)):
            statistics.storeOutages.add(1)
            logger.warning(
                "A server of the store does not answer and is left alone for a while",
                metadata: [LogKey.server: "\(server.number)", LogKey.error: "\(error)"])
        case (.closed, _):
            logger.notice(
                "A server of the store answers again", metadata: [LogKey.server: "\(server.number)"])
            recovered()
        default: break
        }
    }
}

extension StoreError {
    /// Whether the server did not answer at all; an answer that is an error is one all the same.
    var isOutage: Bool {
        switch code {
        case .unavailable, .timeout, .connectionLost, .closed: true
        default: false
        }
    }
}
