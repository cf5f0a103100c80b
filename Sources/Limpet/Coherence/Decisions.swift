// The rules of the protocol (see the article Coherence) as plain values: they decide, the sequences act.

/// **R1, R2, R3, R25**: how a request may use the copy in memory.
///
/// Where the balancer has no affinity (`roaming`) no copy is trusted, and any node's copy may be verified.
enum ReadDecision: Equatable {
    /// R1: use the copy, without any store call.
    case trust
    /// R2: compare its epoch with the store's first.
    case verify
    /// R3: read the record.
    case load
    /// R25: the copy has changes that the store has not, which is back: send them first.
    case deliver

    /// What the decision needs to know of a copy.
    struct Copy: Equatable {
        var home: NodeIdentity
        var isSuspect = false
        var verifiedAt: UInt64?
        var hasUnsent = false
    }

    /// - Parameters:
    ///   - watchIsFresh: others' changes were asked for within the last two polls: a node that slept, or that was cut off,
    ///     verifies first.
    ///   - lockedSince: R23: under the cluster lock, since when this node has held it without a break.
    ///   - storeIsDown: R25: the session's server cannot be asked, and its home answers for it meanwhile.
    init(
        copy: Copy?, node: NodeIdentity, isRoaming: Bool = false, cookieNamesThisNode: Bool, watchIsFresh: Bool,
        lockedSince: UInt64 = 0, now: UInt64, saveInterval: UInt64, storeIsDown: Bool
    ) {
        if let copy, copy.hasUnsent, !storeIsDown {
            self = .deliver
            return
        }
        guard let copy, !copy.isSuspect, isRoaming || copy.home == node else {
            self = .load
            return
        }
        if storeIsDown, cookieNamesThisNode {
            self = .trust
            return
        }
        // With a save interval of 0 no age is young enough.
        if !isRoaming, cookieNamesThisNode, watchIsFresh, let verifiedAt = copy.verifiedAt,
            now &- verifiedAt < saveInterval, verifiedAt >= lockedSince
        {
            self = .trust
        } else {
            self = .verify
        }
    }
}

/// **R3**: what a request does with what it found in the store.
enum LoadDecision {
    /// The session was ended.
    case gone(Tombstone)
    /// Nobody asked for it for too long.
    case expired(SessionRecord)
    /// It comes home to this node.
    case take(SessionRecord)
    /// R18: the store has lost it, the copy here is the session.
    case republish
    /// There is none.
    case notFound

    init(
        stored: StoredSession?, counter: Epoch?, copy: RepublishRule.Copy?, cookieNamesThisNode: Bool, now: Int64,
        tolerance: Int64
    ) {
        switch stored {
        case .tombstone(let tombstone):
            self = .gone(tombstone)
        case .record(let record):
            // A foreign judge of expiry allows for the access time that the home has not saved yet, and for its clock.
            self = record.expiresAt + tolerance <= now ? .expired(record) : .take(record)
        case nil:
            let may = RepublishRule.mayRepublish(
                copy: copy, counter: counter, cookieNamesThisNode: cookieNamesThisNode, now: now)
            self = may ? .republish : .notFound
        }
    }
}

/// **R18**: whether a record that is missing from the store may be put back from the copy here.
enum RepublishRule {
    /// What the rule needs to know of a copy.
    struct Copy {
        var isHome: Bool
        var epoch: Epoch
        var expiresAt: Int64
    }

    /// Whether a copy that may not be put back is of no use any more: it has expired, or somebody changed the session since.
    /// Any other is kept: it may be the only one.
    static func isOvertaken(copy: Copy, counter: Epoch?, now: Int64) -> Bool {
        if copy.expiresAt <= now { return true }
        guard let counter else { return false }
        return counter != copy.epoch && counter.incarnation == copy.epoch.incarnation
    }

    /// What a request takes the session's epoch for that it may have raised itself: its own raise, and nobody's since, is no
    /// change of the copy's session.
    static func counter(_ counter: Epoch?, raised: Epoch?, copy: Epoch) -> Epoch? {
        counter == raised && raised?.value == copy.value + 1 ? copy : counter
    }

