import Testing

@testable import Limpet

/// When a node that gives no sign of life counts as gone, on the clock of the node that looks.
struct SightingTests {
    private let lease: UInt64 = 10
    private let node = NodeIdentity(name: "b", incarnation: 1)

    private func presence(_ heartbeat: UInt64, incarnation: UInt64 = 1) -> Presence {
        Presence(
            node: NodeIdentity(name: "b", incarnation: incarnation), startedAt: 0, beatenAt: 0, heartbeat: heartbeat,
            sessions: 0, through: [:])
    }

    @Test func `a presence that is missing at first sight counts as gone after a whole lease`() {
        var sighting = PeerSighting()
        for now in stride(from: UInt64(100), to: 110, by: 3) {
            sighting.see(nil, at: now, lease: lease)
            #expect(sighting.standing(at: now, lease: lease) == .unsure)
        }
        sighting.see(nil, at: 110, lease: lease)
        #expect(sighting.standing(at: 110, lease: lease) == .lapsed)
    }

    @Test func `a presence that stands still counts as gone after a lease, and stays so when its time to live ends`() {
        var sighting = PeerSighting()
        sighting.see(presence(7), at: 100, lease: lease)
        sighting.see(presence(7), at: 109, lease: lease)
        #expect(sighting.standing(at: 109, lease: lease) == .alive)
        sighting.see(presence(7), at: 110, lease: lease)
        #expect(sighting.standing(at: 110, lease: lease) == .lapsed)
        sighting.see(nil, at: 112, lease: lease)
        #expect(sighting.standing(at: 112, lease: lease) == .lapsed)
    }

    @Test func `a beat, or another start of the node, is a sign of life`() {
        var sighting = PeerSighting()
        let first = sighting.see(presence(7), at: 100, lease: lease)
        #expect(!first)
        let second = sighting.see(presence(8), at: 108, lease: lease)
        #expect(second)
        #expect(sighting.standing(at: 117, lease: lease) == .alive)
        let restarted = sighting.see(presence(8, incarnation: 2), at: 118, lease: lease)
        #expect(!restarted)
        #expect(sighting.standing(at: 127, lease: lease) == .alive)
    }

    @Test func `what went missing while nobody looked has not been missing all the time`() {
        var sighting = PeerSighting()
        sighting.see(presence(7), at: 100, lease: lease)
        // This node stood still; the store lost its memory just now.
        sighting.see(nil, at: 200, lease: lease)
        #expect(sighting.standing(at: 200, lease: lease) == .unsure)
        sighting.see(presence(60), at: 203, lease: lease)
        #expect(sighting.standing(at: 203, lease: lease) == .alive)
    }

    @Test func `a store that cannot be asked is no evidence`() {
        var sighting = PeerSighting()
        sighting.see(nil, at: 100, lease: lease)
        sighting.see(nil, at: 108, lease: lease)
        sighting.cannotSee()
        #expect(sighting.standing(at: 111, lease: lease) == .unsure)
        sighting.see(nil, at: 112, lease: lease)
        #expect(sighting.standing(at: 112, lease: lease) == .unsure)
        sighting.see(nil, at: 121, lease: lease)
        sighting.see(nil, at: 122, lease: lease)
        #expect(sighting.standing(at: 122, lease: lease) == .lapsed)
    }
}
