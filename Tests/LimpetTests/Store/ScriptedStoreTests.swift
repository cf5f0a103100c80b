import Limpet
import LimpetTesting
import Testing

struct ScriptedStoreTests {
    private let clock = ManualClock()
    private let store: ScriptedStore

    init() {
        store = ScriptedStore(MemoryStore(clock: clock))
    }

    @Test(arguments: StoreContract.rules, [true, false])
    func `without scripts it keeps the contract`(rule: StoreContract.Rule, tellsTokens: Bool) async throws {
        let clock = clock
        try await rule.check(
            StoreContract(clock: clock, passTime: { clock.advance(by: $0) }) {
                ScriptedStore(MemoryStore(clock: clock), tellsTokens: tellsTokens)
            })
    }

    @Test func `calls are counted by kind and key, and listed in order`() async throws {
        try await put("one", "limpet1:0:s:d/1", if: .absent)
        let entry = try #require(try await read("limpet1:0:s:d/1"))
        try await put("two", "limpet1:0:s:d/1", if: .unchanged(since: entry.token))
        _ = await store.get([key("d/1"), key("v/1")])
        _ = try await store.increment([key("v/1")], by: 7)
        _ = try await store.touch(key("v/1"), timeToLive: .seconds(9))
        _ = try await store.delete(key("v/1"), ifUnchangedSince: nil)
        #expect(
            store.calls.map(\.description) == [
                "put d/1 absent", "get d/1", "put d/1 unchanged", "get d/1 v/1", "increment v/1", "touch v/1",
                "delete v/1",
            ])
        #expect(store.calls[4].amount == 7)
        #expect(store.calls[5].timeToLive == .seconds(9))
        #expect(store.count() == 7)
        #expect(store.count(.put) == 2)
        #expect(store.count(.get, on: "v/") == 1)
        #expect(store.count(on: "limpet1:") == 3)
        store.forgetCalls()
        #expect(store.count() == 0)
    }

    @Test func `a scripted failure before the effect changes nothing, once`() async throws {
        store.next(.put, on: "d/").fails(.unavailable)
        try await put("one", "v/1")
        await expectError(.unavailable, mayHaveTakenEffect: false) { try await put("one", "d/1") }
        #expect(try await read("d/1") == nil)
        try await put("two", "d/1")
        #expect(try await text("d/1") == "two")
    }

    @Test func `the n-th call can be scripted, and all calls until the scripts are forgotten`() async throws {
        store.next(.touch, on: "d/", skipping: 1).fails(.timeout, mayHaveTakenEffect: true)
        #expect(try await store.touch(key("d/1"), timeToLive: .seconds(9)) == false)
        await expectError(.timeout, mayHaveTakenEffect: true) {
            _ = try await store.touch(key("d/1"), timeToLive: .seconds(9))
        }
        #expect(try await store.touch(key("d/1"), timeToLive: .seconds(9)) == false)
        store.every().fails(.closed)
        for _ in 0..<3 {
            await expectError(.closed, mayHaveTakenEffect: false) { _ = try await store.increment([], by: 1) }
        }
        store.forgetScripts()
        #expect(try await store.increment([], by: 1) == [])
    }

    @Test func `a get fails for the keys that match, and only for them`() async throws {
        try await put("one", "d/1")
        store.next(.get, on: "v/").fails(.timeout)
        let results = await store.get([key("d/1"), key("v/1")])
        #expect(try results[0].get()?.bytes == Array("one".utf8))
        #expect(throws: StoreError.self) { try results[1].get() }
    }

    @Test func `a failure after the effect is ambiguous, and the effect is there`() async throws {
        store.next(.put, on: "d/").failsAfterEffect(.connectionLost)
        await expectError(.connectionLost, mayHaveTakenEffect: true) { try await put("one", "d/1") }
        #expect(try await text("d/1") == "one")
    }

    @Test func `a late write happens when the test says so, and may meet a conflict`() async throws {
        try await put("one", "d/1")
        let token = try #require(try await read("d/1")).token
        let late = store.next(2, .put, on: "d/").failsThenTakesEffect(.timeout)
        for text in ["two", "three"] {
            await expectError(.timeout, mayHaveTakenEffect: true) {
                try await put(text, "d/1", if: .unchanged(since: token))
            }
        }
        #expect(try await text("d/1") == "one")
        #expect(try await late.takeEffect())
        #expect(try await text("d/1") == "two")
        #expect(try await late.takeEffect() == false)
        #expect(try await text("d/1") == "two")
    }

    @Test func `a held call waits before its effect until it is released`() async throws {
        let hold = store.next(.put, on: "d/").isHeld()
        async let held: Void = put("one", "d/1")
        await hold.waitUntilHeld()
        #expect(try await read("d/1") == nil)
        hold.release()
        try await held
        #expect(try await text("d/1") == "one")
    }

    @Test func `a call that is held after its effect can be seen by others`() async throws {
        let hold = store.next(.put, on: "d/").isHeldAfterEffect()
        async let held: Void = put("one", "d/1")
        await hold.waitUntilHeld()
        #expect(try await text("d/1") == "one")
        hold.release()
        try await held
    }

    @Test func `another call can be put in between`() async throws {
        let entry = try await { () async throws in
            try await put("one", "d/1")
            return try #require(try await read("d/1"))
        }()
        let store = store
        store.next(.put, on: "d/").runsFirst {
            await #expect(throws: Never.self) {
                try await store.put([9], for: key("d/1"), timeToLive: .seconds(9), if: .always)
            }
        }
        let result = try await store.put(
            [1], for: key("d/1"), timeToLive: .seconds(9), if: .unchanged(since: entry.token))
        #expect(result == .conflict)
        #expect(try await read("d/1")?.bytes == [9])
    }

    @Test func `told tokens can be hidden, as libmemcached does`() async throws {
        store.tellsTokens = false
        let result = try await store.put([1], for: key("d/1"), timeToLive: .seconds(9), if: .always)
        #expect(result == .stored(nil))
    }

    @Test func `a void token conflicts, and the value read anew has another`() async throws {
        try await put("one", "d/1")
        let old = try #require(try await read("d/1")).token
        store.voidTokens()
        let refused = try await store.put([2], for: key("d/1"), timeToLive: .seconds(9), if: .unchanged(since: old))
        #expect(refused == .conflict)
        #expect(try await store.delete(key("d/1"), ifUnchangedSince: old) == .conflict)
        let new = try #require(try await read("d/1")).token
        #expect(new != old)
        #expect(try await store.delete(key("d/1"), ifUnchangedSince: new) == .deleted)
    }

    @Test func `all memory can be lost, or some keys of it, for every node on a common store`() async throws {
        let node = ScriptedStore(store)
        _ = try await node.put([1], for: key("d/1"), timeToLive: .seconds(9), if: .always)
        _ = try await node.put([1], for: key("v/1"), timeToLive: .seconds(9), if: .always)
        try await store.lose("d/")
        #expect(try await read("d/1") == nil)
        #expect(try await read("v/1") != nil)
        try await store.loseMemory()
        #expect(try await read("v/1") == nil)
    }

    private func put(_ text: String, _ name: String, if condition: StoreCondition = .always) async throws {
        let result = try await store.put(
            Array(text.utf8), for: key(name), timeToLive: .seconds(60), if: condition)
        #expect(result != .conflict)
    }

    private func read(_ name: String) async throws -> StoreEntry? {
        try await store.get([key(name)])[0].get()
    }

    private func text(_ name: String) async throws -> String? {
        try await read(name).map { String(decoding: $0.bytes, as: UTF8.self) }
    }

    private func expectError(
        _ code: StoreError.Code, mayHaveTakenEffect: Bool, sourceLocation: SourceLocation = #_sourceLocation,
        _ operation: () async throws -> Void
    ) async {
        let error = await #expect(throws: StoreError.self, sourceLocation: sourceLocation) { try await operation() }
        #expect(error?.code == code, sourceLocation: sourceLocation)
        #expect(error?.mayHaveTakenEffect == mayHaveTakenEffect, sourceLocation: sourceLocation)
    }

}

private func key(_ name: String) -> StoreKey { StoreKey(name, placement: .group("g")) }
