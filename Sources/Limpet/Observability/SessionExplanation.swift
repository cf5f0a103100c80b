#if canImport(FoundationEssentials)
    public import FoundationEssentials
#else
    public import Foundation
#endif

/// What a node can tell about one session: for people who look for the reason of something.
///
/// It holds no id and no value. Numbers of 64 bits are decimal texts, since many readers of JSON keep only 53 bits of a number. The parts
/// were not read in one instant: a session that is in use may have changed in between.
public struct SessionExplanation: Sendable, Hashable, Codable {
    /// What the store holds under a session's key.
    public struct Stored: Sendable, Hashable, Codable {
        /// Which kind of entry.
        public enum Kind: String, Sendable, Hashable, Codable {
            /// The session.
            case record
            /// The session has ended; ``Stored/reason`` tells how.
            case ended
            /// The session's id was changed, and the old one, which this is, may still be read.
            case readableOldID
            /// There is no such session.
            case nothing
            /// An entry that this version cannot read: nothing is written over it.
            case unreadable
        }

        /// Which kind of entry.
        public var kind: Kind
        /// How the session ended: `invalidated`, `expired`, `rotated` or `unknown`.
        public var reason: String?
        /// Until when the old id may be read, by the clock of the node that changed it.
        public var readableUntil: Date?
        /// The session; of an old id that may still be read, as it was before.
        public var record: Record?
    }

    /// A session as the store holds it.
    public struct Record: Sendable, Hashable, Codable {
        /// The node that owns the session.
        public var home: String
        /// Which start of that node.
        public var incarnation: String
        /// The session's cache version.
        public var epoch: String
        /// When the session was created.
        public var createdAt: Date
        /// When the newest request came, as far as the store knows: its home may know of a newer one, by the save interval.
        public var accessedAt: Date
        /// When it expires if no request comes.
        public var expiresAt: Date
        /// The attributes, in the order of their names.
        public var attributes: [Attribute]
    }

    /// An attribute without its value.
    public struct Attribute: Sendable, Hashable, Codable {
        /// The key's name.
        public var name: String
        /// The size of the encoded value.
        public var bytes: Int
    }

    /// The copy in the node's memory.
    public struct Copy: Sendable, Hashable, Codable {
        /// What the next request would do with the copy.
        public enum State: String, Sendable, Hashable, Codable {
            /// Use it, without asking the store.
            case trusted
            /// Compare its epoch with the store's first.
            case toBeVerified
            /// Read the store: the copy is kept only because it may be the only one.
            case suspect
            /// Deliver first what the store has not yet, because it was down.
            case unsent
        }

        /// What the next request would do with the copy.
        public var state: State
        /// The copy's cache version.
        public var epoch: String
        /// When the newest request came.
        public var accessedAt: Date
        /// Whether the store has another home or epoch, or no session: the copy is no longer the session, or the store has lost it.
        public var differsFromStore: Bool
    }

    /// Who is in the session on this node.
    public struct Lock: Sendable, Hashable, Codable {
        /// Whether they read together, or one of them is alone in it.
        public var access: SessionAccess
        /// How many requests are in; the node itself counts as one where it mends or ends the session.
        public var requests: Int
        /// For how long, in seconds, they have held it: since it was last free or handed over.
        public var heldSeconds: Double
        /// How many requests wait in line.
        public var waiting: Int
    }

    /// The lock that keeps other nodes out (`lock.scope` `cluster`).
    public struct ClusterLock: Sendable, Hashable, Codable {
        /// The node that holds it, for its requests together; `nil`: it was let go, or the store has none.
        public var holder: String?
        /// Which start of that node.
        public var incarnation: String?
        /// For how long the node that tells this has held it; `nil` if it does not, or cannot rely on it now.
        public var heldSeconds: Double?
        /// The node that has last said that it waits for it.
        public var wantedBy: String?
    }

