import Logging
import Metrics
import NIOCore
import NIOEmbedded
import Tracing

@testable import LimpetServer

/// A connection with no event loop but the test itself, and no clock but what the test says.
struct EmbeddedConnection {
    let channel: EmbeddedChannel
    private let received = Received()

    private final class Received {
        var bytes: [UInt8] = []
    }

    init(limits: ServerLimits = ServerLimits(), handler: @escaping HTTP2Server.Handler) throws {
        channel = EmbeddedChannel()
        let server = ServerContext(
            handler: handler, limits: limits, logsAccess: false, logger: Logger(label: "test"),
            metrics: NOOPMetricsHandler.instance, tracer: NoOpTracer())
        let loop = LoopContext(channel.eventLoop, server: server)
        try channel.pipeline.syncOperations.addHandler(HTTP2ConnectionHandler(server: server, loop: loop))
        try channel.connect(to: SocketAddress(unixDomainSocketPath: "test")).wait()
    }

    /// Sends preface and SETTINGS, and drops the server's.
    func greet() throws {
        try send(bytes: FrameClient.preface)
        try send(.emptySettings)
        _ = try frames()
    }

    func send(_ frames: Frame...) throws {
        var buffer = ByteBuffer()
        for frame in frames { frame.write(to: &buffer) }
        try channel.writeInbound(buffer)
    }

    func send(bytes: [UInt8]) throws {
        try channel.writeInbound(ByteBuffer(bytes: bytes))
    }

    /// Lets time pass, tick by tick.
    func advance(_ time: TimeAmount) {
        channel.embeddedEventLoop.advanceTime(by: time)
        channel.embeddedEventLoop.run()
    }

    /// The frames that the server has sent since the last call.
    func frames() throws -> [Frame] {
        while let buffer = try channel.readOutbound(as: ByteBuffer.self) { received.bytes += buffer.readableBytesView }
        var frames: [Frame] = []
        while let frame = Frame(takingFrom: &received.bytes) { frames.append(frame) }
        return frames
    }

    func finish() throws {
        _ = try channel.finish(acceptAlreadyClosed: true)
    }
}
