/// A request's session is completed before its response leaves: from what the handler did to what the client is told.
extension SessionCoherence {
    /// What the response does with the session's cookie.
    enum Answer {
        case keepCookie
        case setCookie(SessionID)
        case expireCookie
    }

    /// A session that is stored nowhere yet.
    ///
    /// - Parameter replacesEnded: the client brought the id of one that has ended.
    func newCheckout(replacesEnded: Bool = false) -> Checkout {
        Checkout(
            newAt: clock.wallMilliseconds(), startedAt: clock.monotonicNanoseconds(),
            maxInactive: configuration.maxInactive.milliseconds, replacesEnded: replacesEnded)
    }

    func complete(
        _ changes: SessionChanges, _ checkout: Checkout, _ presented: SessionCookie.Presented?
    ) async throws -> Answer {
        guard let copy = checkout.copy else {
            if checkout.isReadOnly {
                // The client has, or will have, its new cookie: this answer must not touch it. A log-out must not be acknowledged
                // either, while the session lives under the new id.
                guard changes.isEmpty else {
                    if let id = checkout.id { refused(names.keys(of: id)) }
                    throw Self.idChanged
                }
                return .keepCookie
            }
            try refuseIfTooLong(changes, checkout)
            return try await completeNew(changes, checkout, presented)
        }
        try refuseIfTooLong(changes, checkout)
        // R20: it ended together with all others while this request had it.
        guard copy.keys.generation == names.generation else { return .expireCookie }
        switch changes.ending {
        case .ends:
            if copy.isUnplanted {
                // Nobody was told that it began.
                forget(copy.id)
                return .expireCookie
            }
            try await requireStore(copy)
            // Its new id lives on, and the client has it by now, or will: nothing was ended.
            if try await end(copy.id, copy.keys, reason: .invalidated) == .before(.rotated) { throw Self.idChanged }
            forget(copy.id)
            return .expireCookie
        case .rotates(let oldIDReadable):
            try await requireStore(copy)
            if copy.hasUnsent {
                switch try await settle(copy, cookieNamesThisNode: presented?.namesThisNode ?? false) {
                case .stored, .unsent: break
                case .gone(.rotated): throw Self.idChanged
                case .gone: return .expireCookie
                case .lost: throw Self.lost
                }
            }
            switch try await rotate(copy, changes, oldIDReadable: oldIDReadable) {
            case .renamed(let id): return .setCookie(id)
            case .gone(.rotated): throw Self.idChanged
            case .gone: return .expireCookie
            }
        case .stays where changes.isDirty:
            switch try await commit(changes, to: copy, cookieNamesThisNode: presented?.namesThisNode ?? false) {
            // Who merges becomes home, whatever the client was told in between.
            case .unsent: return checkout.routeIsStale ? .setCookie(copy.id) : .keepCookie
            case .lost: throw Self.lost
            case .stored(let merged): return merged || checkout.routeIsStale ? .setCookie(copy.id) : .keepCookie
            case .gone(.rotated): throw Self.idChanged
            case .gone: return .expireCookie
            }
        case .stays:
            if checkout.isAccessSaveDue, !isTooLong(checkout), copy.withState({ isAccessSaveDue($0) }) {
                await saveAccessTime(copy)
            }
            return answer(toReaderOf: copy, checkout)
        }
    }

    /// What a request is answered that changed nothing; `nil` if there is something to be stored all the same.
    func answer(toUnchanged checkout: Checkout, _ presented: SessionCookie.Presented?) -> Answer? {
        guard let copy = checkout.copy else {
            return checkout.isReadOnly ? .keepCookie : answerToNone(checkout, presented)
        }
        guard copy.keys.generation == names.generation else { return .expireCookie }
        return checkout.isAccessSaveDue ? nil : answer(toReaderOf: copy, checkout)
    }

    private func answer(toReaderOf copy: SessionCopy, _ checkout: Checkout) -> Answer {
        // Where any node may be asked the route says who put it there last, so that one may put it back.
        checkout.routeIsStale && !isRoaming ? .setCookie(copy.id) : .keepCookie
    }

    private func answerToNone(_ checkout: Checkout, _ presented: SessionCookie.Presented?) -> Answer {
        // The node that the cookie names may serve what has ended until its next poll: not to a client that was told so. At home a
        // cookie is left alone, for it may be a newer one by the time that this answer arrives.
        let leadsElsewhere = checkout.replacesEnded && presented?.namesThisNode == false
        return leadsElsewhere ? .expireCookie : .keepCookie
    }

    /// The client has another id by now, which this answer must not take from it; but what this request did is nowhere.
    private static let idChanged = SessionError(
        .conflict, "the session's id was changed while this request had it")

    /// Tombstones are kept for as long as a request may take that found the session before it ended: one that takes longer writes
    /// nothing. A request that has only read asks no clock.
    private func refuseIfTooLong(_ changes: SessionChanges, _ checkout: Checkout) throws(SessionError) {
        guard !changes.isEmpty, isTooLong(checkout) else { return }
        throw SessionError(
            .requestTooLong, "the request has had its session for longer than \(configuration.maxRequest)")
    }

    private func isTooLong(_ checkout: Checkout) -> Bool {
        clock.monotonicNanoseconds() - checkout.startedAt > configuration.maxRequest.nanoseconds
    }

    private static let lost = SessionError(
        .conflict, "the session ended, or moved and was lost, while this request had it")

    /// An end of a session, or a change of its id, is told when the store has it: while it is down, nothing is begun, and the
    /// session stays as it is.
    private func requireStore(_ copy: SessionCopy) async throws {
        guard !store.isAvailable(server: copy.keys.server) else { return }
        _ = try await epoch(copy.keys)
    }

    /// Nothing was stored when the request came: it is now, if the handler wrote a value.
    private func completeNew(
        _ changes: SessionChanges, _ checkout: Checkout, _ presented: SessionCookie.Presented?
    ) async throws -> Answer {
        if case .ends = changes.ending { return presented == nil ? .keepCookie : .expireCookie }
        guard !changes.attributes.isEmpty else { return answerToNone(checkout, presented) }
        var changes = changes
        if let presented, !keeps(.r16) { changes.newID = presented.id }
        return .setCookie(
            try await create(changes, at: checkout.createdAt, maxInactive: checkout.maxInactive))
    }
}
