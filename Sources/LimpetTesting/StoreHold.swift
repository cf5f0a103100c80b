import Limpet

/// Holds calls of a ``ScriptedStore`` until a test lets them go.
public final class StoreHold: Sendable {
    private struct State {
        var arrived = 0
        var isReleased = false
        var held: [CheckedContinuation<Void, Never>] = []
        var watchers: [(count: Int, continuation: CheckedContinuation<Void, Never>)] = []
    }

    private let state = Locked(State())

    /// Waits until this many calls were held, those included that were let go since.
    public func waitUntilHeld(_ count: Int = 1) async {
        await withCheckedContinuation { continuation in
            let isHeld = state.withLock { state in
                if state.arrived >= count { return true }
                state.watchers.append((count, continuation))
                return false
            }
            if isHeld { continuation.resume() }
        }
    }

    /// Lets all calls go, those that are held and those that come.
    public func release() {
        let held = state.withLock { state in
            state.isReleased = true
            defer { state.held = [] }
            return state.held
        }
        for continuation in held { continuation.resume() }
    }

    func pass() async {
        await withCheckedContinuation { continuation in
            let (passes, watchers) = state.withLock { state in
                state.arrived += 1
                if !state.isReleased { state.held.append(continuation) }
                let ready = state.watchers.filter { $0.count <= state.arrived }.map(\.continuation)
                state.watchers.removeAll { $0.count <= state.arrived }
                return (state.isReleased, ready)
            }
            if passes { continuation.resume() }
            for watcher in watchers { watcher.resume() }
        }
    }
}
