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
    public var source: Source { checkout.source }
    /// The node that owns the session now: this one, except for a session that is stored nowhere yet (`nil`).
    public var home: String? { checkout.home }
    /// The session's cache version; `nil` for a session that is stored nowhere yet.
    public var epoch: UInt64? { checkout.epoch?.value }
    /// When the session was created.
    public var createdAt: Date { Date(timeIntervalSince1970: Double(checkout.createdAt) / 1000) }
    /// When the request before this one came; for a new session, when it was created.
    public var lastAccessedAt: Date { Date(timeIntervalSince1970: Double(checkout.lastAccessedAt) / 1000) }
    /// How long this request waited in line for its session.
    public let lockWait: Duration
    /// What this request may do with its session (`lock.rules`). If the handler writes where it may not, the request fails
    /// (``SessionError/Code/writeNotAllowed``), and nothing is stored.
    public var access: SessionAccess { intent.access }

    /// Whether the request came with an id that was changed a moment ago (``rotateID(oldIDReadable:)``): the session reads as it was
    /// before. If the handler writes, changes the id or ends the session, the answer is 503 (``SessionError/Code/conflict``): the
    /// client has its new cookie by then, and may try again.
    public var isReadOnly: Bool { checkout.isReadOnly }

    /// Whether the session is stored nowhere yet. It will be once a value is written.
    public var isNew: Bool { source == .new }

    let manager: SessionManager
    /// The session of another manager whose handler asked for this one, or of one that is over.
    let outer: Session?
    let presented: SessionCookie.Presented?
    let intent: AccessIntent
    private let checkout: Checkout
    private let isInCluster: Bool
    private let state: Locked<State>

    private struct State: ~Copyable {
        var written: Written
        var phase = Phase.open
        /// Of the session that the client asked for.
        var lease: SessionLease?
        /// Of the id that a new session will have.
        var newLease: SessionLease?
    }

    private struct Written {
        var id: SessionID?
        var maxInactive: Duration
        var maxInactiveChanged = false
        var changes: [String: Change] = [:]
        var ending = SessionChanges.Ending.stays
        /// The first thing that was written and may not be.
        var refused: String?

        /// There is no session under this id any more.
        var hasEnded: Bool {
            if case .stays = ending { false } else { true }
        }

        var isNothing: Bool { changes.isEmpty && !maxInactiveChanged && refused == nil && !hasEnded }
    }

    private enum Phase {
        case open
        /// Sealed, and on its way to the store; those wait who want to know what became of it.
        case completing([CheckedContinuation<Void, Never>])
        case complete(Result<SessionCoherence.Answer, any Error>)
        /// The handler failed.
        case abandoned
    }

    private enum Change {
        case set(any Codable & Sendable)
        case remove
    }

    /// - Parameters:
    ///   - lease: the session's, which is left when the request is over or ``release()`` was called; `nil` for a request that came
    ///     without an id.
    ///   - isInCluster: the request is in the session among all nodes, too, and leaves it before the lease.
    init(
        _ checkout: Checkout, _ presented: SessionCookie.Presented?, _ lease: consuming SessionLease?,
        isInCluster: Bool, _ intent: AccessIntent, manager: SessionManager, outer: Session?
    ) {
        self.checkout = checkout
        self.presented = presented
        self.intent = intent
        self.manager = manager
        self.outer = outer
        self.isInCluster = isInCluster
        lockWait = lease?.waited ?? .zero
        let written = Written(id: checkout.id, maxInactive: .milliseconds(checkout.maxInactive))
        state = Locked(State(written: written, lease: lease))
    }

    /// The session's id. A new session has one that no client has seen: it is what the session will be stored under.
    public var id: SessionID { state.withLock { id(in: &$0) } }

    private func id(in state: inout State) -> SessionID {
        if let id = state.written.id { return id }
        let id = SessionID()
        state.written.id = id
        // Whoever is told the id, and asks for it before this request has stored the session, waits for that.
        if intent.access == .write { state.newLease = manager.locks.tryEnter(id) }
        return id
    }

    /// What stands for the session where its id must not: in logs and databases. It changes with the id.
    public var fingerprint: SessionFingerprint { SessionFingerprint(id) }

    /// How long the session lives without a request; `session.maxInactiveSeconds` unless set. At least a millisecond.
    public var maxInactive: Duration {
        get { state.withLock { $0.written.maxInactive } }
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
        get { state.withLock { value(of: key, in: $0.written) } }
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

    private func value<Value>(of key: SessionKey<Value>, in state: borrowing Written) -> Value? {
        switch state.changes[key.name] {
        case .set(let value): return value as? Value
        case .remove: return nil
        case nil:
            return checkout.attributes[key.name]?.value(Value.self) { error in
                manager.counters.undecodable.add(1)
                guard manager.counters.isFirstFailure(of: key.name) else { return }
                manager.logger.warning(
                    "A session attribute cannot be decoded and reads as absent",
                    metadata: [LogKey.attribute: "\(key.name)", LogKey.error: "\(type(of: error))"])
            }
        }
    }

    private func write(_ what: String, _ change: (inout Written) throws -> Void) rethrows {
        let isOpen = try state.withLock { state in
            guard case .open = state.phase else { return false }
            guard intent.access == .write else {
                state.written.refused = state.written.refused ?? what
                return true
            }
            try change(&state.written)
            return true
        }
        guard !isOpen else { return }
        manager.counters.writesAfterSeal.add(1)
        manager.logger.error(
            "A session was written after its response had begun, or after it was released: the write is refused",
            metadata: [LogKey.attribute: "\(what)"])
    }

    // MARK: The end of the request

    /// Lets other requests of the session in before this one is over: stores what the handler has written, and leaves the lock.
    ///
    /// For a handler that has done with its session and goes on for a while. The session can still be read, as it was; a later write is
    /// refused, as one from a body that still streams. What was written stays, also if the handler fails later; a cookie goes out with
    /// the response. If this throws, the request fails, whatever the handler returns. To call it again does nothing.
    ///
    /// - Throws: ``SessionError`` if the session could not be stored.
    public func release() async throws { _ = try await complete() }

    /// Whether the handler can still do something with the session.
    var isOpen: Bool {
        state.withLock { state in
            guard case .open = state.phase else { return false }
            return true
        }
    }

    /// Ends the request if its handler wrote nothing and there is nothing to store: at once, in one pass of the state. It saves a
    /// request 1,200 instructions of those that ``complete()`` takes (callgrind).
    ///
    /// - Returns: `nil` if there is more to do.
    func completeUnchanged() -> SessionCoherence.Answer? {
        guard !isInCluster, let answer = manager.coherence.answer(toUnchanged: checkout, presented) else { return nil }
        return state.withLock { state in
            guard case .open = state.phase, state.written.isNothing else { return nil }
            state.phase = .complete(.success(answer))
            state.lease = nil
            state.newLease = nil
            return answer
        }
    }

    /// Seals the session, stores what the request did, and leaves the lock: once, whoever asks first. Others get what became of it.
    func complete() async throws -> SessionCoherence.Answer {
        guard let written = seal() else { return try await outcome() }
        let answer: SessionCoherence.Answer
        do {
            answer = try await manager.coherence.complete(try changes(written), checkout, presented)
        } catch {
            await leaveCluster(hasEnded: false)
            end(.complete(.failure(error)))
            throw error
        }
        if isInCluster { await leaveCluster(hasEnded: written.hasEnded) }
        end(.complete(.success(answer)))
        return answer
    }

    /// The handler failed: nothing of what it did is kept, and the session takes no writes from then on. What was released before
    /// stays as it is.
    func abandon() async {
        guard seal() != nil else { return }
        await leaveCluster(hasEnded: false)
        end(.abandoned)
    }

    /// The session takes no writes from now on.
    ///
    /// - Returns: what was written, for the caller, who ends the session; `nil` if somebody else does.
    private func seal() -> Written? {
        state.withLock { state in
            guard case .open = state.phase else { return nil }
            state.phase = .completing([])
            return state.written
        }
    }

    /// Leaves the session among the nodes: before this node's lock, so that the next request does not come in before it is let go.
    private func leaveCluster(hasEnded: Bool) async {
        guard isInCluster, let presented else { return }
        await manager.coherence.leaveCluster(presented.id, isOver: hasEnded || checkout.copy == nil)
    }

    /// Leaves the lock, and tells who waits for it what became of the session.
    private func end(_ phase: consuming Phase) {
        let waiters = state.withLock { state in
            var waiters: [CheckedContinuation<Void, Never>] = []
            if case .completing(let those) = state.phase { waiters = those }
            state.phase = phase
            state.lease = nil
            state.newLease = nil
            return waiters
        }
        for waiter in waiters { waiter.resume() }
    }

    /// Waits for whoever completes the session.
    private func outcome() async throws -> SessionCoherence.Answer {
        await withCheckedContinuation { continuation in
            let isOver = state.withLock { state in
                guard case .completing(let waiters) = state.phase else { return true }
                state.phase = .completing(waiters + [continuation])
                return false
            }
            if isOver { continuation.resume() }
        }
        let result = state.withLock { state -> Result<SessionCoherence.Answer, any Error>? in
            guard case .complete(let result) = state.phase else { return nil }
            return result
        }
        // Abandoned: a task that outlives its handler has nothing to release.
        return try result?.get() ?? .keepCookie
    }

    /// What the request did.
    ///
    /// - Throws: ``SessionError`` (`notEncodable`, naming the attribute; `writeNotAllowed`).
    private func changes(_ written: Written) throws(SessionError) -> SessionChanges {
        if let refused = written.refused { throw intent.error(refused) }
        var changes = SessionChanges()
        for (name, change) in written.changes {
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
                if !attribute.hasSameBytes(as: checkout.attributes[name]) {
                    changes.attributes[name] = .some(attribute)
                }
            case .remove:
                if checkout.attributes[name] != nil { changes.attributes.updateValue(nil, forKey: name) }
            }
        }
        if written.maxInactiveChanged { changes.maxInactive = written.maxInactive.milliseconds }
        changes.newID = changes.attributes.isEmpty ? written.id : id
        changes.ending = written.ending
        return changes
    }
}

