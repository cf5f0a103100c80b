import Logging

#if canImport(FoundationEssentials)
    public import FoundationEssentials
#else
    public import Foundation
#endif

/// A session, as long as one request has it: everything here is synchronous and in memory.
///
/// Reads see what the request has written. What it wrote is in the store before the response leaves (or kept for it, while
/// the store is down), or the request fails; then the session is sealed, and a later write (from a body that still streams) is refused, said in the log and
/// counted. Child tasks may share the session; use ``update(_:default:_:)`` where they change the same attribute.
public final class Session: Sendable {
    /// Where this request found its session.
    public enum Source: String, Sendable, Codable {
        /// In this node's memory, trusted: without a store call.
        case local
        /// In this node's memory, after its epoch was compared with the store's.
        case verified
        /// In the store.
        case store
        /// Nowhere: it is stored when something is written.
        case new
    }

    /// Where this request found its session.
    public let source: Source
    /// The node that owns the session now: this one, except for a session that is stored nowhere yet (`nil`).
    public let home: String?
    /// The session's cache version; `nil` for a session that is stored nowhere yet.
    public let epoch: UInt64?
    /// When the session was created.
    public let createdAt: Date
    /// When the request before this one came; for a new session, when it was created.
    public let lastAccessedAt: Date
    /// How long this request waited in line for its session.
    public let lockWait: Duration

    /// Whether the request came with an id that was changed a moment ago (``rotateID(oldIDReadable:)``): the session reads as it was
    /// before. If the handler writes, changes the id or ends the session, the answer is 503 (``SessionError/Code/conflict``): the
    /// client has its new cookie by then, and may try again.
    public let isReadOnly: Bool

    /// Whether the session is stored nowhere yet. It will be once a value is written.
    public var isNew: Bool { source == .new }

    private let base: [String: Attribute]
    private let logger: Logger
    private let statistics: SessionStatistics
    private let state: Locked<State>

    private struct State {
        var id: SessionID?
        var maxInactive: Duration
        var maxInactiveChanged = false
        var changes: [String: Change] = [:]
        var ending = SessionChanges.Ending.stays
        var isSealed = false
    }

    private enum Change {
        case set(any Codable & Sendable)
        case remove
    }

    init(_ checkout: Checkout, lockWait: Duration, logger: Logger, statistics: SessionStatistics) {
        source = checkout.source
        isReadOnly = checkout.isReadOnly
        home = checkout.home
        epoch = checkout.epoch?.value
        createdAt = Date(timeIntervalSince1970: Double(checkout.createdAt) / 1000)
        lastAccessedAt = Date(timeIntervalSince1970: Double(checkout.lastAccessedAt) / 1000)
        self.lockWait = lockWait
        base = checkout.attributes
        self.logger = logger
        self.statistics = statistics
        state = Locked(State(id: checkout.id, maxInactive: .milliseconds(checkout.maxInactive)))
    }

    /// The session's id. A new session has one that no client has seen: it is what the session will be stored under.
    public var id: SessionID {
        state.withLock { state in
            if let id = state.id { return id }
            let id = SessionID()
            state.id = id
            return id
        }
    }

    /// What stands for the session where its id must not: in logs and databases. It changes with the id.
    public var fingerprint: SessionFingerprint { SessionFingerprint(id) }

    /// How long the session lives without a request; `session.maxInactiveSeconds` unless set. At least a millisecond.
    public var maxInactive: Duration {
        get { state.withLock { $0.maxInactive } }
        set {
            write("session.maxInactive") { state in
                let value = max(newValue, .milliseconds(1))
                guard value != state.maxInactive else { return }
                state.maxInactive = value
                state.maxInactiveChanged = true
            }
        }
    }

    /// Reads an attribute, or `nil` if it is not there or cannot be decoded as this type; sets it, or removes it with `nil`.
    public subscript<Value>(key: SessionKey<Value>) -> Value? {
        get { state.withLock { value(of: key, in: $0) } }
        set {
            write(key.name) { state in
                state.changes[key.name] = newValue.map { .set($0) } ?? .remove
            }
        }
    }

