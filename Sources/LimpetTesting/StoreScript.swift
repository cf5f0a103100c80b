public import Limpet

/// Some calls of a ``ScriptedStore``, for which a test says what is to happen.
public struct StoreScripting: Sendable {
    let store: ScriptedStore
    let match: StoreScript.Match
    let skipping: Int
    let count: Int

    /// They fail, and never have an effect.
    ///
    /// - Parameter mayHaveTakenEffect: `true` if the caller cannot know that: the request was lost on its way.
    public func fails(_ code: StoreError.Code, mayHaveTakenEffect: Bool = false) {
        add(.fail(error(code, mayHaveTakenEffect: mayHaveTakenEffect)))
    }

    /// They take effect, and the answer is lost.
    public func failsAfterEffect(_ code: StoreError.Code = .timeout) {
        add(.failAfterEffect(error(code, mayHaveTakenEffect: true)))
    }

    /// They fail for their caller, and take effect later, when the test says so.
    public func failsThenTakesEffect(_ code: StoreError.Code = .timeout) -> LateEffect {
        let late = LateEffect()
        add(.failThenTakeEffect(error(code, mayHaveTakenEffect: true), late))
        return late
    }

    /// They wait before they take effect.
    public func isHeld() -> StoreHold {
        let hold = StoreHold()
        add(.hold(hold))
        return hold
    }

    /// They wait after they took effect, before the caller learns of it.
    public func isHeldAfterEffect() -> StoreHold {
        let hold = StoreHold()
        add(.holdAnswer(hold))
        return hold
    }

    /// Something happens first: another node's call, say.
    public func runsFirst(_ body: @escaping @Sendable () async -> Void) {
        add(.run(body))
    }

    private func add(_ action: StoreScript.Action) {
        store.add(StoreScript(match: match, skipping: skipping, remaining: count, action: action))
    }

    private func error(_ code: StoreError.Code, mayHaveTakenEffect: Bool) -> StoreError {
        StoreError(code, "scripted by a test", mayHaveTakenEffect: mayHaveTakenEffect)
    }
}

/// What happens to some calls.
struct StoreScript: Sendable {
    enum Action: Sendable {
        case run(@Sendable () async -> Void)
        case hold(StoreHold)
        case holdAnswer(StoreHold)
        case fail(StoreError)
        case failAfterEffect(StoreError)
        case failThenTakeEffect(StoreError, LateEffect)
    }

    struct Match: Sendable {
        let kind: StoreCall.Kind?
        let prefix: String

        func matches(_ call: StoreCall) -> Bool {
            (kind == nil || kind == call.kind) && (prefix.isEmpty || call.keys.contains { $0.begins(with: prefix) })
        }
    }

    let match: Match
    var skipping: Int
    var remaining: Int
    let action: Action

    /// Whether the script applies to a call; counts it.
    mutating func applies(to call: StoreCall) -> Bool {
        guard remaining > 0, match.matches(call) else { return false }
        if skipping > 0 {
            skipping -= 1
            return false
        }
        if remaining != .max { remaining -= 1 }
        return true
    }
}

/// The tokens that a scripted store handed out, so that it can make them void: its callers hold tokens of its own.
struct TokenBook {
    private var own: [StoreToken: StoreToken] = [:]
    private var wrapped: [StoreToken: StoreToken] = [:]
    private let generation: UInt64

    init(generation: UInt64 = 1) {
        self.generation = generation
    }

    /// An empty book, whose tokens differ from all of this one.
    func next() -> TokenBook { TokenBook(generation: generation + 1) }

    mutating func own(for token: StoreToken) -> StoreToken {
        if let known = own[token] { return known }
        let new = StoreToken(value: UInt64(own.count + 1), generation: generation)
        own[token] = new
        wrapped[new] = token
        return new
    }

    /// The wrapped store's token, unless this one is void.
    func wrapped(for token: StoreToken) -> StoreToken? { wrapped[token] }
}
