public import Limpet

/// What every ``SharedStore`` must do, as rules that a test runs against a store: Limpet's own stores and yours.
///
/// ```swift
/// @Test(arguments: StoreContract.rules) func `my store keeps the contract`(rule: StoreContract.Rule) async throws {
///     try await rule.check(StoreContract { MyStore(port: 4711) })
/// }
/// ```
///
/// All rules may run at the same time, and on one server: each makes names of its own, and leaves what it wrote to its
/// time to live of a few minutes. A store on which time is real needs up to four seconds for some rules.
public struct StoreContract: Sendable {
    /// One thing that a store must do.
    public struct Rule: Sendable, CustomStringConvertible {
        /// The rule, as a sentence.
        public let description: String
        let body: @Sendable (StoreProbe) async throws -> Void

        init(_ description: String, _ body: @escaping @Sendable (StoreProbe) async throws -> Void) {
            self.description = description
            self.body = body
        }

        /// Makes a store and holds it against the rule.
        ///
        /// - Throws: ``ContractViolation`` if the store breaks it, and whatever the store throws that it should not.
        public func check(_ contract: StoreContract) async throws {
            try await body(StoreProbe(contract))
        }
    }

    let makeStore: @Sendable () async throws -> any SharedStore
    let clock: any NodeClock
    let passTime: @Sendable (Duration) async throws -> Void
    let tooLargeBytes: Int?

    /// Describes a store on which time is real.
    ///
    /// - Parameters:
    ///   - tooLargeBytes: how long a value is that the store surely refuses; `nil` if there is none.
    ///   - makeStore: makes a store that is ready for use. Every rule makes its own.
    public init(tooLargeBytes: Int? = 2_097_152, makeStore: @escaping @Sendable () async throws -> any SharedStore) {
        let clock = SystemClock()
        self.init(
            tooLargeBytes: tooLargeBytes, clock: clock, passTime: { try await clock.sleep(for: $0) },
            makeStore: makeStore)
    }

    /// Describes a store whose clock the test holds.
    ///
    /// - Parameters:
    ///   - tooLargeBytes: how long a value is that the store surely refuses; `nil` if there is none.
    ///   - clock: what the store measures times to live on.
    ///   - passTime: moves that clock on.
    ///   - makeStore: makes a store that is ready for use. Every rule makes its own.
    public init(
        tooLargeBytes: Int? = 2_097_152, clock: any NodeClock,
        passTime: @escaping @Sendable (Duration) async throws -> Void,
        makeStore: @escaping @Sendable () async throws -> any SharedStore
    ) {
        self.makeStore = makeStore
        self.clock = clock
        self.passTime = passTime
        self.tooLargeBytes = tooLargeBytes
    }

    /// All rules.
    public static let rules: [Rule] = valueRules + tokenRules + counterRules + keyRules + timeRules
}

/// A store breaks a rule of the ``StoreContract``.
public struct ContractViolation: Error, Sendable, CustomStringConvertible {
    /// What the store did, and what it should have done.
    public let description: String
}

/// A store under test, with names that no other rule uses, and the few expectations that the rules are written in.
struct StoreProbe: Sendable {
    let store: any SharedStore
    let contract: StoreContract
    private let names: String

    init(_ contract: StoreContract) async throws {
        self.contract = contract
        store = try await contract.makeStore()
        names = "contract:" + String(UInt64.random(in: .min ... .max), radix: 36) + ":"
    }

    /// A key that no other rule uses. Those of a group live on one server.
    func key(_ name: String, group: String = "g") -> StoreKey {
        StoreKey(names + name, placement: .group(names + group))
    }

    /// A key on a server by number.
    func key(_ name: String, server: Int) -> StoreKey {
        StoreKey(names + name, placement: .server(server))
    }

    func read(_ key: StoreKey) async throws -> StoreEntry? {
        let results = await store.get([key])
        try expect(results.count, is: 1, "results of a get of one key")
        return try results[0].get()
    }

    func read(_ keys: [StoreKey]) async throws -> [[UInt8]?] {
        let results = await store.get(keys)
        try expect(results.count, is: keys.count, "results of a get")
        return try results.map { try $0.get()?.bytes }
    }

    /// Reads a value that must be there.
    func readPresent(_ key: StoreKey) async throws -> StoreEntry {
        guard let entry = try await read(key) else {
            throw ContractViolation(description: "a value that was stored is not found")
        }
        return entry
    }

    @discardableResult
    func put(
        _ text: String, _ key: StoreKey, if condition: StoreCondition = .always, timeToLive: Duration = .seconds(300)
    ) async throws -> StorePut {
        try await store.put(Array(text.utf8), for: key, timeToLive: timeToLive, if: condition)
    }

    func expectText(_ text: String?, at key: StoreKey, _ what: String) async throws {
        let bytes = try await read(key)?.bytes
        try expect(bytes.map { String(decoding: $0, as: UTF8.self) }, is: text, what)
    }

    func expect<Value: Equatable>(_ value: Value, is expected: Value, _ what: String) throws {
        guard value != expected else { return }
        throw ContractViolation(description: "\(what): \(value), not \(expected)")
    }

    func expectStored(_ result: StorePut, _ what: String) throws {
        if case .conflict = result { throw ContractViolation(description: "\(what): conflict, not stored") }
    }

    /// Runs an operation that must fail with this code, and surely without an effect.
    func expectError(_ code: StoreError.Code, _ what: String, _ operation: () async throws -> Void) async throws {
        do {
            try await operation()
        } catch let error as StoreError {
            try expect(error.code, is: code, what)
            try expect(error.mayHaveTakenEffect, is: false, "\(what), may have taken effect")
            return
        }
        throw ContractViolation(description: "\(what): no error, not \(code)")
    }

    /// Waits until a key is gone.
    ///
    /// - Parameter started: when the time to live was asked for at the earliest.
    /// - Throws: ``ContractViolation`` if that was earlier than asked for, or does not happen within ten seconds more: a machine may be busy.
    func expectGone(_ key: StoreKey, after timeToLive: Duration, since started: UInt64, _ what: String) async throws {
        let asked = UInt64(timeToLive / .nanoseconds(1))
        let patience = asked + 10_000_000_000
        while true {
            let before = contract.clock.monotonicNanoseconds() - started
            let entry = try await read(key)
            let after = contract.clock.monotonicNanoseconds() - started
            guard entry != nil else {
                if after >= asked { return }
                throw ContractViolation(
                    description: "\(what): gone after \(after / 1_000_000) ms at the latest, not after \(timeToLive)")
            }
            if before > patience {
                throw ContractViolation(description: "\(what): still there after \(before / 1_000_000) ms")
            }
            try await contract.passTime(.milliseconds(20))
        }
    }

    /// Lets a number of callers do something at the same time.
    func concurrently<Value: Sendable>(
        _ callers: Int, _ body: @escaping @Sendable (Int) async throws -> Value
    ) async throws -> [Value] {
        try await withThrowingTaskGroup { group in
            for caller in 0..<callers { group.addTask { try await body(caller) } }
            return try await group.reduce(into: []) { $0.append($1) }
        }
    }
}
