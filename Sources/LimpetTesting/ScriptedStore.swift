public import Limpet

/// A store that fails, waits and forgets as a test tells it to, and remembers what it was asked.
///
/// It wraps another store, that holds the values. Nodes that share the values get a scripted store each, over one
/// ``MemoryStore`` or over a common scripted store, which then scripts what happens to all of them:
///
/// ```swift
/// let store = ScriptedStore(MemoryStore(clock: clock))
/// store.next(.put, on: "d/").failsAfterEffect(.timeout)          // an ambiguous commit
/// let hold = store.next(.get, on: "v/").isHeld()                 // … until hold.release()
/// store.next(.put, on: "d/").runsFirst { await other.commit() }  // another node comes in between
/// …
/// #expect(store.calls.map(\.description) == ["get d/1 v/1", "put d/1 unchanged"])
/// ```
///
/// `on:` names keys by their beginning; of a name with colons, the part behind the last one counts as well. All scripts
/// that match a call apply to it, in the order in which they were written, until one of them fails it. A get fails for
/// the keys that match, each for itself; any other call fails as a whole.
public final class ScriptedStore: SharedStore {
    private struct State {
        var scripts: [StoreScript] = []
        var calls: [StoreCall] = []
        var tokens = TokenBook()
        var seen: Set<StoreKey> = []
        var tellsTokens: Bool
    }

    private let store: any SharedStore
    private let state: Locked<State>

    /// Wraps a store.
    ///
    /// - Parameter tellsTokens: whether `put` tells the new token. `false` is what libmemcached does.
    public init(_ store: any SharedStore, tellsTokens: Bool = true) {
        self.store = store
        state = Locked(State(tellsTokens: tellsTokens))
    }

    // MARK: Scripts

    /// The next call of this kind on these keys.
    ///
    /// - Parameters:
    ///   - kind: `nil` for calls of all kinds.
    ///   - prefix: how the name of one of its keys begins; empty for all.
    ///   - skipping: how many matching calls go by first.
    public func next(_ kind: StoreCall.Kind? = nil, on prefix: String = "", skipping: Int = 0) -> StoreScripting {
        next(1, kind, on: prefix, skipping: skipping)
    }

    /// The next `count` calls of this kind on these keys.
    public func next(
        _ count: Int, _ kind: StoreCall.Kind? = nil, on prefix: String = "", skipping: Int = 0
    ) -> StoreScripting {
        let match = StoreScript.Match(kind: kind, prefix: prefix)
        return StoreScripting(store: self, match: match, skipping: skipping, count: count)
    }

    /// All calls of this kind on these keys, until ``forgetScripts()``.
    public func every(_ kind: StoreCall.Kind? = nil, on prefix: String = "") -> StoreScripting {
        next(.max, kind, on: prefix)
    }

    /// From now on, calls are only answered. Whoever is held stays held.
    public func forgetScripts() {
        state.withLock { $0.scripts = [] }
    }

    func add(_ script: StoreScript) {
        state.withLock { $0.scripts.append(script) }
    }

    // MARK: What was asked

    /// All calls since the start, or since ``forgetCalls()``, in the order in which they began.
    public var calls: [StoreCall] { state.withLock { $0.calls } }

    /// How many calls of this kind there were on these keys.
    public func count(_ kind: StoreCall.Kind? = nil, on prefix: String = "") -> Int {
        let match = StoreScript.Match(kind: kind, prefix: prefix)
        return state.withLock { state in state.calls.count { match.matches($0) } }
    }

    /// Begins the list of calls anew.
    public func forgetCalls() {
        state.withLock { $0.calls = [] }
    }

    // MARK: What befalls a server

    /// Whether `put` tells the new token.
    public var tellsTokens: Bool {
        get { state.withLock { $0.tellsTokens } }
        set { state.withLock { $0.tellsTokens = newValue } }
    }

    /// Makes all tokens void that were handed out: the connection was lost.
    public func voidTokens() {
        state.withLock { $0.tokens = $0.tokens.next() }
    }

    /// Loses the values of all keys that were ever named, and voids all tokens: the server was restarted.
    public func loseMemory() async throws(StoreError) {
        voidTokens()
        try await lose("")
    }

    /// Loses the values of the keys that begin so, as an eviction does.
    public func lose(_ prefix: String) async throws(StoreError) {
        for key in state.withLock({ $0.seen.filter { $0.begins(with: prefix) } }) {
            _ = try await store.delete(key, ifUnchangedSince: nil)
        }
    }

    // MARK: The contract

    /// How many servers the wrapped store has.
    public var serverCount: Int { store.serverCount }

    /// Where the wrapped store keeps a group.
    public func server(ofGroup group: String) -> Int { store.server(ofGroup: group) }

    /// Runs the wrapped store.
    public func run() async throws { try await store.run() }

