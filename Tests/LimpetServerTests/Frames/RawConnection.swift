import HTTPTypes
import Logging
import Metrics
import NIOCore
import NIOEmbedded
import Tracing

@testable import LimpetServer

/// An error code as it is on the wire (RFC 9113, section 7).
enum WireCode: UInt32 {
    case noError, protocolError, internalError, flowControlError, settingsTimeout, streamClosed, frameSizeError
    case refusedStream, cancel, compressionError, connectError, enhanceYourCalm, inadequateSecurity, http11Required
}

/// What a server has made of the frames that it was sent.
enum Reaction: Equatable {
    /// Nothing was sent, and the connection still serves.
    case nothing
    /// A response, whole or in part.
    case response(UInt32, status: Int?)
    /// RST_STREAM; the connection still serves.
    case streamError(UInt32, WireCode?)
    /// GOAWAY, and the connection is closed.
    case connectionError(WireCode?)
    /// The connection is closed without GOAWAY.
    case closed
    /// Anything else.
    case other([Frame])
}

/// A connection of the server without a socket, and with no clock but what the test says: bytes in, frames out, at once.
/// What a server does not send can be seen as well as what it does.
final class RawConnection {
    let channel: EmbeddedChannel
    private let server: ServerContext
    private let loop: LoopContext
    private weak var handler: HTTP2ConnectionHandler?
    private var unread = ByteBuffer()
    private var pings: UInt8 = 0

    /// - Parameters:
    ///   - other: a connection on the same event loop.
    ///   - handshake: sends the preface with empty SETTINGS, acknowledges the server's, and drops what the server sent.
    init(
        after other: RawConnection? = nil, limits: ServerLimits = ServerLimits(), handshake: Bool = true,
        handler: @escaping HTTP2Server.Handler = answerWhenComplete
    ) throws {
        server = ServerContext(
            handler: handler, limits: limits, logsAccess: false, logger: Logger(label: "test"),
            metrics: NOOPMetricsHandler.instance, tracer: NoOpTracer())
        channel = EmbeddedChannel(loop: other?.channel.embeddedEventLoop ?? EmbeddedEventLoop())
        loop = other?.loop ?? LoopContext(channel.eventLoop, server: server)
        let connection = try HTTP2ConnectionHandler(server: server, loop: loop)
        self.handler = connection
        try channel.pipeline.syncOperations.addHandler(connection)
        try channel.connect(to: SocketAddress(unixDomainSocketPath: "test")).wait()
        guard handshake else { return }
        try send(bytes: Frame.preface)
        try send(.emptySettings, Frame(kind: .settings, flags: Frame.acknowledgement))
        _ = try take()
    }

    /// Closes the connection as a client does that goes away.
    func finish() throws {
        _ = try channel.finish(acceptAlreadyClosed: true)
    }

    var isClosed: Bool { !channel.isActive }

    /// Whether the server has sent a part of a frame that ``take()`` has not handed out.
    var hasPartOfFrame: Bool { unread.readableBytes > 0 }

    /// The connections that the server still knows: this one until its handlers have returned.
    var openConnections: Int { server.connections.count }

    /// Whether the server's side of the connection is still in memory.
    var isHandlerAlive: Bool { handler != nil }

    /// Sends frames in one piece.
    func send(_ frames: Frame...) throws {
        try send(frames)
    }

    func send(_ frames: [Frame]) throws {
        var buffer = ByteBuffer()
        for frame in frames { frame.write(to: &buffer) }
        try send(buffer)
    }

    func send(bytes: [UInt8]) throws {
        try send(ByteBuffer(bytes: bytes))
    }

    private func send(_ buffer: ByteBuffer) throws {
        guard channel.isActive else { return }
        try channel.writeInbound(buffer)
        channel.embeddedEventLoop.run()
    }

    /// Lets time pass, tick by tick.
    func advance(_ time: TimeAmount) {
        channel.embeddedEventLoop.advanceTime(by: time)
        channel.embeddedEventLoop.run()
    }

    /// The frames that the server has sent since the last call.
    func take() throws -> [Frame] {
        while var buffer = try channel.readOutbound(as: ByteBuffer.self) { unread.writeBuffer(&buffer) }
        var frames: [Frame] = []
        while let frame = Frame(takingFrom: &unread) { frames.append(frame) }
        return frames
    }

    /// What the server has made of everything since the last ``take()``. WINDOW_UPDATE frames are left out.
    func reaction() throws -> Reaction {
        let frames = try take().filter { $0.kind != .windowUpdate }
        if isClosed {
            guard let last = frames.last, last.kind == .goAway else { return .closed }
            return .connectionError(WireCode(rawValue: last.number(at: 4)))
        }
        guard try isServing() else { return .other(frames) }
        switch frames.first {
        case nil: return .nothing
        case let frame? where frame.kind == .resetStream && frames.count == 1:
            return .streamError(frame.stream, WireCode(rawValue: frame.number(at: 0)))
        case let frame? where frame.kind == .headers && frames.dropFirst().allSatisfy({ $0.kind == .data }):
            return .response(frame.stream, status: frame.status)
        default: return .other(frames)
        }
    }

    /// Whether a PING comes back.
    private func isServing() throws -> Bool {
        pings += 1
        let payload = [UInt8](repeating: pings, count: 8)
        try send(Frame(kind: .ping, payload: payload))
        return try take().contains(Frame(kind: .ping, flags: Frame.acknowledgement, payload: payload))
    }
}

/// Sends frames on a connection of its own, and tells what the server has made of all of them together.
func reaction(
    to frames: Frame..., limits: ServerLimits = ServerLimits(),
    handler: @escaping HTTP2Server.Handler = answerWhenComplete
) throws -> Reaction {
    let connection = try RawConnection(limits: limits, handler: handler)
    try connection.send(frames)
    let reaction = try connection.reaction()
    try connection.finish()
    return reaction
}

/// The header block of a complete request, `GET /` unless told otherwise, and behind it other fields.
func requestBlock(_ method: String = "GET", _ fields: [(String, String)] = []) -> [UInt8] {
    Frame.request(1, method, fields: fields).payload
}

/// Reads the request to its end, and answers 200 without content.
let answerWhenComplete: HTTP2Server.Handler = { request in
    _ = try await request.body.collect(upTo: 1 << 20)
    return ServerResponse(status: .ok)
}

/// Never answers.
let neverAnswer: HTTP2Server.Handler = { _ in
    await Signal().wait()
    return ServerResponse(status: .ok)
}
