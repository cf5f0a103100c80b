import HTTPTypes
import LimpetTesting
import Metrics
import MetricsTestKit
import Testing

@testable import Limpet

struct SessionLocksTests {
    private let clock = ManualClock()
    private let statistics = SessionStatistics()

    private func makeLocks(_ change: (inout SessionConfiguration.Lock) -> Void = { _ in }) -> SessionLocks {
        var configuration = SessionConfiguration.Lock()
        configuration.timeout = .seconds(10)
        change(&configuration)
        return SessionLocks(configuration, clock: clock, statistics: statistics)
    }

    /// Waits in line, and notes when it is in; stays in until it is let go.
    private func enter(
        _ locks: SessionLocks, _ id: SessionID, _ access: SessionAccess = .write,
        note: @escaping @Sendable () -> Void = {}
    ) -> Task<Duration, any Error> {
        Task {
            let lease = try await locks.enter(id, access)
            note()
            return lease.waited
        }
    }

    @Test func `an idle table is empty`() async throws {
        let locks = makeLocks()
        let id = SessionID()
        do {
            let lease = try await locks.enter(id, .write)
            #expect(lease.waited == .zero)
            #expect(locks.enteredCount == 1)
        }
        #expect(locks.enteredCount == 0)
        #expect(statistics.lockWaits.value == 0)
    }

    @Test func `a session that somebody is in cannot be tried, another one can`() throws {
        let locks = makeLocks()
        let id = SessionID()
        let lease = locks.tryEnter(id)
        #expect(locks.enteredCount == 1)
        let second = locks.tryEnter(id)
        #expect(locks.enteredCount == 1)
        let other = locks.tryEnter(SessionID())
        #expect(locks.enteredCount == 2)
        extendLifetime(lease)
        extendLifetime(second)
        extendLifetime(other)
    }

