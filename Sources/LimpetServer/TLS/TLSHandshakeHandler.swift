import Logging
import NIOCore
import NIOTLS

/// A connection over TLS until it is HTTP/2: bounds the time of the handshake, and refuses clients that did not
/// negotiate `h2`.
///
/// What happens next is decided by ``TLSNegotiation``; this class does it, and then makes room for an
/// ``HTTP2ConnectionHandler``: a client that does not get so far costs no session. Confined to the connection's event
/// loop.
final class TLSHandshakeHandler: ChannelInboundHandler, RemovableChannelHandler {
    typealias InboundIn = ByteBuffer
    typealias InboundOut = ByteBuffer
    typealias OutboundOut = ByteBuffer

    private let server: ServerContext
    private let loop: LoopContext
    private var negotiation = TLSNegotiation()
    private var deadline: Scheduled<Void>?

    init(server: ServerContext, loop: LoopContext) {
        self.server = server
        self.loop = loop
    }

    func handlerAdded(context: ChannelHandlerContext) {
        deadline = context.eventLoop.assumeIsolated().scheduleTask(in: server.limits.tlsHandshakeTimeout) {
            if self.end(context, "no HTTP/2 was negotiated in time") { self.loop.counts.hit(.handshakeTime) }
        }
        server.connections.add(context.channel, for: self)
    }

    func handlerRemoved(context: ChannelHandlerContext) {
        deadline?.cancel()
        deadline = nil
        server.connections.remove(self)
    }

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        switch event {
        case TLSUserEvent.handshakeCompleted(let negotiated):
            if negotiation.completed(negotiated: negotiated) { serve(context) }
        case is ChannelShouldQuiesceEvent where end(context, "the server stops"):
            break
        default:
            context.fireUserInboundEventTriggered(event)
        }
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        switch negotiation.received(unwrapInboundIn(data)) {
        case .pass: context.fireChannelRead(data)
        case .wait, .ignore: break
        case .refuse(let answer):
            server.logger.debug("client did not negotiate HTTP/2")
            if let answer { context.writeAndFlush(wrapOutboundOut(answer), promise: nil) }
            // Sends `close_notify`, and reads on until the client's has come: the client does not lose the answer.
            context.close(promise: nil)
        }
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        server.logger.debug("TLS failed", metadata: ["error": "\(error)"])
        _ = negotiation.giveUp()
        context.close(promise: nil)
    }

    private func serve(_ context: ChannelHandlerContext) {
        do {
            let connection = try HTTP2ConnectionHandler(server: server, loop: loop, advice: .negotiate)
            try context.pipeline.syncOperations.addHandler(connection, position: .after(self))
        } catch {
            return errorCaught(context: context, error: error)
        }
        context.pipeline.syncOperations.removeHandler(context: context, promise: nil)
    }

    /// - Returns: whether the connection was not HTTP/2 yet, and is closed.
    private func end(_ context: ChannelHandlerContext, _ reason: String) -> Bool {
        guard negotiation.giveUp() else { return false }
        server.logger.debug("TLS connection ended by the server", metadata: ["reason": "\(reason)"])
        context.close(promise: nil)
        return true
    }
}
