import Testing

@testable import Limpet

/// The directory of nodes as a value, and what is done with what the store has of it.
struct DirectoryTests {
    private let a = NodeIdentity(name: "a", incarnation: 1)

    private func directory(_ lineage: UInt64, _ members: [String: UInt64]) -> Directory {
        Directory(lineage: lineage, members: members.mapValues { .init(incarnation: $0) })
    }

    @Test func `presence, directory and roster read back what was written`() throws {
        let presence = Presence(
            node: a, startedAt: 5, beatenAt: 6, heartbeat: 7, sessions: 8, through: [0: .max, 3: 4])
        #expect(try Presence(bytes: try presence.bytes(), of: "a") == presence)
        let error = #expect(throws: StoreError.self) { try Presence(bytes: try presence.bytes(), of: "b") }
        #expect(error?.code == .corrupt)
        var directory = directory(9, ["a": 1, "b": 2])
        directory.members["b"]?.hasLeft = true
        #expect(try Directory(bytes: try directory.bytes()) == directory)
    }

    @Test func `of the same lineage the store's is right, nodes that were removed stay so`() {
        let remembered = directory(1, ["a": 1, "b": 1])
        let stored = directory(1, ["a": 1])
        #expect(Directory.merging(stored, remembered) == stored)
        #expect(DirectoryDecision(stored: stored, remembered: remembered, node: a, hasWaited: false) == .learn)
    }

    @Test func `of another lineage it may lack nodes that others know`() {
        let remembered = directory(1, ["a": 1, "b": 1])
        let stored = directory(2, ["a": 1, "c": 1])
        #expect(Directory.merging(stored, remembered) == directory(2, ["a": 1, "b": 1, "c": 1]))
        #expect(DirectoryDecision(stored: stored, remembered: remembered, node: a, hasWaited: false) == .mend)
    }

    @Test func `a node puts its own entry right`() {
        #expect(
            DirectoryDecision(stored: directory(1, ["b": 1]), remembered: nil, node: a, hasWaited: false) == .mend)
        #expect(
            DirectoryDecision(stored: directory(1, ["a": 2]), remembered: nil, node: a, hasWaited: false) == .mend)
        #expect(
            DirectoryDecision(stored: directory(1, ["a": 1]), remembered: nil, node: a, hasWaited: false) == .learn)
    }

    @Test func `one that is missing is put back by who knows it, and made by others after a wait`() {
        #expect(
            DirectoryDecision(stored: nil, remembered: directory(1, ["a": 1]), node: a, hasWaited: false) == .make)
        #expect(DirectoryDecision(stored: nil, remembered: nil, node: a, hasWaited: false) == .wait)
        #expect(DirectoryDecision(stored: nil, remembered: nil, node: a, hasWaited: true) == .make)
    }
}
