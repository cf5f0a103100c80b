import LimpetTesting
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
            // Each one's timer sleeps once it stands in line, or is about to: the count of waits tells the former.
            await clock.waitForSleepers(number + 1)
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
        await clock.waitForSleepers(1)
        clock.advance(by: .seconds(6))
        let late = enter(locks, id)
        await clock.waitForSleepers(2)
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

    @Test func `a crowd that comes, waits, leaves and is cancelled excludes each other and leaves nothing behind`()
        async throws
    {
        let locks = SessionLocks(SessionConfiguration.Lock(), clock: SystemClock(), statistics: statistics)
        let ids = (0..<4).map { _ in SessionID() }
        let crowd = Crowd()
        try await withThrowingTaskGroup(of: Void.self) { group in
            for number in 0..<400 {
                let id = ids[number % 4]
                group.addTask {
                    let task = Task {
                        let lease = try await locks.enter(id, .write)
                        #expect(crowd.enter(id) == 1)
                        await Task.yield()
                        crowd.exit(id)
                        extendLifetime(lease)
                    }
                    if number % 5 == 0 { task.cancel() }
                    do { try await task.value } catch is CancellationError {}
                }
            }
            try await group.waitForAll()
        }
        #expect(crowd.entries >= 320)
        #expect(locks.enteredCount == 0)
    }
}

/// Who came in, in order.
private final class Order: Sendable {
    private let state = Locked<[Int]>([])
    var numbers: [Int] { state.withLock { $0 } }
    func add(_ number: Int) { state.withLock { $0.append(number) } }
}

/// How many are in each session, and how many ever were.
private final class Crowd: Sendable {
    private let state = Locked<(inside: [SessionID: Int], entries: Int)>(([:], 0))
    var entries: Int { state.withLock { $0.entries } }
    func enter(_ id: SessionID) -> Int {
        state.withLock { state in
            state.entries += 1
            state.inside[id, default: 0] += 1
            return state.inside[id, default: 0]
        }
    }
    func exit(_ id: SessionID) { state.withLock { $0.inside[id, default: 0] -= 1 } }
}
