import Testing

@testable import LimpetServer

/// RFC 9113, sections 3.4 and 4: how a connection starts, and what a frame looks like.
@Suite struct `Starting HTTP/2 and its frames` {
    // MARK: 3.4

    @Test func `RFC 9113 3.4: the server's first frame is SETTINGS`() throws {
        let connection = try RawConnection(handshake: false)
        try connection.send(bytes: Frame.preface)
        try connection.send(.emptySettings)
        let first = try #require(try connection.take().first)
        #expect(first.kind == .settings)
        #expect(first.flags == 0)
        #expect(first.stream == 0)
        try connection.finish()
    }

    @Test(arguments: [
        Frame.ping(), .request(1), .windowUpdate(0, 1), Frame(kind: .settings, flags: Frame.acknowledgement),
        Frame(kind: .init(rawValue: 0xfe)),
    ])
    func `RFC 9113 3.4: a preface whose first frame is not SETTINGS is a connection error`(first: Frame) throws {
        let connection = try RawConnection(handshake: false)
        try connection.send(bytes: Frame.preface)
        try connection.send(first, .emptySettings)
        #expect(try connection.reaction() == .connectionError(.protocolError))
    }

    @Test func `RFC 9113 3.4: frames may follow the preface at once`() throws {
        let connection = try RawConnection(handshake: false)
        try connection.send(bytes: Frame.preface + Frame.emptySettings.bytes + Frame.request(1).bytes)
        let frames = try connection.take()
        #expect(frames.contains { $0.kind == .headers && $0.stream == 1 && $0.status == 200 })
        #expect(frames.contains(Frame(kind: .settings, flags: Frame.acknowledgement)))
        try connection.finish()
    }

    @Test func `RFC 9113 3.4: a preface that comes byte by byte is one`() throws {
        let connection = try RawConnection(handshake: false)
        for byte in Frame.preface { try connection.send(bytes: [byte]) }
        try connection.send(.emptySettings)
        _ = try connection.take()
        try connection.send(.request(1))
        #expect(try connection.reaction() == .response(1, status: 200))
        try connection.finish()
    }

    // MARK: 4.1

    @Test(arguments: [UInt8(0x0a), 0x0c, 0x10, 0x42, 0xff], [UInt32(0), 1, 7])
    func `RFC 9113 4.1: a frame of unknown type is ignored`(type: UInt8, stream: UInt32) throws {
        let unknown = Frame(kind: .init(rawValue: type), flags: 0xff, stream: stream, payload: [1, 2, 3])
        #expect(try reaction(to: unknown) == .nothing)
        #expect(try reaction(to: unknown, .request(1)) == .response(1, status: 200))
    }

    @Test func `RFC 9113 4.1: the reserved bit is ignored`() throws {
        #expect(try reaction(to: .block(0x8000_0001, requestBlock())) == .response(1, status: 200))
    }

    @Test func `RFC 9113 4.1: flags without a meaning are ignored`() throws {
        #expect(try reaction(to: .request(1).with(flags: 0xd7)) == .response(1, status: 200))
        let window = Frame.windowUpdate(0, 1).with(flags: 0xff)
        #expect(try reaction(to: window, .request(1)) == .response(1, status: 200))
    }

    // MARK: 4.2

    @Test func `RFC 9113 4.2: a frame of 16,384 bytes is accepted`() throws {
        let connection = try RawConnection()
        try connection.send(.request(1, "POST", endStream: false), .data(1, [UInt8](repeating: 0, count: 16_384)))
        #expect(try connection.reaction() == .response(1, status: 200))
        try connection.finish()
    }

    @Test(arguments: [
        Frame.data(1, [UInt8](repeating: 0, count: 16_385)),
        .request(3, fields: [("x", String(repeating: "x", count: 16_385))]),
        .data(0, [UInt8](repeating: 0, count: 16_385)),
        Frame(kind: .settings, payload: [UInt8](repeating: 0, count: 16_386)),
        Frame(kind: .init(rawValue: 0xfe), payload: [UInt8](repeating: 0, count: 16_385)),
    ])
    func `RFC 9113 4.2: a frame over SETTINGS_MAX_FRAME_SIZE is an error`(frame: Frame) throws {
        // A connection error for frames that carry a field block or concern the connection; allowed for all.
        #expect(
            try reaction(to: .request(1, "POST", endStream: false), frame) == .connectionError(.frameSizeError))
    }

    @Test func `RFC 9113 4.2: a CONTINUATION over SETTINGS_MAX_FRAME_SIZE is a connection error`() throws {
        let field = [0x00] + Frame.literal("x") + Frame.literal(String(repeating: "x", count: 16_385))
        #expect(
            try reaction(
                to: .block(1, requestBlock(), flags: Frame.endStream), .continuation(1, field))
                == .connectionError(.frameSizeError))
    }

    @Test(arguments: [
        Frame(kind: .priority, stream: 1, payload: [0, 0, 0, 3]),
        Frame(kind: .resetStream, stream: 1, payload: [0, 0, 0]),
        Frame(kind: .ping, payload: [0]),
        Frame(kind: .goAway, payload: [0, 0, 0, 0]),
        Frame(kind: .windowUpdate, payload: [0, 0, 1]),
        Frame(kind: .settings, payload: [0]),
    ])
    func `RFC 9113 4.2: a frame too small for its fields is an error`(frame: Frame) throws {
        // A stream error would do for PRIORITY (section 6.3); a connection error is always allowed (section 5.4.1).
        #expect(
            try reaction(to: .request(1, "POST", endStream: false), frame) == .connectionError(.frameSizeError))
    }

    // MARK: 4.3

    @Test(arguments: [
        Frame.ping(), .data(1, []), .request(3), .request(1), .reset(1), .windowUpdate(0, 1), .emptySettings,
        Frame(kind: .init(rawValue: 0xfe)), .priority(3, on: 0), .continuation(3, []),
    ])
    func `RFC 9113 4.3: nothing may come between the frames of a field block`(frame: Frame) throws {
        #expect(
            try reaction(to: .block(1, requestBlock(), flags: Frame.endStream), frame, .continuation(1, []))
                == .connectionError(.protocolError))
    }

    @Test func `RFC 9113 4.3: a field block may be split anywhere`() throws {
        let block = requestBlock()
        for position in 0...block.count {
            #expect(
                try reaction(
                    to: .block(1, Array(block[..<position]), flags: Frame.endStream),
                    .continuation(1, Array(block[position...])))
                    == .response(1, status: 200))
        }
    }

    @Test func `RFC 9113 4.3: a field block that cannot be decoded is a connection error`() throws {
        #expect(try reaction(to: .block(1, [0x80])) == .connectionError(.compressionError))
    }

    @Test func `RFC 9113 4.3: a field block of a stream that was reset keeps the compression state`() throws {
        let connection = try RawConnection { _ in
            await Signal().wait()
            return .text("late")
        }
        try connection.send(.request(1, "POST", endStream: false), .reset(1))
        // On a closed stream: an entry of the dynamic table is made, which the next request uses.
        let entry: [UInt8] = [0x40] + Frame.literal("x-kept") + Frame.literal("1")
        try connection.send(.block(1, entry))
        #expect(try connection.reaction() == .nothing)
        try connection.send(.block(3, requestBlock() + [0xbe]))
        #expect(try connection.reaction() == .nothing)
        try connection.finish()
    }
}
