#if canImport(FoundationEssentials)
    public import FoundationEssentials
#else
    public import Foundation
#endif

/// A session that can be read and not written: what a handler gets of a request that shares its session with others
/// (``SessionManager/withReadOnlySession(_:_:_:)``).
///
/// It reads as the session was when the request came: nobody writes it meanwhile on this node, unless it was released. Inside a
/// handler that writes the session, it reads what that one has written.
public struct ReadOnlySession: Sendable {
    private let session: Session

    init(_ session: Session) {
        self.session = session
    }

    /// Reads an attribute, or `nil` if it is not there or cannot be decoded as this type.
    public subscript<Value>(key: SessionKey<Value>) -> Value? { session[key] }

    /// Reads an attribute, or the default if it is not there.
    public subscript<Value>(key: SessionKey<Value>, default defaultValue: @autoclosure () -> Value) -> Value {
        session[key] ?? defaultValue()
    }

    /// Whether the session is stored nowhere: it reads as empty, and stays so.
    public var isNew: Bool { session.isNew }
    /// Whether the request came with an id that was changed a moment ago: the session reads as it was before.
    public var isOldID: Bool { session.isReadOnly }
    /// The session's id.
    public var id: SessionID { session.id }
    /// What stands for the session where its id must not: in logs and databases.
    public var fingerprint: SessionFingerprint { session.fingerprint }
    /// Where this request found its session.
    public var source: Session.Source { session.source }
    /// The node that owns the session now; `nil` for one that is stored nowhere.
    public var home: String? { session.home }
    /// The session's cache version; `nil` for one that is stored nowhere.
    public var epoch: UInt64? { session.epoch }
    /// When the session was created.
    public var createdAt: Date { session.createdAt }
    /// When the request before this one came.
    public var lastAccessedAt: Date { session.lastAccessedAt }
    /// How long the session lives without a request.
    public var maxInactive: Duration { session.maxInactive }
    /// How long this request waited in line for its session.
    public var lockWait: Duration { session.lockWait }

    /// Lets writers in before this request is over. What was read stays as it is.
    ///
    /// - Throws: ``SessionError``.
    public func release() async throws { try await session.release() }
}
