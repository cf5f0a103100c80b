import Testing

@testable import LimpetServer

/// RFC 9113, section 5: streams, from idle to closed.
@Suite struct `Streams` {
    private static let openRequest = Frame.request(1, "POST", endStream: false)

    // MARK: 5.1

    @Test(arguments: [Frame.data(1, [1]), .data(1, []), .reset(1), .windowUpdate(1, 1), .continuation(1, [])])
    func `RFC 9113 5.1: on an idle stream only HEADERS and PRIORITY are allowed`(frame: Frame) throws {
        #expect(try reaction(to: frame) == .connectionError(.protocolError))
        #expect(try reaction(to: .priority(1, on: 0), frame) == .connectionError(.protocolError))
    }

    @Test func `RFC 9113 5.1: PRIORITY is allowed in every state`() throws {
        #expect(try reaction(to: .priority(1, on: 0), .request(1)) == .response(1, status: 200))
        #expect(try reaction(to: .request(1), .priority(1, on: 0)) == .response(1, status: 200))
        let connection = try RawConnection(handler: neverAnswer)
        try connection.send(.request(1), .priority(1, on: 0), .reset(1), .priority(1, on: 0))
        #expect(try connection.reaction() == .nothing)
        try connection.finish()
    }

    @Test(arguments: [Frame.data(1, [1]), .data(1, [], endStream: false), .request(1), .block(1, [])])
    func `RFC 9113 5.1: a half-closed stream takes no more of a message`(frame: Frame) throws {
        // STREAM_CLOSED; a connection error may stand for a stream error (section 5.4.1).
        #expect(try reaction(to: .request(1), frame, handler: neverAnswer) == .connectionError(.streamClosed))
    }

    @Test func `RFC 9113 5.1: a half-closed stream takes WINDOW_UPDATE and RST_STREAM`() throws {
        #expect(try reaction(to: .request(1), .windowUpdate(1, 1), handler: neverAnswer) == .nothing)
        #expect(try reaction(to: .request(1), .reset(1), handler: neverAnswer) == .nothing)
    }

    @Test(arguments: [
        Frame.data(1, [1], endStream: false), .windowUpdate(1, 1), .reset(1), .block(1, Frame.field("x", "y")),
    ])
    func `RFC 9113 5.1: what comes for a stream that the client has reset is dropped`(frame: Frame) throws {
        #expect(try reaction(to: Self.openRequest, .reset(1), frame) == .nothing)
    }

    @Test(arguments: [Frame.data(1, [1]), .windowUpdate(1, 1), .reset(1)])
    func `RFC 9113 5.1: what comes for a stream that has ended is dropped`(frame: Frame) throws {
        let connection = try RawConnection()
        try connection.send(.request(1))
        #expect(try connection.reaction() == .response(1, status: 200))
        try connection.send(frame)
        #expect(try connection.reaction() == .nothing)
        try connection.finish()
    }

    @Test func `RFC 9113 5.1: what comes for a stream that the server has reset is dropped and gives the window back`()
        throws
    {
        var limits = ServerLimits()
        limits.maxRequestBodyBytes = 10
        let connection = try RawConnection(limits: limits)
        try connection.send(.request(1, "POST", fields: [("content-length", "1000000000")], endStream: false))
        #expect(try connection.take().map(\.kind) == [.headers, .data, .resetStream])
        let piece = [UInt8](repeating: 0, count: 16_384)
        // More than the connection's window holds.
        for _ in 0..<100 { try connection.send(.data(1, piece, endStream: false)) }
        #expect(try connection.take().allSatisfy { $0.kind == .windowUpdate && $0.stream == 0 })
        try connection.send(.block(1, Frame.field("trailer", "1")), .windowUpdate(1, 1), .reset(1), .request(3))
        #expect(try connection.reaction() == .response(3, status: 200))
        try connection.finish()
    }

    // MARK: 5.1.1

    @Test(arguments: [UInt32(0), 2, 0x7fff_fffe])
    func `RFC 9113 5.1.1: a client opens no streams but odd ones`(stream: UInt32) throws {
        #expect(try reaction(to: .request(stream)) == .connectionError(.protocolError))
    }

    @Test func `RFC 9113 5.1.1: the highest stream is one`() throws {
        #expect(try reaction(to: .request(0x7fff_ffff)) == .response(0x7fff_ffff, status: 200))
    }

