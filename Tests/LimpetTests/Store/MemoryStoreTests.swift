import LimpetTesting
import Testing

@testable import Limpet

struct MemoryStoreTests {
    private let clock = ManualClock()

    @Test(arguments: StoreContract.rules)
    func `the memory store keeps the contract`(rule: StoreContract.Rule) async throws {
        let clock = clock
        try await rule.check(
            StoreContract(
                clock: clock, passTime: { clock.advance(by: $0) }, makeStore: { MemoryStore(clock: clock) }))
    }

    @Test func `a value is there until its time to live has passed, and not a nanosecond longer`() async throws {
        let store = MemoryStore(clock: clock)
        _ = try await store.put([1], for: key("a"), timeToLive: .seconds(5), if: .always)
        clock.advance(by: .seconds(5) - .nanoseconds(1))
        #expect(try await store.get([key("a")])[0].get()?.bytes == [1])
        clock.advance(by: .nanoseconds(1))
        #expect(try await store.get([key("a")])[0].get() == nil)
    }

    @Test func `a step of the wall clock ends nothing`() async throws {
        let store = MemoryStore(clock: clock)
        _ = try await store.put([1], for: key("a"), timeToLive: .seconds(5), if: .always)
        clock.stepWallClock(by: .seconds(3600))
        #expect(try await store.get([key("a")])[0].get()?.bytes == [1])
    }

    @Test func `expired values leave the memory as others are written`() async throws {
        let store = MemoryStore(clock: clock)
        for index in 0..<1000 {
            _ = try await store.put([1], for: key("old\(index)"), timeToLive: .seconds(5), if: .always)
        }
        clock.advance(by: .seconds(6))
        for index in 0..<100 {
            _ = try await store.put([1], for: key("new\(index)"), timeToLive: .seconds(5), if: .always)
        }
        #expect(store.count == 100)
    }

    @Test func `a value that was touched stays when its first mark comes up`() async throws {
        let store = MemoryStore(clock: clock)
        _ = try await store.put([1], for: key("a"), timeToLive: .seconds(5), if: .always)
        #expect(try await store.touch(key("a"), timeToLive: .seconds(60)))
        clock.advance(by: .seconds(6))
        _ = try await store.put([1], for: key("b"), timeToLive: .seconds(5), if: .always)
        #expect(try await store.get([key("a")])[0].get()?.bytes == [1])
    }

    @Test func `many writes of one key, and many deletions, need no more memory than one`() async throws {
        let store = MemoryStore(clock: clock)
        for _ in 0..<10_000 {
            _ = try await store.put([1], for: key("a"), timeToLive: .seconds(1800), if: .always)
            _ = try await store.touch(key("a"), timeToLive: .seconds(1800))
        }
        #expect(store.markCount < 100)
        for index in 0..<10_000 {
            _ = try await store.put([1], for: key("\(index)"), timeToLive: .seconds(1800), if: .always)
            _ = try await store.delete(key("\(index)"), ifUnchangedSince: nil)
        }
        #expect(store.markCount < 100)
        #expect(store.count == 1)
    }

    @Test func `the largest value is taken, and one byte more is not`() async throws {
        let store = MemoryStore(clock: clock, maxValueBytes: 10)
        _ = try await store.put(Array(repeating: 1, count: 10), for: key("a"), timeToLive: .seconds(5), if: .always)
        await #expect(throws: StoreError.self) {
            try await store.put(Array(repeating: 2, count: 11), for: key("a"), timeToLive: .seconds(5), if: .always)
        }
        #expect(try await store.get([key("a")])[0].get()?.bytes == Array(repeating: 1, count: 10))
    }

    @Test func `a time to live beyond a century does not overflow`() async throws {
        let store = MemoryStore(clock: clock)
        _ = try await store.put([1], for: key("a"), timeToLive: .seconds(Int64.max), if: .always)
        #expect(try await store.get([key("a")])[0].get()?.bytes == [1])
    }

    @Test func `put tells the token that a read tells`() async throws {
        let store = MemoryStore(clock: clock)
        let stored = try await store.put([1], for: key("a"), timeToLive: .seconds(5), if: .absent)
        let read = try await store.get([key("a")])[0].get()
        #expect(stored == .stored(read?.token))
    }

    private func key(_ name: String) -> StoreKey { StoreKey(name, placement: .group("g")) }
}
