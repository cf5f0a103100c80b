import HTTPTypes
import Testing

@testable import LimpetServer

/// RFC 9113, section 6.9: WINDOW_UPDATE and the windows.
@Suite struct `Flow control` {
    private static let openRequest = Frame.request(1, "POST", endStream: false)

    private func answering(bytes count: Int) -> HTTP2Server.Handler {
        { _ in ServerResponse(status: .ok, body: ResponseBody([UInt8](repeating: 7, count: count))) }
    }

    private func dataBytes(_ connection: RawConnection) throws -> [UInt32: Int] {
        var counts: [UInt32: Int] = [:]
        for frame in try connection.take() where frame.kind == .data {
            counts[frame.stream, default: 0] += frame.payload.count
        }
        return counts
    }

    // MARK: 6.9

    @Test func `RFC 9113 6.9: an increment of 0 on a stream is an error`() throws {
        // A stream error; a connection error may stand for it (section 5.4.1).
        #expect(
            try reaction(to: Self.openRequest, .windowUpdate(1, 0)) == .connectionError(.protocolError))
    }

    @Test func `RFC 9113 6.9: an increment of 0 on the connection is a connection error`() throws {
        #expect(try reaction(to: .windowUpdate(0, 0)) == .connectionError(.protocolError))
    }

    @Test(arguments: [0, 3, 5], [UInt32(0), 1])
    func `RFC 9113 6.9: WINDOW_UPDATE has four bytes`(length: Int, stream: UInt32) throws {
        let frame = Frame(kind: .windowUpdate, stream: stream, payload: [UInt8](repeating: 1, count: length))
        #expect(try reaction(to: Self.openRequest, frame) == .connectionError(.frameSizeError))
    }

    @Test func `RFC 9113 6.9: the reserved bit of an increment is ignored`() throws {
        #expect(try reaction(to: .windowUpdate(0, 0x8000_0001)) == .nothing)
        #expect(try reaction(to: .windowUpdate(0, 0x8000_0000)) == .connectionError(.protocolError))
    }

    @Test func `RFC 9113 6.9: WINDOW_UPDATE on an idle stream is a connection error`() throws {
        #expect(try reaction(to: .windowUpdate(1, 1)) == .connectionError(.protocolError))
    }

    // MARK: 6.9.1

    /// The rule leaves the choice; later versions of the library end the connection.
    private static func isFlowControlError(_ reaction: Reaction) -> Bool {
        reaction == .streamError(1, .flowControlError) || reaction == .connectionError(.flowControlError)
    }

    @Test func `RFC 9113 6.9.1: a window over 2^31-1 resets the stream with FLOW_CONTROL_ERROR`() throws {
        #expect(Self.isFlowControlError(try reaction(to: Self.openRequest, .windowUpdate(1, 0x7fff_ffff))))
    }

    @Test func `RFC 9113 6.9.1: a connection window over 2^31-1 is a connection error`() throws {
        #expect(try reaction(to: .windowUpdate(0, 0x7fff_ffff)) == .connectionError(.flowControlError))
        #expect(try reaction(to: .windowUpdate(0, 0x7fff_ffff - 65_535)) == .nothing)
    }

    @Test func `RFC 9113 6.9.1: the server sends no more than the stream's window`() throws {
        let connection = try RawConnection(handler: answering(bytes: 100))
        try connection.send(.settings((4, 3)), .request(1))
        #expect(try dataBytes(connection) == [1: 3])
        try connection.send(.windowUpdate(0, 1000))
        #expect(try dataBytes(connection) == [:])
        try connection.send(.windowUpdate(1, 4))
        #expect(try dataBytes(connection) == [1: 4])
        try connection.send(.windowUpdate(1, 1000))
        #expect(try dataBytes(connection) == [1: 93])
        try connection.finish()
    }

    @Test func `RFC 9113 6.9.1: the server sends no more than the connection's window`() throws {
        let connection = try RawConnection(handler: answering(bytes: 50_000))
        try connection.send(.request(1), .request(3))
        #expect(try dataBytes(connection).values.reduce(0, +) == 65_535)
        try connection.send(.windowUpdate(1, 100_000), .windowUpdate(3, 100_000))
        #expect(try dataBytes(connection) == [:])
        try connection.send(.windowUpdate(0, 1))
        #expect(try dataBytes(connection).values.reduce(0, +) == 1)
        try connection.send(.windowUpdate(0, 100_000))
        #expect(try dataBytes(connection).values.reduce(0, +) == 100_000 - 65_536)
        try connection.finish()
    }

    @Test func `RFC 9113 6.9.1: an answer without content needs no window`() throws {
        let connection = try RawConnection()
        try connection.send(.settings((4, 0)), .request(1))
        #expect(try connection.take().contains { $0.kind == .headers && $0.endsStream })
        try connection.finish()
    }

    @Test func `RFC 9113 6.9.1: a client over the stream's window is told FLOW_CONTROL_ERROR`() throws {
        var limits = ServerLimits()
        limits.streamWindow = 10
        let excess = Frame.data(1, [UInt8](repeating: 0, count: 11), endStream: false)
        #expect(Self.isFlowControlError(try reaction(to: Self.openRequest, excess, limits: limits)))
        let padded = Frame.data(1, [1, 2], endStream: false).padded(8)
        #expect(Self.isFlowControlError(try reaction(to: Self.openRequest, padded, limits: limits)))
    }

    @Test func `RFC 9113 6.9.1: a client over the connection's window is a connection error`() throws {
        var limits = ServerLimits()
        limits.connectionWindow = 65_535
        let connection = try RawConnection(limits: limits, handler: neverAnswer)
        // In one piece: nothing is given back in between.
        let piece = [UInt8](repeating: 0, count: 16_384)
        try connection.send(
            Self.openRequest, .data(1, piece, endStream: false), .data(1, piece, endStream: false),
            .data(1, piece, endStream: false), .data(1, piece, endStream: false))
        #expect(try connection.reaction() == .connectionError(.flowControlError))
    }

    // MARK: 6.9.2

    @Test func `RFC 9113 6.9.2: a change of INITIAL_WINDOW_SIZE applies to open streams`() throws {
        let connection = try RawConnection(handler: answering(bytes: 100))
        try connection.send(.settings((4, 0)), .request(1), .request(3))
        #expect(try dataBytes(connection) == [:])
        try connection.send(.settings((4, 10)))
        #expect(try dataBytes(connection) == [1: 10, 3: 10])
        try connection.send(.settings((4, 1000)))
        #expect(try dataBytes(connection) == [1: 90, 3: 90])
        try connection.finish()
    }

    @Test func `RFC 9113 6.9.2: a window may become negative, and nothing is sent until it is positive`() throws {
        let connection = try RawConnection(handler: answering(bytes: 100))
        try connection.send(.settings((4, 30)), .request(1))
        #expect(try dataBytes(connection) == [1: 30])
        try connection.send(.settings((4, 10)))
        try connection.send(.windowUpdate(1, 20))
        #expect(try dataBytes(connection) == [:])
        try connection.send(.windowUpdate(1, 1))
        #expect(try dataBytes(connection) == [1: 1])
        try connection.finish()
    }

    @Test func `RFC 9113 6.9.2: a change of INITIAL_WINDOW_SIZE leaves the connection's window alone`() throws {
        let connection = try RawConnection(handler: answering(bytes: 100_000))
        try connection.send(.settings((4, 1_000_000)), .request(1))
        #expect(try dataBytes(connection) == [1: 65_535])
        try connection.finish()
    }

    @Test func `RFC 9113 6.9.2: a change that takes a window over 2^31-1 is an error`() throws {
        // RFC 9113 asks for a connection error; the library resets the streams whose windows overflow.
        #expect(
            try reaction(
                to: .settings((4, 65_535)), Self.openRequest, .windowUpdate(1, 0x7fff_ffff - 65_535),
                .settings((4, 65_536)))
                == .connectionError(.flowControlError))
    }
}
