#if canImport(FoundationEssentials)
    import FoundationEssentials
#else
    import Foundation
#endif

/// The sessions that are at home on this node, in pages by the first byte of their hashes, and what others can read of it:
/// `r/<node>/<page>`.
///
/// It is a list of where to look, and authoritative for nothing: whether a session is at home here, and when it expires,
/// only its record tells. What an earlier start of this node has listed stays listed until it was dealt with.
final class Roster: Sendable {
    /// What is listed of a session: the hash of its id, and when it expires as far as is known.
    typealias Entries = [[UInt8]: Int64]

    private struct Page {
        var sessions: [SessionID: SessionCopy] = [:]
        /// Of an earlier start of this node.
        var inherited: Entries = [:]
        var isDirty = false
        /// There may be something in the store.
        var isWritten = false
        var renewAt: UInt64 = .max
    }

    private final class Slot: Sendable { let page = Locked(Page()) }

    private let slots = (0..<StoreNames.buckets).map { _ in Slot() }
    private let state = Locked((next: 0, hasInherited: false))

    private func slot(_ keys: SessionStoreKeys) -> Slot { slots[keys.bucket] }

    /// A copy was kept in memory.
    func note(_ copy: SessionCopy, isHome: Bool) {
        slot(copy.keys).page.withLock { page in
            let before =
                isHome
                ? page.sessions.updateValue(copy, forKey: copy.id) : page.sessions.removeValue(forKey: copy.id)
            if (before != nil) != isHome { page.isDirty = true }
        }
    }

    /// A copy was forgotten.
    func remove(_ copy: SessionCopy) {
        slot(copy.keys).page.withLock { page in
            if page.sessions.removeValue(forKey: copy.id) != nil { page.isDirty = true }
        }
    }

    /// The copies of the sessions that are at home here.
    var sessions: [SessionCopy] { slots.flatMap { $0.page.withLock { Array($0.sessions.values) } } }

    /// How many sessions are at home here.
    var count: Int { slots.reduce(0) { $0 + $1.page.withLock { $0.sessions.count } } }

    /// Whether the store lists any session, as far as is known.
    var isListed: Bool { slots.contains { $0.page.withLock { $0.isWritten || $0.isDirty } } }

    // MARK: What an earlier start has listed

    var hasInherited: Bool { state.withLock { $0.hasInherited } }

    func inherit(_ pages: [Int: Entries]) {
        for (number, entries) in pages {
            slots[number].page.withLock { page in
                page.inherited = entries
                page.isWritten = true
                page.isDirty = true
            }
        }
        state.withLock { $0.hasInherited = true }
    }

    var inherited: Entries {
        slots.reduce(into: [:]) { all, slot in
            all.merge(slot.page.withLock { $0.inherited }) { first, _ in first }
        }
    }

    /// A session of an earlier start has ended, or is at home somewhere.
    func settle(_ digest: [UInt8]) {
        slots[Int(digest[0])].page.withLock { page in
            if page.inherited.removeValue(forKey: digest) != nil { page.isDirty = true }
        }
    }

    // MARK: Pages to write

    /// The pages that were changed, or whose time to live has half passed; at most so many, each in its turn.
    func takeDue(at now: UInt64, atMost limit: Int) -> [Int] {
        let start = state.withLock { $0.next }
        var due: [Int] = []
        for offset in 0..<slots.count where due.count < limit {
            let number = (start + offset) % slots.count
            let isDue = slots[number].page.withLock { page in
                defer { page.isDirty = false }
                return page.isDirty || page.renewAt <= now
            }
            if isDue { due.append(number) }
            state.withLock { $0.next = (number + 1) % slots.count }
        }
        return due
    }

    /// What a page lists, and whether there may be an old one in the store.
    func entries(_ number: Int) -> (entries: Entries, isWritten: Bool) {
        let (sessions, inherited, isWritten) = slots[number].page.withLock { page in
            (Array(page.sessions.values), page.inherited, page.isWritten)
        }
        var entries = inherited
        for copy in sessions { entries[copy.keys.digest] = copy.withState { $0.record.expiresAt } }
        return (entries, isWritten)
    }

    /// - Parameter renewAt: when the page's time to live has half passed; `nil` if it was deleted.
    func wrote(_ number: Int, renewAt: UInt64?) {
        slots[number].page.withLock { page in
            page.isWritten = renewAt != nil
            page.renewAt = renewAt ?? .max
        }
    }

