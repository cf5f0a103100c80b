import NIOCore
import Testing

@testable import LimpetMemcached

struct MetaReplyParserTests {
    /// One of each, as memcached 1.6 sends them.
    private static let replies: [(text: String, reply: MetaReply)] = [
        (
            "VA 3 c18446744073709551615 Offffffff\r\none\r\n",
            MetaReply(kind: .value(Array("one".utf8)), token: .max, mark: .max)
        ),
        ("VA 0 c1 O1\r\n\r\n", MetaReply(kind: .value([]), token: 1, mark: 1)),
        ("VA 6 O2\r\nVA 1\r\n\r\n", MetaReply(kind: .value(Array("VA 1\r\n".utf8)), mark: 2)),
        ("VA 2\r\n42\r\n", MetaReply(kind: .value(Array("42".utf8)))),
        ("HD c7 O3\r\n", MetaReply(kind: .done, token: 7, mark: 3)),
        ("HD\r\n", MetaReply(kind: .done)),
        ("EN O1f\r\n", MetaReply(kind: .miss, mark: 31)),
        ("NS c0 O4\r\n", MetaReply(kind: .notStored, mark: 4)),
        ("EX c0 O5\r\n", MetaReply(kind: .exists, mark: 5)),
        ("NF O6\r\n", MetaReply(kind: .notFound, mark: 6)),
        ("HD t-1 W O7 X sabc c8\r\n", MetaReply(kind: .done, token: 8, mark: 7)),
        ("MN\r\n", MetaReply(kind: .noop)),
        ("STORED\r\n", MetaReply(kind: .done)),
        ("NOT_STORED\r\n", MetaReply(kind: .notStored)),
        ("EXISTS\r\n", MetaReply(kind: .exists)),
        ("NOT_FOUND\r\n", MetaReply(kind: .notFound)),
        ("STAT item_size_max 1048576\r\n", MetaReply(kind: .statistic("item_size_max", "1048576"))),
        ("STAT inter \r\n", MetaReply(kind: .statistic("inter", ""))),
        ("STAT inter\r\n", MetaReply(kind: .statistic("inter", ""))),
        ("STAT socket /a b\r\n", MetaReply(kind: .statistic("socket", "/a b"))),
        ("END\r\n", MetaReply(kind: .end)),
        ("ERROR\r\n", MetaReply(kind: .refusal(.unknownCommand))),
        ("OK c1 O1\r\n", MetaReply(kind: .refusal(.unknownCommand), token: 1, mark: 1)),
        ("CLIENT_ERROR unauthenticated\r\n", MetaReply(kind: .refusal(.unauthenticated))),
        (
            "CLIENT_ERROR cannot increment or decrement non-numeric value\r\n",
            MetaReply(kind: .refusal(.notANumber))
        ),
        ("CLIENT_ERROR bad data chunk\r\n", MetaReply(kind: .refusal(.client))),
        ("SERVER_ERROR object too large for cache\r\n", MetaReply(kind: .refusal(.tooLarge))),
        ("SERVER_ERROR out of memory storing object\r\n", MetaReply(kind: .refusal(.outOfMemory))),
        ("SERVER_ERROR\r\n", MetaReply(kind: .refusal(.server))),
    ]

    /// Feeds pieces, and takes what is complete after each.
    private func parse(_ pieces: [[UInt8]]) throws -> [MetaReply] {
        var parser = MetaReplyParser()
        var replies: [MetaReply] = []
        for piece in pieces {
            parser.feed(ByteBuffer(bytes: piece))
            while let reply = try parser.next() { replies.append(reply) }
        }
        #expect(parser.isEmpty)
        return replies
    }

    @Test(arguments: replies.map(\.text)) func `a reply is read as it stands`(text: String) throws {
        let expected = try #require(Self.replies.first { $0.text == text }?.reply)
        #expect(try parse([Array(text.utf8)]) == [expected])
    }

    @Test func `replies are the same wherever the bytes are split`() throws {
        let bytes = Self.replies.flatMap { Array($0.text.utf8) }
        let expected = Self.replies.map(\.reply)
        #expect(try parse([bytes]) == expected)
        #expect(try parse(bytes.map { [$0] }) == expected)
        for first in 0...bytes.count {
            #expect(try parse([Array(bytes[..<first]), Array(bytes[first...])]) == expected, "split at \(first)")
            // A piece of three bytes in between: a rest is fed to more than once.
            let second = min(first + 3, bytes.count)
            let pieces = [bytes[..<first], bytes[first..<second], bytes[second...]]
            #expect(try parse(pieces.map(Array.init)) == expected, "split at \(first) and \(second)")
        }
    }

    @Test func `a value of many pieces comes out whole`() throws {
        let value = (0..<1_000_000).map { UInt8(truncatingIfNeeded: $0 &* 31 >> 3) }
        let bytes = Array("EN O1\r\nVA 1000000 c5 O2\r\n".utf8) + value + Array("\r\nEN O3\r\n".utf8)
        let pieces = stride(from: 0, to: bytes.count, by: 4093).map { Array(bytes[$0..<min($0 + 4093, bytes.count)]) }
        let replies = try parse(pieces)
        #expect(replies.count == 3)
        #expect(replies[1] == MetaReply(kind: .value(value), token: 5, mark: 2))
    }

