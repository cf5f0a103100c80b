import HTTPTypes
import Testing

@testable import LimpetServer

/// RFC 9113, sections 6.5 to 6.8: SETTINGS, PUSH_PROMISE, PING and GOAWAY.
@Suite struct `Frames of a connection` {
    // MARK: 6.5

    @Test func `RFC 9113 6.5: SETTINGS with ACK and content is a connection error`() throws {
        let frame = Frame.settings((4, 100)).with(flags: Frame.acknowledgement)
        #expect(try reaction(to: frame) == .connectionError(.frameSizeError))
    }

    @Test func `RFC 9113 6.5: SETTINGS on a stream is a connection error`() throws {
        let frame = Frame(kind: .settings, stream: 1)
        #expect(try reaction(to: frame) == .connectionError(.protocolError))
        #expect(try reaction(to: .request(1), frame, handler: neverAnswer) == .connectionError(.protocolError))
    }

    @Test(arguments: [1, 5, 7, 11])
    func `RFC 9113 6.5: SETTINGS has a multiple of six bytes`(length: Int) throws {
        let frame = Frame(kind: .settings, payload: [UInt8](repeating: 0, count: length))
        #expect(try reaction(to: frame) == .connectionError(.frameSizeError))
    }

    @Test(arguments: [UInt32(2), 0xffff_ffff])
    func `RFC 9113 6.5.2: ENABLE_PUSH is 0 or 1`(value: UInt32) throws {
        #expect(try reaction(to: .settings((2, value))) == .connectionError(.protocolError))
    }

    @Test(arguments: [UInt32(0x8000_0000), 0xffff_ffff])
    func `RFC 9113 6.5.2: INITIAL_WINDOW_SIZE is at most 2^31-1`(value: UInt32) throws {
        #expect(try reaction(to: .settings((4, value))) == .connectionError(.flowControlError))
    }

    @Test(arguments: [UInt32(0), 16_383, 16_777_216, 0xffff_ffff])
    func `RFC 9113 6.5.2: MAX_FRAME_SIZE is between 2^14 and 2^24-1`(value: UInt32) throws {
        #expect(try reaction(to: .settings((5, value))) == .connectionError(.protocolError))
    }

    @Test(
        arguments: [
            (1, 0), (1, 0xffff_ffff), (2, 0), (2, 1), (3, 0), (3, 0xffff_ffff), (4, 0), (4, 0x7fff_ffff), (5, 16_384),
            (5, 16_777_215), (6, 0), (6, 0xffff_ffff), (8, 0), (9, 0), (9, 1),
        ] as [(UInt16, UInt32)])
    func `RFC 9113 6.5.2: every value in its bounds is accepted and acknowledged`(id: UInt16, value: UInt32) throws {
        // In the first SETTINGS: RFC 9218, section 2.1, forbids that number 9 changes later.
        let connection = try RawConnection(handshake: false)
        try connection.send(bytes: Frame.preface)
        try connection.send(.settings((id, value)))
        #expect(try connection.take().contains(Frame(kind: .settings, flags: Frame.acknowledgement)))
        #expect(try connection.reaction() == .nothing)
        try connection.finish()
    }

    @Test func `RFC 9113 6.5.2: an unknown setting is ignored`() throws {
        let connection = try RawConnection()
        try connection.send(.settings((0, 1), (0x7, 9), (0xffff, 0xffff_ffff)))
        #expect(try connection.take() == [Frame(kind: .settings, flags: Frame.acknowledgement)])
        try connection.finish()
    }

    @Test(arguments: [UInt32(2), 0xffff_ffff])
    func `RFC 9218 2.1: NO_RFC7540_PRIORITIES is 0 or 1`(value: UInt32) throws {
        #expect(try reaction(to: .settings((9, value))) == .connectionError(.protocolError))
    }

    @Test func `RFC 9113 6.5.3: each SETTINGS is acknowledged, in order, and the last value of a setting counts`()
        throws
    {
        let connection = try RawConnection { _ in
            ServerResponse(status: .ok, body: ResponseBody([UInt8](repeating: 0, count: 100)))
        }
        try connection.send(.settings((4, 10), (4, 1)), .settings((4, 0), (4, 7)), .request(1))
        let frames = try connection.take()
        #expect(frames.prefix(2).allSatisfy { $0 == Frame(kind: .settings, flags: Frame.acknowledgement) })
        #expect(frames.filter { $0.kind == .data }.map(\.payload.count) == [7])
        try connection.finish()
    }