    /// A page could not be written: it is tried again.
    func failed(_ number: Int) {
        slots[number].page.withLock { $0.isDirty = true }
    }
}

extension Roster {
    static func bytes(_ entries: Entries, of node: String, page: Int) throws(StoreError) -> [UInt8] {
        var wire = WireRosterPage()
        wire.node = node
        wire.page = UInt32(clamping: page)
        for (digest, expiresAt) in entries {
            wire.keyHashes.append(contentsOf: digest)
            wire.expiresAt.append(expiresAt)
        }
        return try encoded(wire)
    }

    /// - Throws: ``StoreError`` (`corrupt`).
    static func entries(_ bytes: [UInt8], of node: String, page: Int) throws(StoreError) -> Entries {
        let wire: WireRosterPage = try decoded(bytes, "a page of a node's roster in the store cannot be read")
        try check(wire.node, is: node)
        let hashes = Array(wire.keyHashes)
        let length = 32
        guard Int(wire.page) == page, hashes.count == wire.expiresAt.count * length else {
            throw StoreError(.corrupt, "a page of a node's roster is not what it should be", mayHaveTakenEffect: false)
        }
        var entries: Entries = [:]
        for (index, expiresAt) in wire.expiresAt.enumerated() {
            entries[Array(hashes[index * length..<(index + 1) * length])] = expiresAt
        }
        return entries
    }
}

extension SessionCoherence {
    /// A quarter of the pages with each beat: what is at home here is listed within a lease.
    static let pagesOfBeat = StoreNames.buckets / 4
    /// A page of a node with a hundred thousand sessions has some 15 KB: half a megabyte in one answer.
    private static let pagesOfRead = 32
    /// How long a page is there beyond the last expiry that it lists, twice over: until a node's death is noticed, three
    /// leases may pass.
    private static let rosterMargin = Membership.longestLease * 6

    /// Keeps the roster in the store as it is here, until the task is cancelled.
    func runRoster() async {
        while true {
            do { try await clock.sleep(for: Membership.longestBeat) } catch { return }  // Cancelled: the node stops.
            await writeRoster(atMost: Self.pagesOfBeat)
        }
    }

    func writeRoster(atMost limit: Int) async {
        do {
            try await inheritRoster()
        } catch {
            return membership.noteFailure(error)
        }
        let due = local.roster.takeDue(at: clock.monotonicNanoseconds(), atMost: limit)
        for (index, page) in due.enumerated() {
            do {
                try await writeRoster(page)
            } catch {
                // The others would fail as well, and each takes its time-out.
                for page in due[index...] { local.roster.failed(page) }
                return membership.noteFailure(error)
            }
        }
    }

    private func writeRoster(_ page: Int) async throws(StoreError) {
        let (entries, isWritten) = local.roster.entries(page)
        let key = names.roster(of: node.name, page: page)
        guard let last = entries.values.max() else {
            if isWritten { _ = try await store.delete(key) }
            return local.roster.wrote(page, renewAt: nil)
        }
        let timeToLive = .milliseconds(max(0, last - clock.wallMilliseconds()) + expiryTolerance) + Self.rosterMargin
        _ = try await store.put(
            try Roster.bytes(entries, of: node.name, page: page), for: key, timeToLive: timeToLive, if: .always)
        local.roster.wrote(page, renewAt: clock.monotonicNanoseconds() + (timeToLive / 2).nanoseconds)
    }

    /// Before the first page is written: what an earlier start of this node has listed must not get lost.
    private func inheritRoster() async throws(StoreError) {
        guard !local.roster.hasInherited else { return }
        local.roster.inherit(try await readRoster(of: node.name).mapValues(\.entries))
    }

    func readRoster(of name: String) async throws(StoreError) -> [Int: (entries: Roster.Entries, token: StoreToken)] {
        var pages: [Int: (entries: Roster.Entries, token: StoreToken)] = [:]
        for start in stride(from: 0, to: StoreNames.buckets, by: Self.pagesOfRead) {
            let numbers = start..<start + Self.pagesOfRead
            let results = await store.get(numbers.map { names.roster(of: name, page: $0) })
            for (number, result) in zip(numbers, results) {
                guard let entry = try result.get() else { continue }
                pages[number] = (try Roster.entries(entry.bytes, of: name, page: number), entry.token)
            }
        }
        return pages
    }
}
