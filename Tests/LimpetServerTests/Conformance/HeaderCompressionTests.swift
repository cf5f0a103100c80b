import Testing

@testable import LimpetServer

/// RFC 7541: errors of header compression. Each is a connection error COMPRESSION_ERROR (RFC 9113, section 4.3).
@Suite struct `Header compression` {
    private static let error = Reaction.connectionError(.compressionError)

    private func reaction(_ bytes: [UInt8]) throws -> Reaction {
        try LimpetServerTests.reaction(to: .block(1, requestBlock() + bytes))
    }

    // MARK: 2.3.3 and 6

    @Test func `RFC 7541 6.1: index 0 is an error`() throws {
        #expect(try reaction([0x80]) == Self.error)
    }

    @Test(arguments: [[0xbe], [0xff, 0x00], [0xff, 0x80, 0x01], [0xff, 0xff, 0xff, 0x07]] as [[UInt8]])
    func `RFC 7541 2.3.3: an index beyond the tables is an error`(bytes: [UInt8]) throws {
        #expect(try reaction(bytes) == Self.error)
    }

    @Test(arguments: [UInt8(0x7e), 0x0f, 0x1f])
    func `RFC 7541 6.2: the name of a literal has an index within the tables`(first: UInt8) throws {
        let index: [UInt8] = first == 0x7e ? [first] : [first, 62 - 15]
        #expect(try reaction(index + Frame.literal("1")) == Self.error)
    }

    @Test func `RFC 7541 2.3: an entry of the dynamic table can be used`() throws {
        let entry: [UInt8] = [0x40] + Frame.literal("x") + Frame.literal("1")
        #expect(try reaction(entry + [0xbe]) == .response(1, status: 200))
    }

    @Test func `RFC 7541 4.4: an entry larger than the table empties it`() throws {
        let small: [UInt8] = [0x40] + Frame.literal("x") + Frame.literal("1")
        let large: [UInt8] = [0x40] + Frame.literal("x") + Frame.literal(String(repeating: "a", count: 4096))
        #expect(try reaction(small + large) == .response(1, status: 200))
        #expect(try reaction(small + large + [0xbe]) == Self.error)
    }

    // MARK: 4.2 and 6.3

    @Test func `RFC 7541 6.3: a table size over the announced one is an error`() throws {
        // 4096 is allowed: nothing else was announced.
        let allowed: [UInt8] = [0x3f, 0xe1, 0x1f]
        let tooLarge: [UInt8] = [0x3f, 0xe2, 0x1f]
        #expect(try LimpetServerTests.reaction(to: .block(1, allowed + requestBlock())) == .response(1, status: 200))
        #expect(try LimpetServerTests.reaction(to: .block(1, tooLarge + requestBlock())) == Self.error)
    }

    @Test func `RFC 7541 4.2: a table size changes only at the start of a block`() throws {
        #expect(try reaction([0x20]) == Self.error)
        #expect(try reaction([0x20] + Frame.field("x", "1")) == Self.error)
        #expect(
            try LimpetServerTests.reaction(to: .block(1, [0x20, 0x3f, 0xe1, 0x1f] + requestBlock()))
                == .response(1, status: 200))
    }

    // MARK: 5.1

    @Test(
        arguments: [
            [0xff, 0xff, 0xff, 0xff, 0xff, 0x0f], [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f],
            [0x00, 0x7f, 0xff, 0xff, 0xff, 0xff, 0x0f],
            [0x00, 0x7f, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80],
        ] as [[UInt8]])
    func `RFC 7541 5.1: an integer that is too large is an error`(bytes: [UInt8]) throws {
        #expect(try reaction(bytes) == Self.error)
    }

    // MARK: 5.2

    @Test func `RFC 7541 5.2: a Huffman-coded string is read`() throws {
        // "a" is 00011, and three bits of padding.
        #expect(try reaction([0x00] + Frame.literal("x") + [0x81, 0x1f]) == .response(1, status: 200))
    }

    @Test(
        arguments: [
            [0x82, 0x1f, 0xff],  // padding of 11 bits
            [0x81, 0x18],  // padding of zeros
            [0x81, 0x1e],  // padding that is not all ones
            [0x81, 0xff],  // padding of 8 bits and nothing else
            [0x84, 0xff, 0xff, 0xff, 0xff],  // EOS, 30 ones
            [0x85, 0x1f, 0xff, 0xff, 0xff, 0xff],  // EOS behind an "a"
        ] as [[UInt8]])
    func `RFC 7541 5.2: Huffman padding is the shortest prefix of EOS`(value: [UInt8]) throws {
        #expect(try reaction([0x00] + Frame.literal("x") + value) == Self.error)
    }

    // MARK: A block that ends too early

    @Test func `RFC 9113 4.3: a block that ends in the middle of a field is an error`() throws {
        let field: [UInt8] = Frame.field("name", String(repeating: "v", count: 200))
        for length in 1..<field.count {
            #expect(try reaction(Array(field.prefix(length))) == Self.error)
        }
    }

    @Test func `RFC 7541 2.1: every representation is read, in pieces of a byte`() throws {
        let fields: [UInt8] =
            [0x40] + Frame.literal("x") + Frame.literal("1") + [0xbe] + Frame.field("y", "2")
            + [0x10] + Frame.literal("z") + Frame.literal("3") + [0x0f, 0x11] + Frame.literal("agent")
        let connection = try RawConnection()
        for byte in Frame.block(1, requestBlock() + fields).bytes { try connection.send(bytes: [byte]) }
        #expect(try connection.reaction() == .response(1, status: 200))
        try connection.finish()
    }
}
