/// Requests that only read find their session beside each other: rules R1 and R2, and, one of them alone, the others.
extension SessionCoherence {
    /// What a request that is not alone in the session can do.
    private enum Shared {
        case use(Checkout)
        /// Whatever changes the copy needs the session for itself: to load it, to deliver what is unsent, or to end it.
        ///
        /// - Parameter stale: the copy that the store knows better than.
        case beAlone(stale: SessionCopy?)
    }

    /// Finds the session of a cookie; `nil` if there is none.
    ///
    /// A copy is used, and compared with the store, beside others who do. Who finds none that can be used loads it alone, and goes on
    /// as a reader; those that wanted the same meanwhile come in behind it, and look again.
    ///
    /// - Parameter lease: shared; when this returns, too.
    func checkout(_ cookie: SessionCookie.Presented, _ lease: inout SessionLease) async throws -> Checkout? {
        var stale: SessionCopy?
        while lease.access == .read {
            switch try await share(cookie, at: lease.enteredAt) {
            case .use(let checkout): return checkout
            case .beAlone(let copy): stale = copy
            }
            if isClusterLocked { clusterLocks.wantsToBeAlone(cookie.id, true) }
            defer { if isClusterLocked { clusterLocks.wantsToBeAlone(cookie.id, false) } }
            try await lease.becomeExclusive()
        }
        let checkout =
            if let stale, local.find(cookie.id) === stale {
                try await load(cookie, copy: stale, startedAt: lease.enteredAt)
            } else {
                try await checkout(cookie, at: lease.enteredAt)
            }
        lease.becomeShared()
        return checkout
    }

    private func share(_ cookie: SessionCookie.Presented, at now: UInt64) async throws -> Shared {
        guard let copy = local.find(cookie.id) else { return .beAlone(stale: nil) }
        var source = Session.Source.local
        switch readDecision(copy, cookie, at: now) {
        case .trust:
            break
        case .verify:
            do throws(SessionError) {
                guard try await verify(copy, at: now) else { return .beAlone(stale: copy) }
                source = .verified
            } catch {
                guard cookie.namesThisNode, mayServe(after: error) else { throw error }
            }
        case .load, .deliver:
            return .beAlone(stale: nil)
        }
        guard let checkout = begin(copy, cookie, source: source, startedAt: now) else { return .beAlone(stale: nil) }
        return .use(checkout)
    }
}
