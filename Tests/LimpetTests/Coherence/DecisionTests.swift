import Testing

@testable import Limpet

/// The protocol's rules as values.
struct DecisionTests {
    private let here = NodeIdentity(name: "a", incarnation: 1)
    private let earlier = NodeIdentity(name: "a", incarnation: 7)
    private let there = NodeIdentity(name: "b", incarnation: 2)

    private func read(
        _ copy: ReadDecision.Copy?, route: Bool = true, isRoaming: Bool = false, watch: Bool = true, now: UInt64 = 100,
        saveInterval: UInt64 = 60, storeIsDown: Bool = false
    ) -> ReadDecision {
        ReadDecision(
            copy: copy, node: here, isRoaming: isRoaming, cookieNamesThisNode: route, watchIsFresh: watch, now: now,
            saveInterval: saveInterval, storeIsDown: storeIsDown)
    }

    private func record(home: NodeIdentity? = nil, epoch: UInt64 = 5, accessedAt: Int64 = 0) -> SessionRecord {
        SessionRecord(
            home: home ?? here, epoch: Epoch(epoch), createdAt: 0, accessedAt: accessedAt, lastAccessedAt: 0,
            cookieSetAt: 0, maxInactive: 1000, attributes: [:])
    }

    @Test func `R1: a copy is trusted only at home, in this incarnation, by its route, unsuspected and young`() {
        #expect(read(.init(home: here, verifiedAt: 41)) == .trust)
        #expect(read(.init(home: here, verifiedAt: 40)) == .verify)
        #expect(read(.init(home: here, verifiedAt: nil)) == .verify)
        #expect(read(.init(home: here, verifiedAt: 41), route: false) == .verify)
        #expect(read(.init(home: here, isSuspect: true, verifiedAt: 41)) == .load)
        #expect(read(.init(home: earlier, verifiedAt: 41)) == .load)
        #expect(read(.init(home: there, verifiedAt: 41)) == .load)
        #expect(read(nil) == .load)
    }

    @Test func `R1: a node that has not heard of others' changes for two polls verifies`() {
        #expect(read(.init(home: here, verifiedAt: 41), watch: false) == .verify)
    }

    @Test func `where the balancer has no affinity every copy is verified, whoever's home it is`() {
        #expect(read(.init(home: here, verifiedAt: 41), isRoaming: true) == .verify)
        #expect(read(.init(home: there, verifiedAt: 41), route: false, isRoaming: true) == .verify)
        #expect(read(.init(home: there, isSuspect: true, verifiedAt: 41), isRoaming: true) == .load)
    }

    private func look(_ stored: StoredSession?, counter: UInt64?, home: NodeIdentity? = nil, now: Int64 = 500)
        -> WatchDecision
    {
        WatchDecision(
            stored: stored, counter: counter.map(Epoch.init), copy: record(home: home), node: here, now: now)
    }

    @Test func `R17: a copy whose epoch was raised is dropped only once its record is another's`() {
        #expect(look(.record(record()), counter: 5) == .current)
        #expect(look(.record(record()), counter: 6) == .suspect)
        #expect(look(.record(record()), counter: nil) == .suspect)
        #expect(look(.record(record(home: there)), counter: 5) == .drop)
        #expect(look(.record(record(epoch: 6)), counter: 6, home: there) == .suspect)
        // Its own, of which the node is about to hear.
        #expect(look(.record(record(epoch: 6)), counter: 6) == .suspect)
        #expect(look(.tombstone(Tombstone(reason: .expired)), counter: 5) == .drop)
    }

    @Test func `R17: a copy whose record is missing is put back by its home unless it was overtaken`() {
        #expect(look(nil, counter: 5) == .republish)
        #expect(look(nil, counter: nil) == .republish)
        #expect(look(nil, counter: 1 << 32) == .republish)
        #expect(look(nil, counter: 6) == .drop)
        #expect(look(nil, counter: nil, home: there) == .suspect)
        #expect(look(nil, counter: nil, now: 1000) == .current)
    }

    @Test func `R1: a save interval of 0 trusts nothing`() {
        #expect(read(.init(home: here, verifiedAt: 100), saveInterval: 0) == .verify)
    }

    @Test func `R25: while the store is down age does not count, but home, incarnation, route and suspicion do`() {
        #expect(read(.init(home: here, verifiedAt: nil), watch: false, storeIsDown: true) == .trust)
        #expect(read(.init(home: here, verifiedAt: 1), saveInterval: 0, storeIsDown: true) == .trust)
        #expect(read(.init(home: here, verifiedAt: 99), route: false, storeIsDown: true) == .verify)
        #expect(read(.init(home: here, isSuspect: true, verifiedAt: 99), storeIsDown: true) == .load)
        #expect(read(.init(home: earlier, verifiedAt: 99), storeIsDown: true) == .load)
        #expect(read(.init(home: there, verifiedAt: 99), storeIsDown: true) == .load)
        #expect(read(nil, storeIsDown: true) == .load)
    }