    @Test func `RFC 9113 6.5.2: no DATA frame is larger than the client's MAX_FRAME_SIZE`() throws {
        let connection = try RawConnection { _ in
            ServerResponse(status: .ok, body: ResponseBody([UInt8](repeating: 0, count: 60_000)))
        }
        try connection.send(.request(1))
        let small = try connection.take().filter { $0.kind == .data }
        #expect(small.map(\.payload.count).max() == 16_384)
        #expect(small.map(\.payload.count).reduce(0, +) == 60_000)
        try connection.send(.settings((5, 20_000)), .windowUpdate(0, 100_000), .request(3))
        #expect(try connection.take().filter { $0.kind == .data }.allSatisfy { $0.payload.count <= 20_000 })
        try connection.finish()
    }

    @Test func `RFC 9113 6.5.2: the server keeps to the client's HEADER_TABLE_SIZE`() throws {
        let connection = try RawConnection { _ in
            ServerResponse(status: .ok, fields: [.server: "limpet", .date: "today"])
        }
        try connection.send(.request(1), .request(3))
        let indexed = try connection.take().filter { $0.kind == .headers }.map(\.payload.count)
        #expect(indexed[1] < indexed[0])
        try connection.send(.settings((1, 0)), .request(5), .request(7))
        let blocks = try connection.take().filter { $0.kind == .headers }.map(\.payload)
        // RFC 7541, section 4.2: a size update to 0 at the start of the first block; then nothing is remembered.
        #expect(blocks[0].first == 0x20)
        #expect(Array(blocks[0].dropFirst()) == blocks[1])
        try connection.finish()
    }

    // MARK: 6.6

    @Test func `RFC 9113 6.6: PUSH_PROMISE from a client is a connection error`() throws {
        let frame = Frame(
            kind: .pushPromise, flags: Frame.endHeaders, stream: 1, payload: Frame.bytes(2) + requestBlock())
        #expect(try reaction(to: .request(1), frame, handler: neverAnswer) == .connectionError(.protocolError))
        #expect(try reaction(to: frame) == .connectionError(.protocolError))
    }

    // MARK: 6.7

    @Test func `RFC 9113 6.7: PING is answered with its content`() throws {
        let connection = try RawConnection()
        let payload: [UInt8] = [1, 2, 3, 4, 5, 6, 7, 8]
        try connection.send(Frame(kind: .ping, payload: payload))
        #expect(try connection.take() == [Frame(kind: .ping, flags: Frame.acknowledgement, payload: payload)])
        try connection.finish()
    }

    @Test func `RFC 9113 6.7: PING with ACK is not answered`() throws {
        #expect(try reaction(to: Frame.ping().with(flags: Frame.acknowledgement)) == .nothing)
    }

    @Test func `RFC 9113 6.7: PING on a stream is a connection error`() throws {
        var frame = Frame.ping()
        frame.stream = 1
        #expect(try reaction(to: frame) == .connectionError(.protocolError))
    }

    @Test(arguments: [0, 7, 9])
    func `RFC 9113 6.7: PING has eight bytes`(length: Int) throws {
        let frame = Frame(kind: .ping, payload: [UInt8](repeating: 0, count: length))
        #expect(try reaction(to: frame) == .connectionError(.frameSizeError))
    }

    // MARK: 6.8

    @Test func `RFC 9113 6.8: GOAWAY on a stream is a connection error`() throws {
        #expect(try reaction(to: .goAway(stream: 1)) == .connectionError(.protocolError))
    }

    @Test(arguments: [WireCode.noError, .internalError])
    func `RFC 9113 6.8: streams finish after the client's GOAWAY`(code: WireCode) throws {
        let connection = try RawConnection()
        try connection.send(.request(1, "POST", endStream: false), .goAway(0, code), .data(1, [1]))
        #expect(try connection.take().contains { $0.kind == .headers && $0.stream == 1 && $0.status == 200 })
        try connection.finish()
    }

    @Test func `RFC 9113 6.8: GOAWAY may have debug data`() throws {
        var frame = Frame.goAway()
        frame.payload += Array("why".utf8)
        #expect(try reaction(to: .request(1), frame) != .connectionError(.protocolError))
    }
}
