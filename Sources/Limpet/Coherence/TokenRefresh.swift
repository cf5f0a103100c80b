/// Reads the tokens of records that this node has just written, where the store does not tell them, behind the answers:
/// rules R7 and R8.
///
/// Many sessions go into one read. A commit that comes first reads its token itself: nothing here is needed for
/// correctness, it saves that commit's client a round trip.
final class TokenRefresh: Sendable {
    /// Sessions in one read: an answer of a few kilobytes each stays well below a megabyte.
    private static let batch = 64
    /// Sessions that wait at most: beyond, a commit reads its own token.
    private static let capacity = 4096

    private struct State {
        var isRunning = false
        var waiting: [SessionCopy] = []
    }

    private let store: StoreGuard
    private let state = Locked(State())
    private let (signals, signal) = AsyncStream.makeStream(of: Void.self, bufferingPolicy: .bufferingNewest(1))

    init(store: StoreGuard) {
        self.store = store
    }

    func add(_ copy: SessionCopy) {
        let isFirst = state.withLock { state in
            guard state.isRunning, state.waiting.count < Self.capacity else { return false }
            state.waiting.append(copy)
            return state.waiting.count == 1
        }
        if isFirst { signal.yield() }
    }

    /// Reads tokens until the task is cancelled.
    func run() async {
        state.withLock { $0.isRunning = true }
        for await _ in signals {
            while !Task.isCancelled {
                let copies = state.withLock { state in
                    let copies = Array(state.waiting.prefix(Self.batch))
                    state.waiting.removeFirst(copies.count)
                    return copies
                }
                if copies.isEmpty { break }
                await refresh(copies)
            }
        }
        state.withLock { state in
            state.isRunning = false
            state.waiting = []
        }
    }

    private func refresh(_ copies: [SessionCopy]) async {
        let copies = copies.filter { $0.withState { $0.token == nil && !$0.isSuspect } }
        guard !copies.isEmpty else { return }
        let results = await store.get(copies.map(\.keys.data))
        for (copy, result) in zip(copies, results) {
            // A failure is the next commit's to meet: it reads the token itself, and answers for it.
            guard case .success(let entry?) = result,
                case .success(.record(let record)) = Result(catching: { () throws(StoreError) in
                    try StoredSession(bytes: entry.bytes, keys: copy.keys)
                })
            else { continue }
            copy.withState { state in
                // R8: only for the record that this copy was made from. A token that is older than the copy's last commit is
                // refused by the store.
                guard state.token == nil, !state.isSuspect, record.home == state.record.home,
                    record.epoch == state.record.epoch
                else { return }
                state.token = entry.token
            }
        }
    }
}
