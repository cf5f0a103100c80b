import HTTPTypes
import Testing

@testable import LimpetServer

/// RFC 9113, sections 6.1 to 6.4 and 6.10: DATA, HEADERS, PRIORITY, RST_STREAM and CONTINUATION.
@Suite struct `Frames of a stream` {
    private static let openRequest = Frame.request(1, "POST", endStream: false)

    // MARK: 6.1

    @Test func `RFC 9113 6.1: DATA on stream 0 is a connection error`() throws {
        #expect(try reaction(to: .data(0, [1])) == .connectionError(.protocolError))
    }

    @Test(arguments: [UInt8(0), 1, 10, 255])
    func `RFC 9113 6.1: padding is not content`(length: UInt8) throws {
        let echo: HTTP2Server.Handler = { request in
            ServerResponse(status: .ok, body: ResponseBody(try await request.body.collect(upTo: 100)))
        }
        let connection = try RawConnection(handler: echo)
        try connection.send(Self.openRequest, Frame.data(1, [1, 2, 3]).padded(length))
        let content = try connection.take().filter { $0.kind == .data }.flatMap(\.payload)
        #expect(content == [1, 2, 3])
        try connection.finish()
    }

    @Test(arguments: [[5, 1, 2, 3, 4], [1], [255, 0]] as [[UInt8]])
    func `RFC 9113 6.1: padding as long as the payload is a connection error`(payload: [UInt8]) throws {
        let frame = Frame(kind: .data, flags: Frame.padded, stream: 1, payload: payload)
        #expect(try reaction(to: Self.openRequest, frame) == .connectionError(.protocolError))
    }

    @Test func `RFC 9113 6.1: padding counts for the windows`() throws {
        var limits = ServerLimits()
        limits.streamWindow = 65_535
        let connection = try RawConnection(limits: limits)
        try connection.send(Self.openRequest)
        for _ in 0..<300 { try connection.send(Frame.data(1, [1], endStream: false).padded(255)) }
        // 300 bytes of content and 76,800 of padding: given back, or the client would stand still.
        let updates = try connection.take().filter { $0.kind == .windowUpdate }
        #expect(updates.contains { $0.stream == 1 })
        try connection.send(.data(1, []))
        #expect(try connection.reaction() == .response(1, status: 200))
        try connection.finish()
    }

    // MARK: 6.2

    @Test func `RFC 9113 6.2: HEADERS on stream 0 is a connection error`() throws {
        #expect(try reaction(to: .block(0, requestBlock())) == .connectionError(.protocolError))
    }

    @Test(arguments: [UInt8(0), 1, 255])
    func `RFC 9113 6.2: padding and priority of HEADERS are not part of the block`(length: UInt8) throws {
        #expect(try reaction(to: Frame.request(1).padded(length)) == .response(1, status: 200))
        let block = Frame.block(1, [0x80, 0, 0, 0, 255] + requestBlock(), flags: 0x25)
        #expect(try reaction(to: block) == .response(1, status: 200))
        #expect(try reaction(to: block.padded(length)) == .response(1, status: 200))
    }

    @Test(arguments: [[UInt8](repeating: 5, count: 5), [1], [255, 0]])
    func `RFC 9113 6.2: padding as long as the payload of HEADERS is a connection error`(payload: [UInt8]) throws {
        #expect(
            try reaction(to: .block(1, payload, flags: 0x5 | Frame.padded)) == .connectionError(.protocolError))
    }

    @Test func `RFC 9113 6.2: HEADERS too short for its priority is a connection error`() throws {
        #expect(
            try reaction(to: .block(1, [0, 0, 0, 0], flags: 0x5 | Frame.priority))
                == .connectionError(.frameSizeError))
    }

    // MARK: 6.3 and RFC 7540, 5.3.1

    @Test func `RFC 9113 6.3: PRIORITY on stream 0 is a connection error`() throws {
        #expect(try reaction(to: .priority(0, on: 1)) == .connectionError(.protocolError))
    }

    @Test(arguments: [0, 4, 6])
    func `RFC 9113 6.3: PRIORITY has five bytes`(length: Int) throws {
        // A stream error; a connection error may stand for it (section 5.4.1).
        let frame = Frame(kind: .priority, stream: 1, payload: [UInt8](repeating: 0, count: length))
        #expect(try reaction(to: .request(1), frame, handler: neverAnswer) == .connectionError(.frameSizeError))
    }

    @Test func `RFC 7540 5.3.1: HEADERS of a stream that depends on itself is an error`() throws {
        #expect(
            try reaction(to: .block(1, [0, 0, 0, 1, 15] + requestBlock(), flags: 0x25))
                == .connectionError(.protocolError))
    }

    @Test func `RFC 9218 2.1: PRIORITY has no effect after SETTINGS_NO_RFC7540_PRIORITIES`() throws {
        #expect(try reaction(to: .priority(1, on: 1), .request(1)) == .response(1, status: 200))
    }

    // MARK: 6.4

    @Test func `RFC 9113 6.4: RST_STREAM on stream 0 is a connection error`() throws {
        #expect(try reaction(to: .reset(0)) == .connectionError(.protocolError))
    }

    @Test func `RFC 9113 6.4: RST_STREAM on an idle stream is a connection error`() throws {
        #expect(try reaction(to: .reset(1)) == .connectionError(.protocolError))
    }

    @Test(arguments: [0, 3, 5])
    func `RFC 9113 6.4: RST_STREAM has four bytes`(length: Int) throws {
        let frame = Frame(kind: .resetStream, stream: 1, payload: [UInt8](repeating: 0, count: length))
        #expect(try reaction(to: Self.openRequest, frame) == .connectionError(.frameSizeError))
    }

    @Test func `RFC 9113 7: an unknown error code is like any other`() throws {
        let frame = Frame(kind: .resetStream, stream: 1, payload: [0xff, 0xff, 0xff, 0xff])
        #expect(try reaction(to: Self.openRequest, frame, .request(3)) == .response(3, status: 200))
    }

    // MARK: 6.10

    @Test func `RFC 9113 6.10: CONTINUATION of another stream is a connection error`() throws {
        #expect(
            try reaction(to: .block(1, requestBlock(), flags: Frame.endStream), .continuation(3, []))
                == .connectionError(.protocolError))
        #expect(
            try reaction(to: .block(1, requestBlock(), flags: Frame.endStream), .continuation(0, []))
                == .connectionError(.protocolError))
    }

    @Test func `RFC 9113 6.10: CONTINUATION without HEADERS is a connection error`() throws {
        #expect(try reaction(to: .continuation(1, requestBlock())) == .connectionError(.protocolError))
        #expect(try reaction(to: .continuation(0, [])) == .connectionError(.protocolError))
        #expect(try reaction(to: Self.openRequest, .continuation(1, [])) == .connectionError(.protocolError))
    }

    @Test func `RFC 9113 6.10: CONTINUATION after END_HEADERS is a connection error`() throws {
        let block = requestBlock()
        #expect(
            try reaction(
                to: .block(1, Array(block.prefix(5)), flags: Frame.endStream),
                .continuation(1, Array(block.dropFirst(5))), .continuation(1, []), handler: neverAnswer)
                == .connectionError(.protocolError))
    }

    @Test func `RFC 9113 6.10: trailers may be continued`() throws {
        #expect(
            try reaction(
                to: Self.openRequest, .data(1, [1], endStream: false),
                .block(1, Frame.field("a", "1"), flags: Frame.endStream), .continuation(1, Frame.field("b", "2")))
                == .response(1, status: 200))
    }
}