    @Test func `who came first is in first, and knows how long it took`() async throws {
        let locks = makeLocks()
        let id = SessionID()
        let order = Order()
        var lease = locks.tryEnter(id)
        var waiters: [Task<Duration, any Error>] = []
        for number in 0..<20 {
            waiters.append(enter(locks, id) { order.add(number) })
            while locks.lineLength(of: id) < number + 1 { await Task.yield() }
        }
        clock.advance(by: .seconds(3))
        lease = nil
        for waiter in waiters { #expect(try await waiter.value == .seconds(3)) }
        #expect(order.numbers == Array(0..<20))
        #expect(locks.enteredCount == 0)
        #expect(statistics.lockWaits.value == 20)
        _ = consume lease
    }

    @Test func `a wait ends with the timeout, and the line goes on without it`() async throws {
        let locks = makeLocks()
        let id = SessionID()
        var lease = locks.tryEnter(id)
        let early = enter(locks, id)
        while locks.lineLength(of: id) < 1 { await Task.yield() }
        clock.advance(by: .seconds(6))
        let late = enter(locks, id)
        while locks.lineLength(of: id) < 2 { await Task.yield() }
        clock.advance(by: .seconds(4))
        let error = await #expect(throws: SessionError.self) { try await early.value }
        #expect(error?.code == .lockTimeout)
        #expect(error?.retryAfterSeconds == 1)
        lease = nil
        #expect(try await late.value == .seconds(4))
        #expect(locks.enteredCount == 0)
        _ = consume lease
    }

    @Test func `who is cancelled leaves the line and does not hold up the next`() async throws {
        let locks = makeLocks()
        let id = SessionID()
        var lease = locks.tryEnter(id)
        let cancelled = enter(locks, id)
        while locks.lineLength(of: id) < 1 { await Task.yield() }
        let next = enter(locks, id)
        while locks.lineLength(of: id) < 2 { await Task.yield() }
        cancelled.cancel()
        await #expect(throws: CancellationError.self) { try await cancelled.value }
        lease = nil
        _ = try await next.value
        #expect(locks.enteredCount == 0)
        _ = consume lease
    }

    @Test func `readers are in together, a writer alone, and a reader behind a waiting writer waits`() async throws {
        let locks = makeLocks()
        let id = SessionID()
        var first: SessionLease? = try await locks.enter(id, .read)
        var second: SessionLease? = try await locks.enter(id, .read)
        #expect(locks.count == .init(sessions: 1, inside: 2, waiting: 0))
        let order = Order()
        let writer = enter(locks, id, .write) { order.add(1) }
        while locks.lineLength(of: id) < 1 { await Task.yield() }
        clock.advance(by: .milliseconds(6))
        let reader = enter(locks, id, .read) { order.add(2) }
        while locks.lineLength(of: id) < 2 { await Task.yield() }
        #expect(locks.count == .init(sessions: 1, inside: 2, waiting: 2))
        first = nil
        #expect(locks.lineLength(of: id) == 2)
        second = nil
        _ = try await writer.value
        _ = try await reader.value
        #expect(order.numbers == [1, 2])
        #expect(locks.count == .init())
        _ = consume first
        _ = consume second
    }

    @Test(arguments: ["cancelled", "too late"])
    func `a writer that leaves the line lets in the readers that it held up`(how: String) async throws {
        let locks = makeLocks()
        let id = SessionID()
        let lease = try await locks.enter(id, .read)
        let writer = enter(locks, id, .write)
        while locks.lineLength(of: id) < 1 { await Task.yield() }
        clock.advance(by: .seconds(9))
        let readers = (0..<3).map { _ in enter(locks, id, .read) }
        while locks.lineLength(of: id) < 4 { await Task.yield() }
        if how == "cancelled" { writer.cancel() } else { clock.advance(by: .seconds(1)) }
        // The first reader is in all the time.
        for reader in readers { _ = try await reader.value }
        await #expect(throws: (any Error).self) { try await writer.value }
        #expect(statistics.lockWaitsAbandoned.value == (how == "cancelled" ? 1 : 0))
        #expect(statistics.lockTimeouts.value == (how == "cancelled" ? 0 : 1))
        extendLifetime(lease)
    }

    @Test func `beyond the cap nobody waits, and who waits is not harmed`() async throws {
        let locks = makeLocks { $0.maxWaiters = 2 }
        let id = SessionID()
        var lease: SessionLease? = try await locks.enter(id, .write)
        let waiters = (0..<2).map { _ in enter(locks, id) }
        while locks.lineLength(of: id) < 2 { await Task.yield() }
        let error = await #expect(throws: SessionError.self) { try await enter(locks, id, .read).value }
        #expect(error?.code == .tooManyWaiting)
        #expect(error?.status == .serviceUnavailable && error?.retryAfterSeconds == 1)
        #expect(statistics.lockWaitsRejected.value == 1)
        // Another session has a line of its own.
        _ = try await locks.enter(SessionID(), .write)
        lease = nil
        for waiter in waiters { _ = try await waiter.value }
        #expect(locks.count == .init())
        _ = consume lease
    }

    @Test func `who waits to be alone and is cancelled is not in any more`() async throws {
        let locks = makeLocks()
        let id = SessionID()
        let other = try await locks.enter(id, .read)
        let loader = Task {
            var lease = try await locks.enter(id, .read)
            try await lease.becomeExclusive()
        }
        while locks.lineLength(of: id) < 1 { await Task.yield() }
        let reader = enter(locks, id, .read)
        while locks.lineLength(of: id) < 2 { await Task.yield() }
        #expect(locks.count.inside == 1)
        loader.cancel()
        await #expect(throws: CancellationError.self) { try await loader.value }
        _ = try await reader.value
        #expect(locks.count == .init(sessions: 1, inside: 1, waiting: 0))
        extendLifetime(other)
    }

    @Test func `a wait is told to the histogram, however it ends`() async throws {
        let metrics = TestMetrics()
        let timer = Timer(label: "wait", factory: metrics)
        let locks = SessionLocks(SessionConfiguration.Lock(), clock: clock, statistics: statistics, waits: timer)
        let id = SessionID()
        var lease: SessionLease? = try await locks.enter(id, .write)
        let patient = enter(locks, id)
        while locks.lineLength(of: id) < 1 { await Task.yield() }
        let cancelled = enter(locks, id)
        while locks.lineLength(of: id) < 2 { await Task.yield() }
        clock.advance(by: .milliseconds(3))
        cancelled.cancel()
        await #expect(throws: CancellationError.self) { try await cancelled.value }
        clock.advance(by: .milliseconds(4))
        lease = nil
        _ = try await patient.value
        #expect(try metrics.expectTimer("wait").values == [3_000_000, 7_000_000])
        _ = consume lease
    }

    @Test(arguments: 0..<20)
    func `a crowd that comes, waits, leaves and is cancelled excludes each other and leaves nothing behind`(seed: Int)
        async throws
    {
        let locks = SessionLocks(SessionConfiguration.Lock(), clock: SystemClock(), statistics: statistics)
        let ids = (0..<4).map { _ in SessionID() }
        let crowd = Crowd()
        var random = SeededRandom(seed: UInt64(seed))
        try await withThrowingTaskGroup(of: Void.self) { group in
            for _ in 0..<400 {
                let id = ids.randomElement(using: &random) ?? ids[0]
                let access: SessionAccess = Bool.random(using: &random) ? .read : .write
                let (loads, yields) = (Bool.random(using: &random), Int.random(in: 0..<4, using: &random))
                let isCancelled = Int.random(in: 0..<5, using: &random) == 0
                group.addTask {
                    let task = Task {
                        var lease = try await locks.enter(id, access)
                        if access == .read, loads {
                            try await lease.becomeExclusive()
                            if lease.access == .write {
                                await crowd.use(id, .write, yields)
                                lease.becomeShared()
                            }
                        }
                        await crowd.use(id, access, yields)
                        extendLifetime(lease)
                    }
                    for _ in 0..<yields { await Task.yield() }
                    if isCancelled { task.cancel() }
                    do { try await task.value } catch is CancellationError {}
                }
            }
            try await group.waitForAll()
        }
        #expect(crowd.entries >= 300)
        #expect(locks.count == .init())
    }
}

/// Who came in, in order.
private final class Order: Sendable {
    private let state = Locked<[Int]>([])
    var numbers: [Int] { state.withLock { $0 } }
    func add(_ number: Int) { state.withLock { $0.append(number) } }
}

/// Who is in each session, and how many ever were.
private final class Crowd: Sendable {
    private struct Inside {
        var readers = 0
        var writers = 0
    }

    private let state = Locked<(inside: [SessionID: Inside], entries: Int)>(([:], 0))
    var entries: Int { state.withLock { $0.entries } }

    /// Is in for a while.
    func use(_ id: SessionID, _ access: SessionAccess, _ yields: Int) async {
        let path = access == .read ? \Inside.readers : \Inside.writers
        let found = state.withLock { state in
            state.entries += 1
            state.inside[id, default: Inside()][keyPath: path] += 1
            return state.inside[id, default: Inside()]
        }
        #expect(access == .read ? found.writers == 0 : found.writers == 1 && found.readers == 0)
        for _ in 0..<yields { await Task.yield() }
        state.withLock { $0.inside[id, default: Inside()][keyPath: path] -= 1 }
    }
}
