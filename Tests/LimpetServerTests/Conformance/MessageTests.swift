import HTTPTypes
import Limpet
import Testing

@testable import LimpetServer

/// RFC 9113, sections 8.1 and 8.2: the framing of messages, and their fields.
@Suite struct `Messages` {
    private static let openRequest = Frame.request(1, "POST", endStream: false)
    private static let malformed = Reaction.streamError(1, .protocolError)

    // MARK: 8.1

    @Test func `RFC 9113 8.1: trailers end the stream`() throws {
        let trailers = Frame.field("a", "1")
        #expect(
            try reaction(to: Self.openRequest, .data(1, [1], endStream: false), .block(1, trailers))
                == .response(1, status: 200))
        #expect(
            try reaction(to: Self.openRequest, .block(1, trailers, flags: Frame.endHeaders)) == Self.malformed)
    }

    @Test func `RFC 9113 8.1: trailers have no pseudo-header fields`() throws {
        for field in [Frame.field(":path", "/"), Frame.field(":method", "GET"), Frame.field(":status", "200")] {
            #expect(try reaction(to: Self.openRequest, .block(1, field)) == Self.malformed)
        }
    }

    @Test func `RFC 9113 8.1: nothing follows the trailers`() throws {
        let trailers = Frame.block(1, Frame.field("a", "1"))
        for frame in [trailers, .data(1, [1])] {
            #expect(
                try reaction(to: Self.openRequest, trailers, frame, handler: neverAnswer)
                    == .connectionError(.streamClosed))
        }
    }

    @Test func `RFC 9113 8.1: fields of trailers are as valid as others`() throws {
        for field in [Frame.field("Upper", "1"), Frame.field("connection", "close"), Frame.field("a b", "1")] {
            #expect(try reaction(to: Self.openRequest, .block(1, field)) == Self.malformed)
        }
    }

    @Test func `RFC 9113 8.1: the end of the stream may come with an empty DATA frame`() throws {
        #expect(try reaction(to: Self.openRequest, .data(1, [])) == .response(1, status: 200))
    }

    // MARK: 8.1.1

    @Test(arguments: [("3", 2), ("3", 4), ("0", 1), ("1", 0)])
    func `RFC 9113 8.1.1: content-length that is not the length of DATA is malformed`(told: String, sent: Int) throws {
        let head = Frame.request(1, "POST", fields: [("content-length", told)], endStream: false)
        #expect(try reaction(to: head, .data(1, [UInt8](repeating: 0, count: sent))) == Self.malformed)
        let pieces = (0..<sent).map { _ in Frame.data(1, [0], endStream: false) }
        let connection = try RawConnection(handler: answerWhenComplete)
        try connection.send([head] + pieces + [.data(1, [])])
        #expect(try connection.reaction() == Self.malformed)
        try connection.finish()
    }

    @Test func `RFC 9113 8.1.1: content-length without DATA is malformed`() throws {
        #expect(try reaction(to: .request(1, fields: [("content-length", "3")])) == Self.malformed)
        #expect(try reaction(to: .request(1, fields: [("content-length", "0")])) == .response(1, status: 200))
    }

    @Test func `RFC 9113 8.1.1: content-length that trailers cut short is malformed`() throws {
        let head = Frame.request(1, "POST", fields: [("content-length", "3")], endStream: false)
        let trailers = Frame.block(1, Frame.field("a", "1"))
        #expect(try reaction(to: head, .data(1, [1, 2], endStream: false), trailers) == Self.malformed)
        #expect(
            try reaction(to: head, .data(1, [1, 2, 3], endStream: false), trailers) == .response(1, status: 200))
    }

    @Test func `RFC 9113 8.1.1: padding is no part of content-length`() throws {
        let head = Frame.request(1, "POST", fields: [("content-length", "3")], endStream: false)
        #expect(try reaction(to: head, Frame.data(1, [1, 2, 3]).padded(9)) == .response(1, status: 200))
    }

    @Test(arguments: [
        "", "x", "1x", "-1", "+1", "1.0", "0x1", " 1", "1,2", "9223372036854775808", "99999999999999999999",
    ])
    func `RFC 9110 8.6: content-length that is no number is malformed`(value: String) throws {
        let head = Frame.request(1, "POST", fields: [("content-length", value)], endStream: false)
        #expect(try reaction(to: head, .data(1, [1])) == Self.malformed)
    }

    @Test func `RFC 9110 8.6: several content-lengths that differ are malformed`() throws {
        let fields = [("content-length", "1"), ("content-length", "2")]
        #expect(
            try reaction(to: .request(1, "POST", fields: fields, endStream: false), .data(1, [1])) == Self.malformed)
    }

    // MARK: 8.2.1

    @Test(arguments: ["Upper", "uPPer", "x-Y"])
    func `RFC 9113 8.2.1: a field name in upper case is malformed`(name: String) throws {
        #expect(try reaction(to: .request(1, fields: [(name, "1")])) == Self.malformed)
    }

    @Test(
        arguments: [
            [], [0x00], Array("a\0".utf8), Array("a b".utf8), Array(" a".utf8), Array("a\n".utf8), Array("a\r".utf8),
            Array("a\t".utf8), [0x7f], [0x61, 0x80], [0xc3, 0xa4], Array("a:b".utf8), Array("a:".utf8), [0xff],
        ] as [[UInt8]])
    func `RFC 9113 8.2.1: a field name with a forbidden character is malformed`(name: [UInt8]) throws {
        let field = [0x00] + Frame.literal(name) + Frame.literal("1")
        #expect(try reaction(to: .block(1, requestBlock() + field)) == Self.malformed)
        #expect(try reaction(to: Self.openRequest, .block(1, field)) == Self.malformed)
    }

    @Test(arguments: ["a\"b", "a(b", "a/b", "a@b", "a{b", "a,b", "a=b"])
    func `RFC 9110 5.1: a field name that is no token is malformed`(name: String) throws {
        #expect(try reaction(to: .request(1, fields: [(name, "1")])) == Self.malformed)
    }

    @Test(arguments: ["\0", "a\0b", "\n", "a\nb", "\r", "a\rb", "a\r\nb", " a", "a ", "\ta", "a\t", " "])
    func `RFC 9113 8.2.1: a field value with a forbidden character is malformed`(value: String) throws {
        #expect(try reaction(to: .request(1, fields: [("x", value)])) == Self.malformed)
        #expect(try reaction(to: .request(1, fields: [("cookie", value)])) == Self.malformed)
        #expect(try reaction(to: Self.openRequest, .block(1, Frame.field("x", value))) == Self.malformed)
    }

    @Test func `RFC 9110 5.5: a field value may be empty, have spaces inside, and bytes above 127`() throws {
        let seen = Locked<[[UInt8]]>([])
        let connection = try RawConnection { request in
            let values = request.fields.map { $0.withUnsafeBytesOfValue { Array($0) } }
            seen.withLock { $0 = values }
            return ServerResponse(status: .ok)
        }
        let values: [[UInt8]] = [[], Array("a b\tc".utf8), [0x61, 0xff, 0x80]]
        let block = values.flatMap { value -> [UInt8] in [0x00] + Frame.literal("x") + Frame.literal(value) }
        try connection.send(.block(1, requestBlock() + block))
        #expect(try connection.reaction() == .response(1, status: 200))
        #expect(seen.withLock { $0 } == values)
        try connection.finish()
    }

    @Test func `RFC 9113 8.2.1: a malformed field is found behind a field block that is over the limit or split`()
        throws
    {
        let block = requestBlock() + Frame.field("a b", "1")
        for position in 0...block.count {
            #expect(
                try reaction(
                    to: .block(1, Array(block[..<position]), flags: Frame.endStream),
                    .continuation(1, Array(block[position...]))) == Self.malformed)
        }
    }

    // MARK: 8.2.2

    @Test(arguments: [
        ("connection", "close"), ("connection", "keep-alive"), ("proxy-connection", "keep-alive"),
        ("keep-alive", "timeout=5"), ("transfer-encoding", "chunked"), ("upgrade", "h2c"), ("te", "gzip"),
        ("te", "trailers, deflate"), ("te", ""),
    ])
    func `RFC 9113 8.2.2: a field of a connection is malformed`(name: String, value: String) throws {
        #expect(try reaction(to: .request(1, fields: [(name, value)])) == Self.malformed)
    }

    @Test(arguments: ["trailers", "Trailers"])
    func `RFC 9113 8.2.2: te may say trailers`(value: String) throws {
        #expect(try reaction(to: .request(1, fields: [("te", value)])) == .response(1, status: 200))
    }

    // MARK: 8.2.3

    @Test func `RFC 9113 8.2.3: cookie crumbs are joined`() throws {
        let seen = Locked<String?>(nil)
        let connection = try RawConnection { request in
            seen.withLock { $0 = request.fields[.cookie] }
            return ServerResponse(status: .ok)
        }
        try connection.send(.request(1, fields: [("cookie", "a=1"), ("x", "y"), ("cookie", "b=2"), ("cookie", "c=3")]))
        #expect(try connection.reaction() == .response(1, status: 200))
        #expect(seen.withLock { $0 } == "a=1; b=2; c=3")
        try connection.finish()
    }

    // MARK: 10.5.1

    @Test func `RFC 9113 10.5.1: a header list over the limit is answered 431`() throws {
        let fields = (0..<10).map { ("x-\($0)", String(repeating: "a", count: 1600)) }
        let frame = Frame.request(1, fields: fields)
        let split = 10_000
        #expect(
            try reaction(
                to: .block(1, Array(frame.payload[..<split]), flags: Frame.endStream),
                .continuation(1, Array(frame.payload[split...]))) == .response(1, status: 431))
    }

    @Test func `RFC 9113 10.5.1: a field that is indexed again and again is not decoded without bound`() throws {
        let connection = try RawConnection()
        let large = [0x40] + Frame.literal("x") + Frame.literal(String(repeating: "a", count: 4000))
        try connection.send(.block(1, requestBlock() + large))
        #expect(try connection.reaction() == .response(1, status: 200))
        // 16,000 times 4 KB.
        try connection.send(.block(3, requestBlock() + [UInt8](repeating: 0xbe, count: 16_000)))
        #expect(try connection.reaction() == .streamError(3, .enhanceYourCalm))
        try connection.send(.request(5))
        #expect(try connection.reaction() == .response(5, status: 200))
        try connection.finish()
    }
}