    @Test(arguments: [
        ("HD\n", MetaReplyProblem.brokenLine), ("\r\n", .unknownReply), ("\n", .brokenLine), (" HD\r\n", .unknownReply),
        ("hd\r\n", .unknownReply), ("HX\r\n", .unknownReply), ("H\r\n", .unknownReply),
        ("VALUE a 0 3\r\n", .unknownReply), ("42\r\n", .unknownReply), ("STAT\r\n", .unknownReply),
        ("VA\r\n", .brokenLine), ("VA \r\n", .brokenLine), ("VA x\r\n", .brokenLine), ("VA -1\r\n", .brokenLine),
        ("VA 3x O1\r\n", .brokenLine), ("VA 99999999999999999999 O1\r\n", .brokenLine),
        ("VA 18446744073709551615 O1\r\n", .valueTooLong), ("VA 9223372036854775807 O1\r\n", .valueTooLong),
        ("VA 1073741825 O1\r\n", .valueTooLong), ("VA 3 O1\r\nfour\r\n", .valueNotEnded),
        ("VA 3 O1\r\no\r\nEN\r\n", .valueNotEnded), ("HD  O1\r\n", .brokenLine), ("HD \r\n", .brokenLine),
        ("HD c\r\n", .brokenLine), ("HD cx\r\n", .brokenLine), ("HD c18446744073709551616\r\n", .brokenLine),
        ("HD O\r\n", .brokenLine), ("HD O123456789\r\n", .brokenLine), ("HD OFF\r\n", .brokenLine),
        ("HD O-1\r\n", .brokenLine), ("CLIENT_ERRORS\r\n", .unknownReply), ("\u{0}\u{0}\r\n", .unknownReply),
        ("héé\r\n", .unknownReply),
    ])
    func `what is no reply is told as what it is`(text: String, problem: MetaReplyProblem) {
        #expect(throws: problem) { try parse([Array(text.utf8)]) }
        #expect(throws: problem) { try parse(text.utf8.map { [$0] }) }
    }

    @Test func `a line without an end is refused, and one of the greatest length is not`() throws {
        let longest = "STAT path " + String(repeating: "x", count: MetaReplyParser.longestLine - 12) + "\r\n"
        #expect(try parse([Array(longest.utf8)]).count == 1)
        var parser = MetaReplyParser()
        for _ in 1..<MetaReplyParser.longestLine {
            parser.feed(ByteBuffer(bytes: [0x78]))
            #expect(try parser.next() == nil)
        }
        parser.feed(ByteBuffer(bytes: [0x78]))
        #expect(throws: MetaReplyProblem.endlessLine) { try parser.next() }
    }

    @Test func `a value that is announced and does not come takes no memory`() throws {
        var parser = MetaReplyParser(longestValue: .max)
        parser.feed(ByteBuffer(string: "VA 9223372036854775800 O1\r\n"))
        #expect(throws: MetaReplyProblem.valueTooLong) { try parser.next() }
        parser = MetaReplyParser()
        parser.feed(ByteBuffer(string: "VA 1073741824 O1\r\nx"))
        #expect(try parser.next() == nil)
        parser.feed(ByteBuffer(string: "y"))
        #expect(try parser.next() == nil)
        #expect(parser.capacity < 1000)
    }

    @Test func `replies that are always cut do not pile up`() throws {
        let reply = Array("VA 1000 c7 O1\r\n".utf8) + [UInt8](repeating: 0x61, count: 1000) + Array("\r\n".utf8)
        var parser = MetaReplyParser()
        var count = 0
        parser.feed(ByteBuffer(bytes: reply.dropLast()))
        for _ in 0..<5000 {
            // The end of one, and all but the end of the next.
            parser.feed(ByteBuffer(bytes: reply.suffix(1) + reply.dropLast()))
            while try parser.next() != nil { count += 1 }
        }
        #expect(count == 5000)
        #expect(parser.capacity < 16_384)
    }

    @Test func `requests are written as memcached reads them`() {
        func text(_ request: MetaRequest, mark: UInt32 = 0x1f) -> String {
            var buffer = ByteBuffer()
            request.write(to: &buffer, mark: mark)
            return String(buffer: buffer)
        }
        let value = Array("one".utf8)
        #expect(text(.get("k")) == "mg k c v O1f\r\n")
        #expect(text(.get("k"), mark: 0) == "mg k c v O0\r\n")
        #expect(text(.get("k"), mark: .max) == "mg k c v Offffffff\r\n")
        #expect(text(.put(value, "k", .seconds(60), .absent)) == "ms k 3 T61 c ME O1f\r\none\r\n")
        #expect(text(.put(value, "k", .seconds(60), .present)) == "ms k 3 T61 c MR O1f\r\none\r\n")
        #expect(text(.put([], "k", .zero, .token(.max))) == "ms k 0 T1 c C18446744073709551615 O1f\r\n\r\n")
        #expect(text(.increment("k", .max)) == "ma k v D18446744073709551615 O1f\r\n")
        #expect(text(.increment("k", 0)) == "ma k v D0 O1f\r\n")
        #expect(text(.touch("k", .seconds(9))) == "mg k T10 O1f\r\n")
        #expect(text(.delete("k", ifToken: nil)) == "md k O1f\r\n")
        #expect(text(.delete("k", ifToken: 10)) == "md k C10 O1f\r\n")
        func keeping(_ condition: MetaRequest.Condition) -> String {
            var buffer = ByteBuffer()
            MetaRequest.put(value, "k", .seconds(60), condition).writeKeeping(to: &buffer)
            return String(buffer: buffer)
        }
        #expect(keeping(.absent) == "add k 0 61 3\r\none\r\n")
        #expect(keeping(.present) == "replace k 0 61 3\r\none\r\n")
        #expect(keeping(.token(100)) == "cas k 0 61 3 100\r\none\r\n")
    }
}