    /// - Parameter counter: the session's epoch in the store. Missing or of another making: the store's memory was lost.
    ///   The copy's own: the record alone was. Another one of the same making: somebody changed the session since, and this
    ///   copy is not it.
    static func mayRepublish(copy: Copy?, counter: Epoch?, cookieNamesThisNode: Bool, now: Int64) -> Bool {
        guard let copy, copy.isHome, cookieNamesThisNode, copy.expiresAt > now else { return false }
        guard let counter else { return true }
        return counter == copy.epoch || counter.incarnation != copy.epoch.incarnation
    }
}

/// **R17**: what becomes of a copy that may be stale, after a look at its record.
enum WatchDecision: Equatable {
    /// It is the session.
    case current
    /// Somebody is about to change the session, or was: nobody reads the copy, and it is looked at again.
    case suspect
    /// Somebody has changed the session, or it has ended.
    case drop
    /// R18: the store has lost the session.
    case republish

    init(
        stored: StoredSession?, counter: Epoch?, copy: SessionRecord, node: NodeIdentity, now: Int64,
        keepsRule: Bool = true
    ) {
        switch stored {
        case .tombstone:
            self = .drop
        case .record(let record):
            guard record.home == copy.home, record.epoch == copy.epoch else {
                // What this node wrote itself it is about to hear of: the copy becomes that record.
                self = record.home == node ? .suspect : .drop
                return
            }
            self = counter == copy.epoch ? .current : .suspect
        case nil:
            let known = RepublishRule.Copy(
                isHome: copy.home == node || !keepsRule, epoch: copy.epoch, expiresAt: copy.expiresAt)
            if copy.expiresAt <= now {
                // For the scavenger, which tells of the end.
                self = .current
            } else if RepublishRule.mayRepublish(copy: known, counter: counter, cookieNamesThisNode: true, now: now) {
                self = .republish
            } else {
                self = RepublishRule.isOvertaken(copy: known, counter: counter, now: now) ? .drop : .suspect
            }
        }
    }
}

/// **R8, R9**: what a commit does with what it found in the store, when it has no token or the store refused it.
enum CommitDecision {
    /// The record is the one that the copy was made from: its token is adopted.
    case adopt
    /// Another node changed the session: the changes go on its record.
    case merge(SessionRecord)
    /// The session was ended: nothing is written.
    case gone(Tombstone)
    /// R18 has to decide.
    case missing

    init(stored: StoredSession?, home: NodeIdentity, epoch: Epoch) {
        switch stored {
        case .tombstone(let tombstone): self = .gone(tombstone)
        case .record(let record) where record.home == home && record.epoch == epoch: self = .adopt
        case .record(let record): self = .merge(record)
        case nil: self = .missing
        }
    }
}

/// **R15**: how a session's end goes on from what was found in the store.
enum EndDecision {
    /// The tombstone there is this request's own: it has ended the session.
    case won
    /// Somebody else ended the session, or changed its id.
    case lost(Tombstone)
    /// Swap the record for the tombstone.
    case bury(SessionRecord)
    /// There is nothing: put the tombstone there.
    case plant

    init(stored: StoredSession?, nonce: Tombstone.Nonce) {
        switch stored {
        case .tombstone(let tombstone): self = tombstone.nonce == nonce ? .won : .lost(tombstone)
        case .record(let record): self = .bury(record)
        case nil: self = .plant
        }
    }
}

/// **R24**: whether the old id of a session whose id was changed still reads what the session was before.
enum AliasRule {
    /// The node that changed the id judges by its own clock. Another one's may be ahead: it adds the slack, so that the time is not
    /// cut short. What is read longer for that is what the old id could read anyway.
    static func isReadable(_ alias: Tombstone.Alias, by node: NodeIdentity, now: Int64, slack: Int64) -> Bool {
        now < alias.readableUntil + (alias.record.home.name == node.name ? 0 : slack)
    }
}

/// **R14**: whether the access time is saved with this request.
enum AccessRule {
    static func isDue(accessedAt: Int64, savedAt: Int64, saveInterval: Int64) -> Bool {
        accessedAt - savedAt >= saveInterval
    }
}
