import Foundation
import LimpetTesting
import Testing

@testable import Limpet

/// What stands for a session in logs and databases.
struct SessionFingerprintTests {
    @Test func `it is the SHA-256 of the id as it stands in the cookie`() throws {
        let id = try #require(SessionID(String(repeating: "A", count: 24).utf8))
        #expect(SessionFingerprint(id).description == "G9qfCu2AhX1DyTKUV_KLHKKfc2oMU5kB4boWqQnrB7Q")
    }

    @Test func `it is the same on all nodes, in the events and in the store's keys`() async throws {
        let cluster = Cluster()
        let a = try cluster.node("a")
        let b = try cluster.node("b")
        let client = Client()
        let own = try await a.request(client) { session in
            session[.count] = 1
            return session.fingerprint
        }
        #expect(try await b.request(client) { $0.fingerprint } == own)
        try await b.request(client) { $0.invalidate() }
        #expect(a.events.sessions == [own])
        #expect(b.events.sessions == [own])
        #expect(a.store.calls.contains { $0.description.hasSuffix("d/\(own) absent") })
    }

    @Test func `it changes with the id, and an end is told by the last one`() async throws {
        let cluster = Cluster()
        let a = try cluster.node("a")
        let client = Client()
        let first = try await a.request(client) { session in
            session[.count] = 1
            return session.fingerprint
        }
        try await a.request(client) { $0.rotateID() }
        let second = try await a.request(client) { $0.fingerprint }
        #expect(first != second)
        cluster.clock.advance(by: .seconds(1800))
        await a.sessions.scavenge()
        #expect(a.events.all == ["created", "expired"])
        #expect(a.events.sessions == [first, second])
    }

    @Test func `it is read as it is written, and nothing else is`() throws {
        let fingerprint = SessionFingerprint(SessionID())
        #expect(SessionFingerprint("\(fingerprint)") == fingerprint)
        let json = try JSONEncoder().encode([fingerprint])
        #expect(String(decoding: json, as: UTF8.self) == #"["\#(fingerprint)"]"#)
        #expect(try JSONDecoder().decode([SessionFingerprint].self, from: json) == [fingerprint])
        let zeros = String(repeating: "A", count: 42)
        #expect(SessionFingerprint(zeros + "A") != nil)
        for text in [
            "", zeros, zeros + "AA", zeros + "B", zeros + "=", zeros + "/", zeros + "+", zeros + " ", zeros + "ä",
        ] {
            #expect(SessionFingerprint(text) == nil, "\(text)")
        }
        #expect(throws: DecodingError.self) {
            try JSONDecoder().decode([SessionFingerprint].self, from: Data(#"["x"]"#.utf8))
        }
    }
}