    @Test func `R25: unsent changes are used while the store is down and sent first when it is back`() {
        #expect(read(.init(home: here, verifiedAt: 99, hasUnsent: true), storeIsDown: true) == .trust)
        #expect(read(.init(home: here, verifiedAt: 99, hasUnsent: true)) == .deliver)
        #expect(read(.init(home: here, isSuspect: true, verifiedAt: nil, hasUnsent: true)) == .deliver)
        #expect(read(.init(home: here, isSuspect: true, hasUnsent: true), storeIsDown: true) == .load)
    }

    private func load(
        _ stored: StoredSession?, counter: UInt64? = nil, copy: RepublishRule.Copy? = nil, route: Bool = true,
        now: Int64 = 500
    ) -> String {
        let decision = LoadDecision(
            stored: stored, counter: counter.map(Epoch.init), copy: copy, cookieNamesThisNode: route, now: now,
            tolerance: 100)
        return switch decision {
        case .gone: "gone"
        case .expired: "expired"
        case .take: "take"
        case .republish: "republish"
        case .notFound: "not found"
        }
    }

    @Test func `R3: a record is taken until a foreign judge is sure that it has expired`() {
        #expect(load(.record(record(home: there))) == "take")
        #expect(load(.record(record(home: there)), now: 1099) == "take")
        #expect(load(.record(record(home: there)), now: 1100) == "expired")
        #expect(load(.tombstone(Tombstone(reason: .invalidated))) == "gone")
        #expect(load(nil) == "not found")
    }

    @Test func `R18: only a home whose copy nobody has overtaken puts a lost record back`() {
        let making = UInt64(77) << 24
        let copy = RepublishRule.Copy(isHome: true, epoch: Epoch(making | 5), expiresAt: 1000)
        #expect(load(nil, copy: copy) == "republish")
        #expect(load(nil, counter: making | 5, copy: copy) == "republish")
        #expect(load(nil, counter: UInt64(78) << 24, copy: copy) == "republish")
        #expect(load(nil, counter: making | 6, copy: copy) == "not found")
        #expect(load(nil, copy: copy, route: false) == "not found")
        #expect(load(nil, copy: copy, now: 1000) == "not found")
        #expect(load(nil, copy: .init(isHome: false, epoch: Epoch(making | 5), expiresAt: 1000)) == "not found")
    }

    private func commit(_ stored: StoredSession?) -> String {
        switch CommitDecision(stored: stored, home: here, epoch: Epoch(5)) {
        case .adopt: "adopt"
        case .merge: "merge"
        case .gone: "gone"
        case .missing: "missing"
        }
    }

    @Test func `R8, R9: a token is adopted only with the copy's own home and epoch, else the change is merged`() {
        #expect(commit(.record(record())) == "adopt")
        #expect(commit(.record(record(epoch: 6))) == "merge")
        #expect(commit(.record(record(home: there))) == "merge")
        #expect(commit(.record(record(home: earlier))) == "merge")
        #expect(commit(.tombstone(Tombstone(reason: .invalidated))) == "gone")
        #expect(commit(nil) == "missing")
    }

    private func end(_ stored: StoredSession?, _ nonce: Tombstone.Nonce) -> String {
        switch EndDecision(stored: stored, nonce: nonce) {
        case .won: "won"
        case .lost: "lost"
        case .bury: "bury"
        case .plant: "plant"
        }
    }

    @Test func `R15: the nonce tells whose end it is`() {
        let own = Tombstone(reason: .invalidated)
        #expect(end(.tombstone(own), own.nonce) == "won")
        #expect(end(.tombstone(Tombstone(reason: .invalidated)), own.nonce) == "lost")
        #expect(end(.record(record()), own.nonce) == "bury")
        #expect(end(nil, own.nonce) == "plant")
    }

    @Test func `R14: the access time is due after a save interval, and always with 0`() {
        #expect(!AccessRule.isDue(accessedAt: 159, savedAt: 100, saveInterval: 60))
        #expect(AccessRule.isDue(accessedAt: 160, savedAt: 100, saveInterval: 60))
        #expect(AccessRule.isDue(accessedAt: 100, savedAt: 100, saveInterval: 0))
    }

    @Test func `a fresh epoch is of its own making, beyond all it follows, whatever the clock says`() {
        let now = Epoch(wallMilliseconds: 1_700_000_000_000)
        #expect(now.value >> 32 == 1_700_000_000)
        #expect(now.value & 0xFF_FFFF == 0)
        let behind = Epoch(wallMilliseconds: 1000, after: [now])
        #expect(behind > now)
        #expect(behind.incarnation != now.incarnation)
        let ahead = Epoch(wallMilliseconds: 1_700_000_100_000, after: [now])
        #expect(ahead.value >> 32 == 1_700_000_100)
    }

    @Test func `an epoch survives its text, padded by the store or not`() {
        let epoch = Epoch(wallMilliseconds: 1_700_000_000_000)
        #expect(Epoch(ascii: epoch.ascii) == epoch)
        #expect(Epoch(ascii: Array("12  ".utf8)) == Epoch(12))
        for wrong in ["", " 1", "-1", "1x", "99999999999999999999"] { #expect(Epoch(ascii: Array(wrong.utf8)) == nil) }
    }
}
