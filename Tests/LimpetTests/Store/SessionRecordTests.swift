import LimpetTesting
import Testing

@testable import Limpet

/// What stands in the store, as a newer version, or one in another language, writes and reads it.
struct SessionRecordTests {
    /// Fields that this version does not know: an entry's, a record's and an attribute's.
    private static let unknown = (
        entry: WireFields.Field.number(100, 71), record: WireFields.Field.number(100, 72),
        attribute: WireFields.Field.number(100, 73)
    )

    /// Changes the stored record of the only session, and returns its key.
    @discardableResult
    private func rewrite(
        _ cluster: Cluster, _ change: (inout WireFields) -> Void
    ) async throws -> StoreKey {
        let key = try #require(cluster.store.calls.first { $0.kind == .put && $0.description.contains("put d/") }).keys[
            0]
        var entry = WireFields(try await bytes(cluster, key))
        change(&entry)
        _ = try await cluster.store.put(entry.bytes, for: key, timeToLive: .seconds(100_000), if: .always)
        return key
    }

    private func bytes(_ cluster: Cluster, _ key: StoreKey) async throws -> [UInt8] {
        try #require(try await cluster.store.get([key])[0].get()).bytes
    }

    /// Adds the unknown fields on every level.
    private func addUnknown(_ entry: inout WireFields) {
        entry.update(2) { record in
            record.update(10) { $0.fields.append(Self.unknown.attribute) }
            record.fields.append(Self.unknown.record)
        }
        entry.fields.append(Self.unknown.entry)
    }

    private func expectUnknown(_ bytes: [UInt8], sourceLocation: SourceLocation = #_sourceLocation) {
        let entry = WireFields(bytes)
        let record = entry.message(2)
        #expect(entry.fields.contains(Self.unknown.entry), sourceLocation: sourceLocation)
        #expect(record?.fields.contains(Self.unknown.record) == true, sourceLocation: sourceLocation)
        let user = record?.messages(10).first { $0.text(1) == "user" }
        #expect(user?.fields.contains(Self.unknown.attribute) == true, sourceLocation: sourceLocation)
    }

    @Test func `what a newer version wrote on any level survives all that this one does`() async throws {
        let cluster = Cluster()
        let a = try cluster.node("a")
        let b = try cluster.node("b")
        let client = Client()
        try await a.request(client) { $0[.user] = "ann" }
        let key = try await rewrite(cluster, addUnknown)
        // A takeover, a commit, a merge, a loss of memory.
        try await b.request(client) { #expect($0[.user] == "ann") }
        expectUnknown(try await bytes(cluster, key))
        try await b.request(client) { $0[.count] = 1 }
        expectUnknown(try await bytes(cluster, key))
        let cookie = client.cookie
        try await b.request(client) { session in
            session[.count] = 2
            try await a.request(Client(), cookie: cookie) { $0[.other] = 3 }
        }
        #expect(b.sessions.statistics.merges == 1)
        expectUnknown(try await bytes(cluster, key))
        try await cluster.store.lose("d/")
        try await b.request(client) { $0[.count] = 4 }
        expectUnknown(try await bytes(cluster, key))
        // A change of the id: under the new one, and in what the old one may read, but for the entry around it.
        cluster.store.forgetCalls()
        try await b.request(client) { $0.rotateID() }
        let new = try #require(cluster.store.calls.first { $0.description.contains("put d/") }).keys[0]
        #expect(new != key)
        expectUnknown(try await bytes(cluster, new))
        let alias = WireFields(try await bytes(cluster, key)).message(3)?.message(4)
        #expect(alias?.fields.contains(Self.unknown.record) == true)
    }

    @Test func `an attribute of a codec that only a newer version knows is carried, and reads as absent`() async throws
    {
        let cluster = Cluster()
        let client = Client()
        try await cluster.node("a").request(client) { session in
            session[.user] = "ann"
            session[.count] = 1
        }
        let key = try await rewrite(cluster) { entry in
            entry.update(2) { record in
                record.update(10, where: { $0.text(1) == "user" }) {
                    $0.fields = [$0.fields[0], .number(2, 9), .bytes(3, [1, 2])]
                }
            }
        }
        let b = try cluster.node("b")
        try await b.request(client) { session in
            #expect(session[.user] == nil)
            #expect(session[.count] == 1)
            session[.count] = 2
        }
        #expect(b.sessions.statistics.undecodable == 1)
        let user = WireFields(try await bytes(cluster, key)).message(2)?.messages(10).first { $0.text(1) == "user" }
        #expect(user?.fields.contains(.number(2, 9)) == true)
        #expect(user?.fields.contains(.bytes(3, [1, 2])) == true)
        // Until it is overwritten.
        try await b.request(client) { $0[.user] = "bob" }
        try await cluster.node("c").request(client) { #expect($0[.user] == "bob") }
    }

    @Test func `an entry of a kind that only a newer version knows is no missing session, and is never overwritten`()
        async throws
    {
        let cluster = Cluster()
        let a = try cluster.node("a", saveInterval: .zero)
        let b = try cluster.node("b")
        let client = Client()
        try await a.request(client) { $0[.user] = "ann" }
        let key = try await rewrite(cluster) { entry in
            entry.fields = [entry.fields[0], .bytes(4, [1, 2, 3])]
        }
        let before = try await bytes(cluster, key)
        let deeds: [@Sendable (Session) -> Void] = [
            { $0[.user] = "bob" }, { $0.maxInactive = .seconds(1) }, { $0.rotateID() }, { $0.invalidate() },
        ]
        for (index, deed) in deeds.enumerated() {
            for node in [a, b] {
                // Where a copy in memory is still trusted, only what is written meets the entry.
                let error = await #expect(throws: SessionError.self, "\(index)") {
                    try await node.request(Client(), cookie: client.cookie) { deed($0) }
                }
                #expect(error?.code == .storeUnavailable)
                #expect(try await bytes(cluster, key) == before)
            }
        }
        await #expect(throws: SessionError.self) { try await b.request(client) { _ in } }
        #expect(client.cookie != nil)
        cluster.clock.advance(by: .seconds(1801))
        await a.sessions.scavenge()
        #expect(a.events.all + b.events.all == ["created"])
    }

    @Test func `of two attributes with one name the last one counts`() async throws {
        let cluster = Cluster()
        let client = Client()
        try await cluster.node("a").request(client) { session in
            session[.user] = "ann"
            session[.count] = 1
        }
        let key = try await rewrite(cluster) { entry in
            entry.update(2) { record in
                record.fields.append(
                    .message(
                        10,
                        WireFields([.bytes(1, Array("user".utf8)), .number(2, 1), .bytes(3, Array(#""bob""#.utf8))])))
            }
        }
        let b = try cluster.node("b")
        try await b.request(client) { session in
            #expect(session[.user] == "bob")
            #expect(session[.count] == 1)
        }
        let names = WireFields(try await bytes(cluster, key)).message(2)?.messages(10).map { $0.text(1) }
        #expect(names == ["count", "user"])
    }

    @Test func `an end for a reason that only a newer version knows is an end`() async throws {
        let cluster = Cluster()
        let client = Client()
        try await cluster.node("a").request(client) { $0[.user] = "ann" }
        let key = try await rewrite(cluster) { entry in
            entry.fields = [
                entry.fields[0], .message(3, WireFields([.number(3, 99), .number(100, 1)])), .number(100, 2),
            ]
        }
        let before = try await bytes(cluster, key)
        let b = try cluster.node("b")
        try await b.request(Client(), cookie: client.cookie) { session in
            #expect(session.isNew)
            session[.user] = "bob"
        }
        #expect(try await bytes(cluster, key) == before)
    }

    @Test func `to a version that knows no readable old ids a change of the id is a plain end`() async throws {
        let cluster = Cluster()
        let a = try cluster.node("a")
        let client = Client()
        try await a.request(client) { $0[.user] = "ann" }
        let key = try await rewrite(cluster) { _ in }
        try await cluster.node("b").request(client) { $0.rotateID() }
        let tombstone = try #require(WireFields(try await bytes(cluster, key)).message(3))
        // Two halves of a nonce, the reason, and what such a version leaves aside.
        #expect(tombstone.fields.map(\.number) == [1, 2, 3, 4, 5])
        #expect(tombstone.fields[2] == .number(3, 3))
        #expect(tombstone.message(4)?.messages(10).map { $0.text(1) } == ["user"])
    }
}

/// The fields of a message in the encoding of Protocol Buffers, read and written without its library.
struct WireFields {
    struct Field: Equatable {
        let number: Int
        let kind: UInt8
        /// A number's or a fixed number's own encoding; the content of bytes.
        let content: [UInt8]

        var bytes: [UInt8] {
            WireFields.varint(UInt64(number << 3) | UInt64(kind))
                + (kind == 2 ? WireFields.varint(UInt64(content.count)) : []) + content
        }

        static func number(_ number: Int, _ value: UInt64) -> Field {
            Field(number: number, kind: 0, content: WireFields.varint(value))
        }
        static func bytes(_ number: Int, _ content: [UInt8]) -> Field {
            Field(number: number, kind: 2, content: content)
        }
        static func message(_ number: Int, _ fields: WireFields) -> Field { bytes(number, fields.bytes) }
    }

    var fields: [Field]

    init(_ fields: [Field]) { self.fields = fields }

    init(_ bytes: [UInt8]) {
        fields = []
        var rest = bytes[...]
        func varint() -> [UInt8] {
            let end = (rest.firstIndex { $0 < 0x80 } ?? rest.endIndex - 1) + 1
            defer { rest = rest[end...] }
            return Array(rest[..<end])
        }
        while !rest.isEmpty {
            let tag = Self.value(varint())
            let kind = UInt8(tag & 7)
            let content: [UInt8]
            switch kind {
            case 0: content = varint()
            case 1: content = Array(rest.prefix(8)); rest = rest.dropFirst(8)
            default:
                let count = Int(Self.value(varint()))
                content = Array(rest.prefix(count))
                rest = rest.dropFirst(count)
            }
            fields.append(Field(number: Int(tag >> 3), kind: kind, content: content))
        }
    }

    var bytes: [UInt8] { fields.flatMap(\.bytes) }

    func messages(_ number: Int) -> [WireFields] {
        fields.filter { $0.number == number }.map { WireFields($0.content) }
    }
    func message(_ number: Int) -> WireFields? { messages(number).first }
    func text(_ number: Int) -> String? {
        fields.first { $0.number == number }.map { String(decoding: $0.content, as: UTF8.self) }
    }

    mutating func update(
        _ number: Int, where isWanted: (WireFields) -> Bool = { _ in true }, _ change: (inout WireFields) -> Void
    ) {
        for index in fields.indices where fields[index].number == number {
            var message = WireFields(fields[index].content)
            guard isWanted(message) else { continue }
            change(&message)
            fields[index] = .message(number, message)
        }
    }

    private static func value(_ varint: [UInt8]) -> UInt64 {
        varint.reversed().reduce(0) { $0 << 7 | UInt64($1 & 0x7F) }
    }

    static func varint(_ value: UInt64) -> [UInt8] {
        var (rest, bytes) = (value, [UInt8]())
        repeat {
            bytes.append(UInt8(rest & 0x7F) | (rest > 0x7F ? 0x80 : 0))
            rest >>= 7
        } while rest > 0
        return bytes
    }
}