    /// Something that happened to the session on this node.
    public struct Transition: Sendable, Hashable, Codable {
        /// What happened. New kinds may be added.
        public enum Kind: String, Sendable, Hashable, Codable {
            /// It was stored for the first time.
            case created
            /// It was read from the store, by the node that was its home already.
            case loaded
            /// It was read from the store and came home here; ``Transition/node`` was its home.
            case takenOver
            /// The copy here was compared, and was not the store's.
            case foundStale
            /// The store acknowledged a change.
            case committed
            /// That change was put on a newer record; ``Transition/node`` had written it.
            case merged
            /// The store refused a write, because somebody else had written.
            case conflict
            /// Nobody knows what became of a write: the copy here is suspect.
            case unknownOutcome
            /// The store had lost it, and this node put it back.
            case republished
            /// The copy here may be stale, and is not read.
            case suspected
            /// The copy here was stale, or the session had ended: it was dropped.
            case dropped
            /// Its id was changed: this was the old one.
            case idChanged
            /// Its id was changed: this is the new one.
            case idGiven
            /// A change of its id had failed, and was undone.
            case idChangeUndone
            /// It was read under its old id.
            case readByOldID
            /// A write met the session's end, and was refused.
            case writeRefused
            /// This node ended it.
            case ended
        }

        /// What happened.
        public var kind: Kind
        /// When, by this node's clock.
        public var at: Date
        /// The other node that had to do with it.
        public var node: String?
    }

    /// Which session.
    public var fingerprint: SessionFingerprint
    /// The node that tells this.
    public var node: String
    /// When, by its clock.
    public var at: Date
    /// What the store holds.
    public var stored: Stored
    /// The epoch beside the record, which others compare their copies with: beyond the record's while somebody changes it.
    public var epochCounter: String?
    /// The copy in the node's memory, if it has one.
    public var copy: Copy?
    /// Who is in the session on this node; `nil` if nobody is.
    public var lock: Lock?
    /// The lock among the nodes; `nil` with `lock.scope` `node`.
    public var clusterLock: ClusterLock?
    /// What happened to the session on this node, the oldest first, as far as the node remembers: it keeps the last 1,024 of all its
    /// sessions.
    public var transitions: [Transition]
}

extension SessionExplanation: CustomStringConvertible {
    /// A few lines for a log or a terminal.
    public var description: String {
        var lines = ["session \(fingerprint), as node \(node) knows it at \(Self.text(at))"]
        var store = "store: \(stored.kind)"
        if let reason = stored.reason { store += " (\(reason))" }
        if let until = stored.readableUntil { store += ", until \(Self.text(until))" }
        lines.append(store)
        if let record = stored.record {
            lines.append("  home \(record.home), incarnation \(record.incarnation), epoch \(record.epoch)")
            lines.append(
                "  created \(Self.text(record.createdAt)), accessed \(Self.text(record.accessedAt)), expires "
                    + Self.text(record.expiresAt))
            lines += record.attributes.map { "  attribute \($0.name): \($0.bytes) bytes" }
        }
        lines.append("epoch counter: \(epochCounter ?? "none")")
        if let copy {
            lines.append(
                "copy here: \(copy.state), epoch \(copy.epoch), accessed \(Self.text(copy.accessedAt)), "
                    + (copy.differsFromStore ? "not what the store has" : "the same as the store's"))
        } else {
            lines.append("copy here: none")
        }
        if let lock {
            lines.append(
                "in it here: \(lock.requests) with access \(lock.access), for \(lock.heldSeconds) s; \(lock.waiting) wait"
            )
        }
        if let clusterLock {
            var line = "locked by \(clusterLock.holder ?? "nobody")"
            if let seconds = clusterLock.heldSeconds { line += ", for \(seconds) s" }
            if let contender = clusterLock.wantedBy { line += "; \(contender) wants it" }
            lines.append(line)
        }
        lines += transitions.map { transition in
            "\(Self.text(transition.at)) \(transition.kind)" + (transition.node.map { ", \($0)" } ?? "")
        }
        return lines.joined(separator: "\n")
    }

    private static func text(_ date: Date) -> String {
        date.formatted(Date.ISO8601FormatStyle(includingFractionalSeconds: true))
    }
}
