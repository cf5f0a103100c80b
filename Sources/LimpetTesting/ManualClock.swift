public import Limpet

/// A clock that stands still until a test moves it on.
///
/// Whoever sleeps on it is woken, in order of the deadlines, by ``advance(by:)``.
public final class ManualClock: NodeClock {
    private struct Sleeper {
        let id: UInt64
        let deadline: UInt64
        let continuation: CheckedContinuation<Void, any Error>
    }

    private struct State {
        var wallMilliseconds: Int64
        var nanoseconds: UInt64 = 1_000_000_000
        var nextSleeper: UInt64 = 0
        var sleepers: [Sleeper] = []
        var actions: [(deadline: UInt64, body: @Sendable () -> Void)] = []
        var cancelled: Set<UInt64> = []
        var watchers: [(count: Int, continuation: CheckedContinuation<Void, Never>)] = []
    }

    private let state: Locked<State>

    /// Makes a clock.
    ///
    /// - Parameter wallMilliseconds: what the clock shows at first, in milliseconds since 1970; 2026-01-01 by default.
    public init(wallMilliseconds: Int64 = 1_767_225_600_000) {
        state = Locked(State(wallMilliseconds: wallMilliseconds))
    }

    /// What the clock shows, in milliseconds since 1970.
    public func wallMilliseconds() -> Int64 { state.withLock { $0.wallMilliseconds } }

    /// The age of the clock.
    public func monotonicNanoseconds() -> UInt64 { state.withLock { $0.nanoseconds } }

    /// Moves both clocks on, and wakes those whose time has come.
    public func advance(by duration: Duration) {
        let (due, actions) = state.withLock { state in
            state.nanoseconds += UInt64(duration / .nanoseconds(1))
            state.wallMilliseconds += Int64(duration / .milliseconds(1))
            let due = state.sleepers.filter { $0.deadline <= state.nanoseconds }.sorted { $0.deadline < $1.deadline }
            state.sleepers.removeAll { $0.deadline <= state.nanoseconds }
            let actions = state.actions.filter { $0.deadline <= state.nanoseconds }.sorted { $0.deadline < $1.deadline }
            state.actions.removeAll { $0.deadline <= state.nanoseconds }
            return (due, actions)
        }
        for sleeper in due { sleeper.continuation.resume() }
        for action in actions { action.body() }
    }

    /// Sets the wall clock forth or back, as an administrator would; the other clock goes on.
    public func stepWallClock(by duration: Duration) {
        state.withLock { $0.wallMilliseconds += Int64(duration / .milliseconds(1)) }
    }

    /// How many tasks sleep on the clock now.
    public var sleeperCount: Int { state.withLock { $0.sleepers.count } }

    /// Waits until at least this many tasks sleep on the clock.
    public func waitForSleepers(_ count: Int) async {
        await withCheckedContinuation { continuation in
            let ready = state.withLock { state in
                if state.sleepers.count >= count { return true }
                state.watchers.append((count, continuation))
                return false
            }
            if ready { continuation.resume() }
        }
    }

    /// Does something when the clock has been moved on by the duration, after those who sleep are woken. It is no sleeper.
    public func after(_ duration: Duration, _ body: @escaping @Sendable () -> Void) {
        let isDue = state.withLock { state in
            guard duration > .zero else { return true }
            state.actions.append((state.nanoseconds + UInt64(duration / .nanoseconds(1)), body))
            return false
        }
        if isDue { body() }
    }

    /// Sleeps until the clock was moved on by the duration.
    public func sleep(for duration: Duration) async throws {
        let id = state.withLock { state in
            state.nextSleeper += 1
            return state.nextSleeper
        }
        try await withTaskCancellationHandler {
            try await withCheckedThrowingContinuation { continuation in
                enter(id, duration, continuation)
            }
        } onCancel: {
            let sleeper = state.withLock { state -> Sleeper? in
                guard let index = state.sleepers.firstIndex(where: { $0.id == id }) else {
                    state.cancelled.insert(id)
                    return nil
                }
                return state.sleepers.remove(at: index)
            }
            sleeper?.continuation.resume(throwing: CancellationError())
        }
        _ = state.withLock { $0.cancelled.remove(id) }
    }

    private func enter(_ id: UInt64, _ duration: Duration, _ continuation: CheckedContinuation<Void, any Error>) {
        enum Outcome { case asleep, awake, cancelled }
        let (outcome, watchers) = state.withLock { state -> (Outcome, [CheckedContinuation<Void, Never>]) in
            if state.cancelled.remove(id) != nil { return (.cancelled, []) }
            if duration <= .zero { return (.awake, []) }
            let deadline = state.nanoseconds + UInt64(duration / .nanoseconds(1))
            state.sleepers.append(Sleeper(id: id, deadline: deadline, continuation: continuation))
            let ready = state.watchers.filter { $0.count <= state.sleepers.count }.map(\.continuation)
            state.watchers.removeAll { $0.count <= state.sleepers.count }
            return (.asleep, ready)
        }
        switch outcome {
        case .asleep: break
        case .awake: continuation.resume()
        case .cancelled: continuation.resume(throwing: CancellationError())
        }
        for watcher in watchers { watcher.resume() }
    }
}
