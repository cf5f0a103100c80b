/// What one request did to its session.
struct SessionChanges: Sendable {
    enum Ending: Sendable, Equatable {
        case stays
        case rotates(oldIDReadable: Duration)
        case ends
    }

    /// Attributes with other bytes than the request had found; `nil` for those it removed.
    var attributes: [String: Attribute?] = [:]
    /// Milliseconds, if the request set it.
    var maxInactive: Int64?
    var ending = Ending.stays
    /// The id that the handler was told; for a session that is not stored yet, and only if it asked.
    var newID: SessionID?

    var isDirty: Bool { !attributes.isEmpty || maxInactive != nil }
    /// Whether the request has only read.
    var isEmpty: Bool { !isDirty && ending == .stays }

    /// These changes, and then those of a later request.
    func merging(_ later: SessionChanges) -> SessionChanges {
        var merged = self
        for (name, attribute) in later.attributes { merged.attributes.updateValue(attribute, forKey: name) }
        if let maxInactive = later.maxInactive { merged.maxInactive = maxInactive }
        return merged
    }

    /// Puts this request's changes, and nothing else, on a record.
    func apply(to record: inout SessionRecord) {
        for (name, attribute) in attributes { record.attributes[name] = attribute }
        if let maxInactive { record.maxInactive = maxInactive }
    }
}

/// A request's session as it was found.
struct Checkout: Sendable {
    /// The copy in memory; `nil` for a session that is stored nowhere yet.
    let copy: SessionCopy?
    let id: SessionID?
    let source: Session.Source
    /// Monotonic time.
    let startedAt: UInt64
    let home: String?
    let epoch: Epoch?
    let createdAt: Int64
    let lastAccessedAt: Int64
    let maxInactive: Int64
    let attributes: [String: Attribute]
    /// The client's cookie names another node.
    let routeIsStale: Bool
    /// R14: the store's access time is older than the save interval.
    let isAccessSaveDue: Bool
    /// The client's session has ended, or there is none: this is a new one in its place.
    let replacesEnded: Bool

    /// The session's id was changed a moment ago, and this is what it was before.
    var isReadOnly: Bool { copy == nil && id != nil }

    /// A session that is stored nowhere yet.
    init(newAt now: Int64, startedAt: UInt64, maxInactive: Int64, replacesEnded: Bool) {
        self.replacesEnded = replacesEnded
        copy = nil
        id = nil
        source = .new
        self.startedAt = startedAt
        home = nil
        epoch = nil
        createdAt = now
        lastAccessedAt = now
        self.maxInactive = maxInactive
        attributes = [:]
        routeIsStale = false
        isAccessSaveDue = false
    }

    /// A session as it was before its id was changed.
    init(readOnly record: SessionRecord, id: SessionID, startedAt: UInt64) {
        replacesEnded = false
        copy = nil
        self.id = id
        source = .store
        self.startedAt = startedAt
        home = record.home.name
        epoch = record.epoch
        createdAt = record.createdAt
        lastAccessedAt = record.accessedAt
        maxInactive = record.maxInactive
        attributes = record.attributes
        routeIsStale = false
        isAccessSaveDue = false
    }

    init(
        copy: SessionCopy, state: SessionCopy.State, source: Session.Source, startedAt: UInt64, routeIsStale: Bool,
        isAccessSaveDue: Bool
    ) {
        self.copy = copy
        id = copy.id
        self.source = source
        self.startedAt = startedAt
        home = state.record.home.name
        epoch = state.record.epoch
        createdAt = state.record.createdAt
        lastAccessedAt = state.record.lastAccessedAt
        maxInactive = state.unsent?.changes.maxInactive ?? state.record.maxInactive
        attributes = state.unsent == nil ? state.record.attributes : state.current.attributes
        self.routeIsStale = routeIsStale
        replacesEnded = false
        self.isAccessSaveDue = isAccessSaveDue
    }
}
