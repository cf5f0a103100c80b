import Synchronization

/// What clients were told is kept, and the store has not acknowledged: rule R25.
///
/// This node is **authoritative** for these changes, until the store has them; for all else of the session the record in the
/// store is.
final class Unsent: Sendable {
    /// Whether the store has the session that the changes are of.
    enum Planting: Sendable {
        case stored
        /// It was begun while the store was down: no other node can have it.
        case never
        /// It was sent, and nobody answered.
        case unknown
    }

    let changes: SessionChanges
    let planting: Planting
    /// The changes were sent, and nobody answered.
    let mayBeThere: Bool

    init(_ changes: SessionChanges, planting: Planting, mayBeThere: Bool = false) {
        self.changes = changes
        self.planting = planting
        self.mayBeThere = mayBeThere
    }

    /// With the changes of a later request.
    func merging(_ later: SessionChanges) -> Unsent {
        Unsent(changes.merging(later), planting: planting, mayBeThere: mayBeThere)
    }

    /// After a write that nobody answered.
    var afterUnknownOutcome: Unsent {
        Unsent(changes, planting: planting == .never ? .unknown : planting, mayBeThere: true)
    }

    /// Puts the changes on a record.
    ///
    /// If they may have been there already, somebody may have changed them since: what is neither as it was nor as it would
    /// be is a later change, and stays.
    ///
    /// - Parameter base: the record that the changes were made to.
    func apply(to record: inout SessionRecord, since base: SessionRecord) {
        guard mayBeThere else { return changes.apply(to: &record) }
        for (name, attribute) in changes.attributes {
            let (now, then) = (record.attributes[name], base.attributes[name])
            guard now == nil ? then == nil : now?.hasSameBytes(as: then) == true else { continue }
            record.attributes[name] = attribute
        }
        if let maxInactive = changes.maxInactive, record.maxInactive == base.maxInactive {
            record.maxInactive = maxInactive
        }
    }
}

/// The sessions with changes that wait until the store is back: each once, however often it was changed.
///
/// It keeps the copies themselves: one that is dropped elsewhere still has its changes delivered.
final class UnsentSessions: Sendable {
    /// Sessions that wait at most: with a few kilobytes each, some tens of megabytes.
    static let capacity = 10_000

    private let capacity: Int
    private let copies = Locked<[SessionID: SessionCopy]>([:])
    /// For those who only look.
    private let number = Atomic<Int>(0)
    let signals: AsyncStream<Void>
    private let signal: AsyncStream<Void>.Continuation

    init(capacity: Int = UnsentSessions.capacity) {
        self.capacity = capacity
        (signals, signal) = AsyncStream.makeStream(of: Void.self, bufferingPolicy: .bufferingNewest(1))
    }

    var count: Int { number.load(ordering: .relaxed) }

    /// All that wait.
    var all: [SessionCopy] { copies.withLock { Array($0.values) } }

    func find(_ id: SessionID) -> SessionCopy? {
        count == 0 ? nil : copies.withLock { $0[id] }
    }

    /// Keeps a session, or its newer copy.
    ///
    /// - Returns: whether there was room.
    func keep(_ copy: SessionCopy) -> Bool {
        copies.withLock { copies in
            guard copies.count < capacity || copies[copy.id] != nil else { return false }
            copies[copy.id] = copy
            number.store(copies.count, ordering: .relaxed)
            return true
        }
    }

    /// - Returns: the copy that waited.
    @discardableResult
    func remove(_ id: SessionID) -> SessionCopy? {
        guard count > 0 else { return nil }
        return copies.withLock { copies in
            let copy = copies.removeValue(forKey: id)
            number.store(copies.count, ordering: .relaxed)
            return copy
        }
    }

    /// Tells whoever delivers that there is something to do.
    func wake() { signal.yield() }
}