    @Test func `RFC 9113 5.1.1: a stream below one that was opened is a connection error`() throws {
        let connection = try RawConnection()
        try connection.send(.request(5))
        #expect(try connection.reaction() == .response(5, status: 200))
        try connection.send(.request(3))
        #expect(try connection.reaction() == .connectionError(.protocolError))
    }

    @Test func `RFC 9113 5.1.1: a stream below one that was opened is found also in padding, priority and pieces`()
        throws
    {
        for frame in [
            Frame.request(3).padded(4), .block(3, [0, 0, 0, 0, 15] + requestBlock(), flags: 0x25),
            .block(3, requestBlock(), flags: 0x1),
        ] {
            let connection = try RawConnection(handler: neverAnswer)
            try connection.send(.request(1), .request(5))
            for byte in frame.bytes { try connection.send(bytes: [byte]) }
            #expect(try connection.reaction() == .connectionError(.protocolError))
        }
    }

    @Test func `RFC 9113 5.1.1: streams may be skipped`() throws {
        let connection = try RawConnection()
        for stream in stride(from: UInt32(1), to: 2000, by: 10) {
            try connection.send(.request(stream))
            #expect(try connection.take().first?.stream == stream)
        }
        try connection.finish()
    }

    @Test func `RFC 9113 5.1.1: a stream that was opened is not opened again`() throws {
        let connection = try RawConnection()
        try connection.send(.request(1), .request(3))
        _ = try connection.take()
        // On a closed stream the server may drop it or end the connection; it must not answer.
        try connection.send(.request(1))
        #expect(try connection.reaction() == .nothing)
        try connection.finish()
    }

    // MARK: 5.1.2

    @Test func `RFC 9113 5.1.2: more streams than announced are an error`() throws {
        var limits = ServerLimits()
        limits.maxConcurrentStreams = 2
        let frames = [Frame.request(1), .request(3), .request(5)]
        let connection = try RawConnection(limits: limits, handler: neverAnswer)
        try connection.send(frames)
        // PROTOCOL_ERROR or REFUSED_STREAM; a connection error may stand for a stream error (section 5.4.1).
        #expect(try connection.reaction() == .connectionError(.protocolError))
    }

    @Test func `RFC 9113 5.1.2: streams beyond a limit that the client does not know yet are refused`() throws {
        var limits = ServerLimits()
        limits.maxConcurrentStreams = 2
        let connection = try RawConnection(limits: limits, handshake: false, handler: neverAnswer)
        try connection.send(bytes: Frame.preface)
        try connection.send(.emptySettings)
        _ = try connection.take()
        try connection.send(.request(1), .request(3), .request(5))
        #expect(try connection.reaction() == .streamError(5, .refusedStream))
        try connection.finish()
    }

    @Test func `RFC 9113 5.1.2: streams that have ended do not count`() throws {
        var limits = ServerLimits()
        limits.maxConcurrentStreams = 2
        let connection = try RawConnection(limits: limits)
        for stream in [UInt32(1), 3, 5, 7] {
            try connection.send(.request(stream))
            #expect(try connection.reaction() == .response(stream, status: 200))
        }
        try connection.finish()
    }

    // MARK: 5.4

    @Test func `RFC 9113 5.4.1: GOAWAY names the last stream that was served`() throws {
        let connection = try RawConnection()
        try connection.send(.request(1), .request(3))
        try connection.send(.data(5, [1]))
        let goAway = try #require(try connection.take().last)
        #expect(goAway.kind == .goAway)
        #expect(goAway.number(at: 0) == 3)
        #expect(connection.isClosed)
    }

    @Test func `RFC 9113 5.4.2: a stream error leaves the other streams alone`() throws {
        let connection = try RawConnection()
        try connection.send(.request(1, "POST", endStream: false), .request(3, fields: [("Upper", "1")]))
        #expect(try connection.reaction() == .streamError(3, .protocolError))
        try connection.send(.data(1, [1]))
        #expect(try connection.reaction() == .response(1, status: 200))
        try connection.finish()
    }

    @Test func `RFC 9113 5.4.2: RST_STREAM is not answered with RST_STREAM`() throws {
        #expect(try reaction(to: Self.openRequest, .reset(1), .reset(1)) == .nothing)
    }

    // MARK: 5.5

    @Test func `RFC 9113 5.5: an extension frame in the middle of a field block is a connection error`() throws {
        #expect(
            try reaction(
                to: .block(1, requestBlock(), flags: Frame.endStream),
                Frame(kind: .init(rawValue: 0xfe), stream: 1), .continuation(1, []))
                == .connectionError(.protocolError))
    }
}
