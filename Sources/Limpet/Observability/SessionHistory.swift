#if canImport(FoundationEssentials)
    import FoundationEssentials
#else
    import Foundation
#endif

/// The last things that happened to sessions on this node, for ``SessionManager/explain(_:)-(SessionID)``.
///
/// A ring: what is older is forgotten. Nothing decides by it. A request that finds its session in memory and only reads it leaves no
/// trace here, and costs nothing.
final class SessionHistory: Sendable {
    /// So many for all sessions together: some 60 KiB, and minutes of what matters on a node whose sessions stay at home.
    static let capacity = 1024

    private struct Entry {
        /// The first 16 bytes of the session's hash: two sessions that share them are less likely than a broken disk.
        let session: (UInt64, UInt64)
        let transition: SessionExplanation.Transition
    }

    private struct Ring {
        var entries: [Entry] = []
        var oldest = 0
    }

    private let ring = Locked(Ring())

    func add(_ transition: SessionExplanation.Transition, of digest: [UInt8]) {
        let entry = Entry(session: Self.name(digest), transition: transition)
        ring.withLock { ring in
            if ring.entries.count < Self.capacity {
                ring.entries.append(entry)
            } else {
                ring.entries[ring.oldest] = entry
                ring.oldest = (ring.oldest + 1) % Self.capacity
            }
        }
    }

    /// What is remembered of a session, the oldest first.
    func transitions(of digest: [UInt8]) -> [SessionExplanation.Transition] {
        let session = Self.name(digest)
        return ring.withLock { ring in
            (ring.entries[ring.oldest...] + ring.entries[..<ring.oldest])
                .filter { $0.session == session }.map(\.transition)
        }
    }

    private static func name(_ digest: [UInt8]) -> (UInt64, UInt64) {
        func word(_ bytes: ArraySlice<UInt8>) -> UInt64 { bytes.reduce(0) { $0 << 8 | UInt64($1) } }
        return (word(digest[0..<8]), word(digest[8..<16]))
    }
}
