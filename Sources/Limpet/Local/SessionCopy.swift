/// A copy of one session in this node's memory.
///
/// The record in the store is authoritative, not this copy: it may be used without asking only under rule R1 (``Coherence``),
/// and what a request changes is in it only after the store acknowledged it; what was accepted while the store
/// was down stands apart from it (``Unsent``). The access time alone may be ahead of the store's, by the save interval.
///
/// The session's lock decides who may change it; the mutex is for those who look at it without the lock, as the
/// scavenger and the token refresh do.
final class SessionCopy: Sendable {
    struct State: Sendable {
        var record: SessionRecord
        /// What a conditional write needs; `nil` if the store did not tell it, or it is no longer good.
        var token: StoreToken?
        /// Monotonic time at which the copy was known to be the store's, or `nil` if it has to be asked about.
        var verifiedAt: UInt64?
        /// Must not be read from: kept because after a loss of memory it may be the only one.
        var isSuspect = false
        /// The access time at which the store's times to live were last started anew.
        var savedAt: Int64
        /// One of the requests that read beside each other saves the access time.
        var isSavingAccess = false
        /// What requests changed while the store was down: apart from `record`, which is what the store acknowledged.
        var unsent: Unsent?

        /// When the session expires, unless it is asked for.
        var expiresAt: Int64 { record.accessedAt + (unsent?.changes.maxInactive ?? record.maxInactive) }

        /// The record as this node's requests see it.
        var current: SessionRecord {
            var current = record
            unsent?.apply(to: &current, since: record)
            return current
        }
    }

    let id: SessionID
    let keys: SessionStoreKeys
    private let state: Locked<State>

    init(id: SessionID, keys: SessionStoreKeys, state: State) {
        self.id = id
        self.keys = keys
        self.state = Locked(state)
    }

    func withState<Result>(_ body: (inout State) throws -> Result) rethrows -> Result {
        try state.withLock { state in try body(&state) }
    }

    /// Whether the store has not acknowledged yet what clients were told is kept: such a copy is not to be dropped.
    var hasUnsent: Bool { state.withLock { $0.unsent != nil } }

    /// Whether the store has never heard of the session.
    var isUnplanted: Bool { state.withLock { $0.unsent?.planting == .never } }

    var snapshot: State { state.withLock { $0 } }
}