    /// Reads keys from the wrapped store; those that a script fails answer its error.
    public func get(_ keys: [StoreKey]) async -> [Result<StoreEntry?, StoreError>] {
        var failures: [(match: StoreScript.Match, error: StoreError)] = []
        var answerHolds: [StoreHold] = []
        for script in begin(StoreCall(kind: .get, keys: keys)) {
            switch script.action {
            case .run(let body): await body()
            case .hold(let hold): await hold.pass()
            case .holdAnswer(let hold): answerHolds.append(hold)
            case .fail(let error), .failAfterEffect(let error), .failThenTakeEffect(let error, _):
                failures.append((script.match, StoreError(error.code, error.message, mayHaveTakenEffect: false)))
            }
        }
        let results = await store.get(keys)
        for hold in answerHolds { await hold.pass() }
        return zip(keys, results).map { key, result in
            if let failure = failures.first(where: { key.begins(with: $0.match.prefix) }) {
                return .failure(failure.error)
            }
            return result.map { entry in
                entry.map { StoreEntry(bytes: $0.bytes, token: own($0.token)) }
            }
        }
    }

    /// Writes to the wrapped store, as the scripts say.
    public func put(
        _ bytes: [UInt8], for key: StoreKey, timeToLive: Duration, if condition: StoreCondition
    ) async throws(StoreError) -> StorePut {
        let call = StoreCall(kind: .put, keys: [key], condition: condition, timeToLive: timeToLive)
        var wrapped: StoreCondition? = condition
        if case .unchanged(let token) = condition { wrapped = self.wrapped(token).map { .unchanged(since: $0) } }
        let result = try await perform(call, isChange: { $0 != .conflict }) {
            [store, wrapped] () async throws(StoreError) -> StorePut in
            guard let wrapped, key.isValid else {
                // A void token is not sent; an invalid key is for the wrapped store to refuse, whatever the token.
                return key.isValid
                    ? .conflict : try await store.put(bytes, for: key, timeToLive: timeToLive, if: .always)
            }
            return try await store.put(bytes, for: key, timeToLive: timeToLive, if: wrapped)
        }
        guard case .stored(let token?) = result else { return result }
        return .stored(tellsTokens ? own(token) : nil)
    }

    /// Adds to counters of the wrapped store, as the scripts say.
    public func increment(_ keys: [StoreKey], by amount: UInt64) async throws(StoreError) -> [UInt64?] {
        let call = StoreCall(kind: .increment, keys: keys, amount: amount)
        return try await perform(call, isChange: { $0.contains { $0 != nil } }) {
            [store] () async throws(StoreError) -> [UInt64?] in
            try await store.increment(keys, by: amount)
        }
    }

    /// Touches a key of the wrapped store, as the scripts say.
    public func touch(_ key: StoreKey, timeToLive: Duration) async throws(StoreError) -> Bool {
        let call = StoreCall(kind: .touch, keys: [key], timeToLive: timeToLive)
        return try await perform(call, isChange: { $0 }) { [store] () async throws(StoreError) -> Bool in
            try await store.touch(key, timeToLive: timeToLive)
        }
    }

    /// Deletes from the wrapped store, as the scripts say.
    public func delete(_ key: StoreKey, ifUnchangedSince token: StoreToken?) async throws(StoreError) -> StoreDelete {
        let call = StoreCall(kind: .delete, keys: [key], condition: token.map { .unchanged(since: $0) })
        let wrapped = token.flatMap { self.wrapped($0) }
        return try await perform(call, isChange: { $0 == .deleted }) {
            [store] () async throws(StoreError) -> StoreDelete in
            if token != nil, wrapped == nil, key.isValid { return .conflict }
            return try await store.delete(key, ifUnchangedSince: wrapped)
        }
    }

    private func perform<Value: Sendable>(
        _ call: StoreCall, isChange: @escaping @Sendable (Value) -> Bool,
        _ operation: @escaping @Sendable () async throws(StoreError) -> Value
    ) async throws(StoreError) -> Value {
        var answerHolds: [StoreHold] = []
        for script in begin(call) {
            switch script.action {
            case .run(let body): await body()
            case .hold(let hold): await hold.pass()
            case .holdAnswer(let hold): answerHolds.append(hold)
            case .fail(let error): throw error
            case .failAfterEffect(let error):
                _ = try await operation()
                throw error
            case .failThenTakeEffect(let error, let late):
                late.add { () async throws(StoreError) -> Bool in isChange(try await operation()) }
                throw error
            }
        }
        let value = try await operation()
        for hold in answerHolds { await hold.pass() }
        return value
    }

    /// Notes a call, and tells which scripts apply to it.
    private func begin(_ call: StoreCall) -> [StoreScript] {
        state.withLock { state in
            state.calls.append(call)
            state.seen.formUnion(call.keys.lazy.filter(\.isValid))
            var scripts: [StoreScript] = []
            for index in state.scripts.indices where state.scripts[index].applies(to: call) {
                scripts.append(state.scripts[index])
            }
            state.scripts.removeAll { $0.remaining == 0 }
            return scripts
        }
    }

    private func own(_ token: StoreToken) -> StoreToken {
        state.withLock { $0.tokens.own(for: token) }
    }

    private func wrapped(_ token: StoreToken) -> StoreToken? {
        state.withLock { $0.tokens.wrapped(for: token) }
    }
}
