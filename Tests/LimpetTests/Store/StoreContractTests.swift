import Limpet
import LimpetTesting
import Testing

/// The contract is only worth something if it notices a store that breaks it.
struct StoreContractTests {
    @Test(arguments: FaultyStore.Fault.allCases)
    func `the contract notices a store that`(fault: FaultyStore.Fault) async throws {
        let clock = ManualClock()
        let contract = StoreContract(clock: clock, passTime: { clock.advance(by: $0) }) {
            FaultyStore(MemoryStore(clock: clock), fault)
        }
        var violations = 0
        for rule in StoreContract.rules {
            do {
                try await rule.check(contract)
            } catch is ContractViolation {
                violations += 1
            } catch is StoreError {
                violations += 1  // A rule that does not expect an error lets it through.
            }
        }
        #expect(violations > 0)
    }

    @Test func `a violation says what the store did, and what it should have done`() async throws {
        let clock = ManualClock()
        let contract = StoreContract(clock: clock, passTime: { clock.advance(by: $0) }) {
            FaultyStore(MemoryStore(clock: clock), .swapsWithAnyToken)
        }
        let rule = try #require(
            StoreContract.rules.first { $0.description == "a swap with an old token conflicts and changes nothing" })
        let violation = await #expect(throws: ContractViolation.self) { try await rule.check(contract) }
        #expect(violation?.description.hasPrefix("a swap with an old token: stored(") == true)
        #expect(violation?.description.hasSuffix("not conflict") == true)
    }

    @Test func `all rules have sentences of their own`() {
        #expect(Set(StoreContract.rules.map(\.description)).count == StoreContract.rules.count)
    }
}

/// A store with one fault.
final class FaultyStore: SharedStore {
    enum Fault: String, CaseIterable, CustomTestStringConvertible {
        case swapsWithAnyToken, swapsWhatIsGone, putsOverWhatIsThere, endsASecondEarly, neverEnds, touchesNothing
        case changesTokensWhenTouched, tellsWrongTokens, makesCountersByIncrement, countsInSigned, countsTextAsZero
        case answersOutOfOrder, leavesOutAbsentKeys, takesAnyKey, deletesWithAnyToken, cutsValuesAtZero
        case destroysOnTooLarge, hasAnyServer, losesIncrements, endsAtThirtyDays

        var testDescription: String { rawValue }
    }

    private let store: any SharedStore
    private let fault: Fault

    init(_ store: any SharedStore, _ fault: Fault) {
        self.store = store
        self.fault = fault
    }

    func get(_ keys: [StoreKey]) async -> [Result<StoreEntry?, StoreError>] {
        let results = await store.get(keys.map(mend))
        switch fault {
        case .answersOutOfOrder: return results.reversed()
        case .leavesOutAbsentKeys:
            return results.filter { if case .success(nil) = $0 { keys.count < 2 } else { true } }
        default: return results
        }
    }

    func put(
        _ bytes: [UInt8], for key: StoreKey, timeToLive: Duration, if condition: StoreCondition
    ) async throws(StoreError) -> StorePut {
        var condition = condition
        var timeToLive = timeToLive
        var bytes = bytes
        let key = mend(key)
        switch (fault, condition) {
        case (.swapsWithAnyToken, .unchanged):
            if try await store.get([key])[0].get() != nil { condition = .always }
        case (.swapsWhatIsGone, .unchanged):
            if try await store.get([key])[0].get() == nil { condition = .always }
        case (.putsOverWhatIsThere, .absent): condition = .always
        case (.endsASecondEarly, _): timeToLive -= .milliseconds(900)
        case (.neverEnds, _): timeToLive += .seconds(3600)
        case (.endsAtThirtyDays, _): if timeToLive > .seconds(30 * 86_400) { timeToLive = .nanoseconds(0) }
        case (.cutsValuesAtZero, _): bytes = Array(bytes.prefix { $0 != 0 })
        case (.destroysOnTooLarge, .always) where bytes.count > 1_000_000:
            _ = try await store.delete(key, ifUnchangedSince: nil)
        default: break
        }
        let result = try await store.put(bytes, for: key, timeToLive: timeToLive, if: condition)
        if fault == .tellsWrongTokens, case .stored(let token?) = result {
            return .stored(StoreToken(value: token.value + 1, generation: token.generation))
        }
        return result
    }

    func increment(_ keys: [StoreKey], by amount: UInt64) async throws(StoreError) -> [UInt64?] {
        let keys = keys.map(mend)
        switch fault {
        case .makesCountersByIncrement:
            for key in keys { _ = try await store.put([0x30], for: key, timeToLive: .seconds(60), if: .absent) }
        case .countsInSigned where amount > UInt64(Int64.max):
            throw StoreError(.corrupt, "the amount is too large", mayHaveTakenEffect: false)
        case .countsTextAsZero:
            for key in keys {
                guard let entry = try await store.get([key])[0].get() else { continue }
                if UInt64(String(decoding: entry.bytes, as: UTF8.self)) != nil { continue }
                _ = try await store.put([0x30], for: key, timeToLive: .seconds(60), if: .always)
            }
        case .losesIncrements:
            var sums: [UInt64?] = []
            for key in keys {
                guard let entry = try await store.get([key])[0].get() else {
                    sums.append(nil)
                    continue
                }
                await Task.yield()
                let sum = (UInt64(String(decoding: entry.bytes, as: UTF8.self)) ?? 0) &+ amount
                _ = try await store.put(Array("\(sum)".utf8), for: key, timeToLive: .seconds(60), if: .always)
                sums.append(sum)
            }
            return sums
        default: break
        }
        return try await store.increment(keys, by: amount)
    }

    func touch(_ key: StoreKey, timeToLive: Duration) async throws(StoreError) -> Bool {
        let entry = try await store.get([mend(key)])[0].get()
        switch fault {
        case .touchesNothing: return entry != nil
        case .changesTokensWhenTouched:
            guard let entry else { return false }
            return try await put(entry.bytes, for: key, timeToLive: timeToLive, if: .always) != .conflict
        default: return try await store.touch(mend(key), timeToLive: timeToLive)
        }
    }

    func delete(_ key: StoreKey, ifUnchangedSince token: StoreToken?) async throws(StoreError) -> StoreDelete {
        try await store.delete(mend(key), ifUnchangedSince: fault == .deletesWithAnyToken ? nil : token)
    }

    private func mend(_ key: StoreKey) -> StoreKey {
        switch fault {
        case .takesAnyKey where !key.isValid: StoreKey("any", placement: key.placement)
        case .hasAnyServer: StoreKey(key.name, placement: .group(""))
        default: key
        }
    }
}