    /// Reads an attribute, or the default if it is not there; `session[.visits, default: 0] += 1` sets it.
    public subscript<Value>(key: SessionKey<Value>, default defaultValue: @autoclosure () -> Value) -> Value {
        get { self[key] ?? defaultValue() }
        set { self[key] = newValue }
    }

    /// Changes an attribute in one step, also where child tasks share the session.
    ///
    /// - Parameter change: runs while the session is locked to other tasks: it must not use the session.
    public func update<Value>(
        _ key: SessionKey<Value>, default defaultValue: @autoclosure () -> Value, _ change: (inout Value) throws -> Void
    ) rethrows {
        let initial = defaultValue()
        try write(key.name) { state in
            var value = value(of: key, in: state) ?? initial
            try change(&value)
            state.changes[key.name] = .set(value)
        }
    }

    /// Gives the session a fresh id with the response, and keeps its attributes: before every change of privilege, so that
    /// an id that somebody planted or saw gains nothing. The old id never leads to the new one.
    ///
    /// A page's other requests may be under way with the old id. For a while it reads the session *as it was before this
    /// request*: without writes (``isReadOnly``), and without a cookie in the answer.
    ///
    /// - Parameter oldIDReadable: how long. Ten seconds are longer than a page takes to send its requests; other nodes, whose clocks
    ///   may differ, allow ten more. Zero where whoever has the old id must not even read: it is dead at once. Of several calls the
    ///   shortest counts.
    public func rotateID(oldIDReadable: Duration = .seconds(10)) {
        write("rotateID") { state in
            switch state.ending {
            case .stays: state.ending = .rotates(oldIDReadable: oldIDReadable)
            case .rotates(let earlier): state.ending = .rotates(oldIDReadable: min(earlier, oldIDReadable))
            case .ends: break
            }
        }
    }

    /// Ends the session with the response, on all nodes. What this request writes is dropped.
    public func invalidate() {
        write("invalidate") { $0.ending = .ends }
    }

    private func value<Value>(of key: SessionKey<Value>, in state: borrowing State) -> Value? {
        switch state.changes[key.name] {
        case .set(let value): return value as? Value
        case .remove: return nil
        case nil:
            return base[key.name]?.value(Value.self) { error in
                statistics.undecodable.add(1)
                guard statistics.isFirstFailure(of: key.name) else { return }
                logger.warning(
                    "A session attribute cannot be decoded and reads as absent",
                    metadata: [LogKey.attribute: "\(key.name)", LogKey.error: "\(type(of: error))"])
            }
        }
    }

    private func write(_ what: String, _ change: (inout State) throws -> Void) rethrows {
        let isSealed = try state.withLock { state in
            if !state.isSealed { try change(&state) }
            return state.isSealed
        }
        guard isSealed else { return }
        statistics.writesAfterSeal.add(1)
        logger.error(
            "A session was written after its response had begun: the write is refused",
            metadata: [LogKey.attribute: "\(what)"])
    }

    /// The handler failed: nothing of what it did is kept, and the session takes no writes from then on.
    func abandon() {
        state.withLock { $0.isSealed = true }
    }

    /// What the request did. The session takes no writes from then on.
    ///
    /// - Throws: ``SessionError`` (`notEncodable`), naming the attribute.
    func seal() throws(SessionError) -> SessionChanges {
        let state = self.state.withLock { state in
            state.isSealed = true
            return state
        }
        var changes = SessionChanges()
        for (name, change) in state.changes {
            switch change {
            case .set(let value):
                let attribute: Attribute
                do {
                    attribute = try Attribute(encoding: value)
                } catch {
                    // The error itself may hold the value, which has no place in a log.
                    throw SessionError(
                        .notEncodable, "attribute \"\(name)\" cannot be encoded (\(type(of: error)))")
                }
                // Equal bytes are no change.
                if !attribute.hasSameBytes(as: base[name]) { changes.attributes[name] = .some(attribute) }
            case .remove:
                if base[name] != nil { changes.attributes.updateValue(nil, forKey: name) }
            }
        }
        if state.maxInactiveChanged { changes.maxInactive = state.maxInactive.milliseconds }
        changes.newID = changes.attributes.isEmpty ? state.id : id
        changes.ending = state.ending
        return changes
    }
}
