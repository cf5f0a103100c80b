/// What an application is told about the lives of its sessions.
///
/// Each session's beginning and end is told once, on the node where it happens, after the store acknowledged it. It is told by the
/// session's fingerprint, not by its id: that is safe to keep, and the node that finds a session expired may never have known the id.
/// ``Session/fingerprint`` is what a handler keeps beside what belongs to the session.
///
/// The end of a session whose node has died is told by another node. It is not told where nobody can know of it: if the store lost
/// the session together with its node, or the session fell due in the half minute until the death was noticed.
public struct SessionEvents: Sendable {
    /// Why a session ended.
    public enum End: Sendable, Hashable {
        /// By ``Session/invalidate()``.
        case invalidated
        /// Nobody asked for it for longer than its ``Session/maxInactive``.
        case expired
    }

    /// A session was stored for the first time.
    public var created: @Sendable (SessionFingerprint) -> Void
    /// A session ended. A change of its id tells neither; the fingerprint at the end is that of the last id.
    public var destroyed: @Sendable (SessionFingerprint, End) -> Void
    /// All sessions of the cluster were ended at once, by ``SessionCluster/clear()``. Told once on each node for each time;
    /// `destroyed` is not told for them.
    public var cleared: @Sendable () -> Void

    /// They are called on the request's thread, or the one that watches the store, and must not block.
    public init(
        created: @escaping @Sendable (SessionFingerprint) -> Void = { _ in },
        destroyed: @escaping @Sendable (SessionFingerprint, End) -> Void = { _, _ in },
        cleared: @escaping @Sendable () -> Void = {}
    ) {
        self.created = created
        self.destroyed = destroyed
        self.cleared = cleared
    }
}