extension Session {
    /// The session whose handler this task runs, or is a child of.
    @TaskLocal static var current: Session?

    /// The session of a manager whose handler this task runs.
    ///
    /// - Throws: ``SessionError`` (`otherSessionEntered`) if there is none, and the task is in a session of a manager that was made later:
    ///   sessions of several managers are entered in one order, so that no two requests wait for each other.
    static func entered(of manager: SessionManager, _ innermost: Session?) throws(SessionError) -> Session? {
        var candidate = innermost
        var isInOrder = true
        while let session = candidate {
            // One that leaves the session alone holds nothing: what its handler asks for in code is a request of its own.
            if session.access != .none, session.isOpen {
                if session.manager === manager { return session }
                if session.manager.order > manager.order { isInOrder = false }
            }
            candidate = session.outer
        }
        guard isInOrder else {
            throw SessionError(
                .otherSessionEntered,
                "a handler that is in a session of one manager asked for one of a manager that was made before it")
        }
        return nil
    }

    /// For a handler that asks for its session once more: the same one, which the outer request completes.
    ///
    /// - Throws: ``SessionError`` if it asks for another one, or wants to write what it may only read.
    func nested(_ presented: SessionCookie.Presented?, _ inner: AccessIntent) throws(SessionError) -> Session {
        guard presented?.id == self.presented?.id || presented?.id == state.withLock({ $0.written.id }) else {
            throw SessionError(
                .otherSessionEntered, "a handler asked for another session than the one that its request is in")
        }
        if inner.access == .write, access != .write { throw intent.error("its handler asked to write it") }
        return self
    }
}
