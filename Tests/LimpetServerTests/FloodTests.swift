import InMemoryLogging
import Logging
import Testing

@testable import LimpetServer

/// RFC 9113, section 10.5: what a client may not do without end.
@Suite(.timeLimit(.minutes(1))) struct `A flood` {
    private static let calm = Reaction.connectionError(.enhanceYourCalm)
    private static let openRequest = Frame.request(1, "POST", endStream: false)

    /// Frames that a connection with an open stream 1 takes no end of.
    private static let floods: [(Frame, ServerLimit, Int)] = [
        (.ping(), .answers, 100),
        (.emptySettings, .answers, 99),
        (.data(1, [], endStream: false), .idleFrames, 998),
        (Frame.data(1, [], endStream: false).padded(0), .idleFrames, 998),
        (.windowUpdate(0, 1), .idleFrames, 998),
        (.windowUpdate(1, 1), .idleFrames, 998),
        (.priority(1, on: 0), .idleFrames, 998),
        (.priority(3, on: 0), .idleFrames, 998),
        (Frame(kind: .init(rawValue: 0xfe), payload: [1]), .idleFrames, 998),
        (Frame(kind: .init(rawValue: 0x10), payload: Frame.bytes(1) + Array("u=1".utf8)), .idleFrames, 998),
        (Frame.ping().with(flags: Frame.acknowledgement), .idleFrames, 998),
    ]

    @Test(arguments: floods)
    func `of frames ends the connection`(frame: Frame, limit: ServerLimit, allowed: Int) throws {
        let connection = try RawConnection()
        try connection.send(Self.openRequest)
        // What the client has sent with its preface is counted as well.
        for _ in 0..<allowed - 1 { try connection.send(frame) }
        #expect(!connection.isClosed)
        for _ in 0..<20 where !connection.isClosed { try connection.send(frame) }
        #expect(try connection.reaction() == Self.calm)
    }

    @Test(arguments: floods)
    func `of frames that come at once ends the connection`(frame: Frame, limit: ServerLimit, allowed: Int) throws {
        let connection = try RawConnection()
        try connection.send([Self.openRequest] + [Frame](repeating: frame, count: 5000))
        #expect(try connection.reaction() == Self.calm)
    }

    @Test func `of empty DATA is counted also on a stream that is closed`() throws {
        let connection = try RawConnection()
        try connection.send(Self.openRequest, .reset(1))
        try connection.send([Frame](repeating: .data(1, [], endStream: false), count: 1100))
        #expect(try connection.reaction() == Self.calm)
    }

    @Test func `of field blocks is counted also on a stream that is closed`() throws {
        let connection = try RawConnection()
        try connection.send(Self.openRequest, .reset(1))
        try connection.send([Frame](repeating: .block(1, Frame.field("a", "1")), count: 1100))
        #expect(try connection.reaction() == Self.calm)
    }

    @Test func `of resets ends the connection (CVE-2023-44487)`() throws {
        let connection = try RawConnection(handler: neverAnswer)
        for stream in stride(from: UInt32(1), to: 201, by: 2) { try connection.send(.request(stream), .reset(stream)) }
        #expect(!connection.isClosed)
        for stream in stride(from: UInt32(201), to: 301, by: 2) where !connection.isClosed {
            try connection.send(.request(stream), .reset(stream))
        }
        #expect(try connection.reaction() == Self.calm)
    }

    @Test func `of resets that the client provokes ends the connection (CVE-2025-8671)`() throws {
        let connection = try RawConnection(handler: neverAnswer)
        for stream in stride(from: UInt32(1), to: 101, by: 2) {
            try connection.send(.request(stream), .windowUpdate(stream, 0x7fff_ffff))
        }
        // Later versions of the library end the connection at the first.
        guard !connection.isClosed else {
            return #expect(try connection.reaction() == .connectionError(.flowControlError))
        }
        for stream in stride(from: UInt32(101), to: 111, by: 2) where !connection.isClosed {
            try connection.send(.request(stream), .windowUpdate(stream, 0x7fff_ffff))
        }
        #expect(try connection.reaction() == Self.calm)
    }

    @Test func `of malformed requests ends the connection`() throws {
        let connection = try RawConnection()
        for stream in stride(from: UInt32(1), to: 201, by: 2) where !connection.isClosed {
            try connection.send(.request(stream, fields: [("Upper", "1")]))
        }
        #expect(try connection.reaction() == Self.calm)
    }

    @Test(arguments: [[UInt8](), Frame.field("a", "1")])
    func `of CONTINUATION frames ends the connection (CVE-2024-28182)`(piece: [UInt8]) throws {
        let head = Frame.block(1, requestBlock(), flags: Frame.endStream)
        let pieces = [Frame](repeating: .continuation(1, piece, isLast: false), count: 8)
        #expect(try reaction(to: head, pieces + [.continuation(1, piece, isLast: false)]) == Self.calm)
        #expect(try reaction(to: head, pieces.dropLast() + [.continuation(1, piece)]) == .response(1, status: 200))
    }

    @Test func `of CONTINUATION frames is counted also for a field block that is dropped`() throws {
        let connection = try RawConnection()
        try connection.send(Self.openRequest, .reset(1))
        let pieces = [Frame](repeating: .continuation(1, [], isLast: false), count: 9)
        try connection.send([.block(1, [], flags: Frame.endStream)] + pieces)
        #expect(try connection.reaction() == Self.calm)
    }

    @Test func `is not what eight CONTINUATION frames are that come byte by byte`() throws {
        let connection = try RawConnection()
        let pieces = [Frame](repeating: .continuation(1, Frame.field("a", "1"), isLast: false), count: 7)
        let frames = [.block(1, requestBlock(), flags: Frame.endStream)] + pieces + [.continuation(1, [])]
        for byte in frames.flatMap(\.bytes) { try connection.send(bytes: [byte]) }
        #expect(try connection.reaction() == .response(1, status: 200))
        try connection.finish()
    }

    @Test func `is told to a client that reads no answer before it has sent everything`() async throws {
        try await TestServer.run { _ in
            .text("")
        } during: { server in
            for frame in [Frame.ping(), .windowUpdate(0, 1)] {
                let client = try await FrameClient.connect(server.port)
                try await client.send(bytes: (0..<20_000).flatMap { _ in frame.bytes })
                let goAway = try await client.next { $0.kind == .goAway }
                #expect(goAway.number(at: 4) == WireCode.enhanceYourCalm.rawValue)
                #expect(try await client.next() == nil)
            }
            let ends = server.log.entries.filter { $0.message == "connection ended by the server" }
            #expect(
                ends.map { $0.metadata["reason"] } == ["limit: ping-settings-flood", "limit: frames-without-progress"])
            #expect(ends.allSatisfy { $0.level == .debug })
        }
    }

    private func reaction(to head: Frame, _ frames: [Frame]) throws -> Reaction {
        let connection = try RawConnection()
        try connection.send([head] + frames)
        let reaction = try connection.reaction()
        try connection.finish()
        return reaction
    }
}
