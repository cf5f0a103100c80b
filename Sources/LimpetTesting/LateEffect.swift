public import Limpet

/// Writes that failed for their callers, and are still on their way.
public final class LateEffect: Sendable {
    typealias Write = @Sendable () async throws(StoreError) -> Bool

    private struct State {
        var writes: [Write] = []
        var watchers: [CheckedContinuation<Void, Never>] = []
    }

    private let state = Locked(State())

    /// Lets the oldest of these writes happen now; waits for it, if it was not asked for yet.
    ///
    /// - Returns: whether it changed anything: `false` if it met a conflict, or an absent key.
    @discardableResult
    public func takeEffect() async throws(StoreError) -> Bool {
        while true {
            if let write = state.withLock({ $0.writes.isEmpty ? nil : $0.writes.removeFirst() }) {
                return try await write()
            }
            await withCheckedContinuation { continuation in
                let hasWrite = state.withLock { state in
                    if !state.writes.isEmpty { return true }
                    state.watchers.append(continuation)
                    return false
                }
                if hasWrite { continuation.resume() }
            }
        }
    }

    func add(_ write: @escaping Write) {
        let watchers = state.withLock { state in
            state.writes.append(write)
            defer { state.watchers = [] }
            return state.watchers
        }
        for watcher in watchers { watcher.resume() }
    }
}
