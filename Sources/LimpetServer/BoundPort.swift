import Limpet

/// The port that a server listens on, once it does.
final class BoundPort: Sendable {
    private enum State {
        case unknown(waiters: [Int: CheckedContinuation<Int, any Error>], nextWaiter: Int)
        case known(Result<Int, any Error>)
    }

    private let state = Locked(State.unknown(waiters: [:], nextWaiter: 0))

    /// Tells everyone who waits, and who asks later.
    func resolve(_ result: Result<Int, any Error>) {
        let waiters = state.withLock { state -> [CheckedContinuation<Int, any Error>] in
            guard case .unknown(let waiters, _) = state else { return [] }
            state = .known(result)
            return Array(waiters.values)
        }
        for waiter in waiters { waiter.resume(with: result) }
    }

    /// Waits until the server listens.
    ///
    /// - Throws: the error with which the server failed to; `CancellationError`.
    func wait() async throws -> Int {
        let id = state.withLock { state -> Int in
            guard case .unknown(let waiters, let id) = state else { return 0 }
            state = .unknown(waiters: waiters, nextWaiter: id + 1)
            return id
        }
        return try await withTaskCancellationHandler {
            try await withCheckedThrowingContinuation { continuation in
                let known = state.withLock { state -> Result<Int, any Error>? in
                    switch state {
                    case .known(let result):
                        return result
                    case .unknown(var waiters, let nextWaiter):
                        // A cancellation that came before found no waiter to wake.
                        if Task.isCancelled { return .failure(CancellationError()) }
                        waiters[id] = continuation
                        state = .unknown(waiters: waiters, nextWaiter: nextWaiter)
                        return nil
                    }
                }
                if let known { continuation.resume(with: known) }
            }
        } onCancel: {
            let waiter = state.withLock { state -> CheckedContinuation<Int, any Error>? in
                guard case .unknown(var waiters, let nextWaiter) = state else { return nil }
                defer { state = .unknown(waiters: waiters, nextWaiter: nextWaiter) }
                return waiters.removeValue(forKey: id)
            }
            waiter?.resume(throwing: CancellationError())
        }
    }
}
