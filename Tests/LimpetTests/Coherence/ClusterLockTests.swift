import Testing

@testable import Limpet

/// What a node decides about a lock of the cluster, without a store.
struct ClusterLockTests {
    private let node = NodeIdentity(name: "a", incarnation: 1)
    private let other = NodeIdentity(name: "b", incarnation: 2)
    private let lease: UInt64 = 5_000

    private func presence(_ heartbeat: UInt64, incarnation: UInt64 = 2) -> Presence {
        Presence(
            node: NodeIdentity(name: "b", incarnation: incarnation), startedAt: 0, beatenAt: 0, heartbeat: heartbeat,
            sessions: 0, through: [:])
    }

    @Test func `a lock survives the store`() throws {
        for lock in [ClusterLock.free, .held(.init(node: other, number: .max))] {
            #expect(try ClusterLock(bytes: lock.bytes) == lock)
        }
        for bytes in ["", "free ", "b 2", "b x 1", "b 2 1 "] {
            #expect(throws: StoreError.self) { try ClusterLock(bytes: Array(bytes.utf8)) }
        }
    }

    @Test func `only a lock that is free, lost, one's own or of a node that is gone is taken`() {
        func decision(
            _ found: ClusterLock?, _ holder: PeerSighting.Standing = .alive, yields: Bool = false
        ) -> ClusterLockDecision {
            ClusterLockDecision(found: found, node: node, holder: holder, yields: yields)
        }
        #expect(decision(nil) == .take(.missing))
        #expect(decision(.free) == .take(.free))
        #expect(decision(.free, yields: true) == .wait)
        #expect(decision(.held(.init(node: node, number: 7))) == .take(.own))
        #expect(decision(.held(.init(node: other, number: 7))) == .wait)
        #expect(decision(.held(.init(node: other, number: 7)), .unsure) == .wait)
        #expect(decision(.held(.init(node: other, number: 7)), .lapsed) == .take(.lapsed))
        // An earlier start of this node is another holder.
        let earlier = NodeIdentity(name: "a", incarnation: 3)
        #expect(decision(.held(.init(node: earlier, number: 7)), .unsure) == .wait)
    }

    @Test func `all but a lock that was let go may have a holder that still writes`() {
        #expect(!ClusterLockTaking.free.needsFence)
        for taking in [ClusterLockTaking.own, .lapsed, .missing] { #expect(taking.needsFence) }
    }

    @Test func `a node trusts its locks until a second and a half before its lease ends`() {
        let second: UInt64 = 1_000_000_000
        var trust = LeaseTrust(lease: .seconds(5))
        #expect(!trust.holds(at: 0))
        let first = trust.beat(begunAt: 10 * second, acknowledgedAt: 11 * second)
        #expect(!first)
        #expect(trust.since == 11 * second)
        #expect(trust.holds(at: 13 * second))
        #expect(!trust.holds(at: 13 * second + second / 2))
        // In time: what it held it holds.
        let second2 = trust.beat(begunAt: 13 * second, acknowledgedAt: 13 * second + 1)
        #expect(!second2)
        #expect(trust.since == 11 * second)
        // Too late, though it was begun in time.
        let third = trust.beat(begunAt: 14 * second, acknowledgedAt: 17 * second)
        #expect(third)
        #expect(trust.since == 17 * second)
    }

    @Test func `a holder is gone after a lease without a beat, and another start of its node is no sign of life`() {
        var sighting = PeerSighting()
        func look(_ found: Presence?, _ time: UInt64) -> PeerSighting.Standing {
            sighting.look(found, at: other, asked: time, answered: time, lease: lease)
        }
        #expect(look(presence(1), 100) == .alive)
        #expect(look(presence(1), 5_099) == .alive)
        #expect(look(presence(1), 5_100) == .lapsed)
        #expect(look(presence(2), 5_200) == .alive)
        for time in stride(from: UInt64(5_300), to: 10_200, by: 250) {
            #expect(look(presence(1, incarnation: 9), time) != .lapsed)
        }
        #expect(look(presence(2, incarnation: 9), 10_200) == .lapsed)
    }

    @Test func `a process that stood still after the answer does not take the time for silence`() {
        var sighting = PeerSighting()
        #expect(sighting.look(presence(1), at: other, asked: 100, answered: 101, lease: lease) == .alive)
        #expect(sighting.look(presence(1), at: other, asked: 1_000, answered: 60_000, lease: lease) == .alive)
    }

    @Test func `of two that look at once neither takes the other's answer for the past`() {
        var sighting = PeerSighting()
        #expect(sighting.look(presence(1), at: other, asked: 100, answered: 103, lease: lease) == .alive)
        #expect(sighting.look(presence(1), at: other, asked: 99, answered: 104, lease: lease) == .alive)
    }
}
