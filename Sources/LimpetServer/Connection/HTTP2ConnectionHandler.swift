import HTTPTypes
import Logging
import NIOCore

/// One connection: feeds the client's bytes to the session, starts a handler for each request, and writes what the
/// session has to send, once for each burst of bytes that was read.
///
/// What happens next is decided by ``ConnectionState`` and ``StreamTable``; this class does it. Confined to the
/// connection's event loop.
final class HTTP2ConnectionHandler: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer

    private let server: ServerContext
    private let loop: LoopContext
    private var session: NGHTTP2Session
    private var state = ConnectionState()
    private var streams: StreamTable
    /// The events that are being handled; kept for its memory.
    private var events: [HTTP2Event] = []
    private var context: ChannelHandlerContext?
    /// Bytes are being read: what is to be sent is written when the burst is over.
    private var isReading = false
    private var isFlushScheduled = false

    init(server: ServerContext, loop: LoopContext) throws {
        self.server = server
        self.loop = loop
        session = try NGHTTP2Session(limits: server.limits)
        streams = StreamTable(limits: server.limits)
    }

    // MARK: Events of the channel

    func handlerAdded(context: ChannelHandlerContext) {
        self.context = context
        server.connections.add(context.channel, for: self)
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        switch state.received(unwrapInboundIn(data)) {
        case .feed(let bytes): feed(bytes, context)
        case .refuse(let answer): refuse(answer, context)
        case .wait, .ignore: break
        }
    }

    func channelReadComplete(context: ChannelHandlerContext) {
        isReading = false
        flush(context)
    }

    func channelWritabilityChanged(context: ChannelHandlerContext) {
        if context.channel.isWritable { flush(context) }
    }

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        guard event is ChannelShouldQuiesceEvent else { return context.fireUserInboundEventTriggered(event) }
        switch state.drain() {
        case .nothing: break
        case .close: context.close(promise: nil)
        case .sendNotice:
            attempt(context) { () throws(NGHTTP2Error) in try session.noticeShutdown() }
            flush(context)
        }
    }

    func channelInactive(context: ChannelHandlerContext) {
        _ = state.close()
        for task in streams.closeAll() { task.cancel() }
        self.context = nil
        leaveIfDone()
        context.fireChannelInactive()
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        server.logger.debug("connection failed", metadata: ["error": "\(error)"])
        context.close(promise: nil)
    }

    // MARK: Input

    private func feed(_ bytes: ByteBuffer, _ context: ChannelHandlerContext) {
        isReading = true
        attempt(context) { () throws(NGHTTP2Error) in
            defer { session.takeEvents(&events) }
            try session.receive(bytes)
        }
        handleEvents(context)
        if !context.channel.isWritable, session.queuedFrames > server.limits.maxQueuedFrames {
            fail(context, "client does not read", .enhanceYourCalm)
        }
    }

    private func handleEvents(_ context: ChannelHandlerContext) {
        // What came before the connection failed is not handled either: its answer could not be sent.
        for event in events where state.isServing {
            attempt(context) { () throws(NGHTTP2Error) in try handle(event) }
        }
        events.removeAll(keepingCapacity: true)
    }

    private func handle(_ event: HTTP2Event) throws(NGHTTP2Error) {
        switch event {
        case .request(let id, let head, isComplete: true):
            try start(id, ServerRequest(head: head))
        case .request(let id, let head, isComplete: false):
            if streams.open(id, head) == .tooLarge {
                try respond(Self.bodyTooLarge, to: id, isAnswerToHead: head.method == .head, isEarly: true)
            }
        case .oversizedRequest(let id, let method, let isComplete):
            let answer = ServerResponse.text("The header fields are too large.\n", status: .requestHeaderFieldsTooLarge)
            try respond(answer, to: id, isAnswerToHead: method == .head, isEarly: !isComplete)
        case .body(let id, let bytes):
            switch streams.received(bytes, on: id) {
            case .kept:
                try session.consume(bytes.readableBytes, on: id)
            case .tooLarge:
                try session.discard(bytes.readableBytes)
                try respond(Self.bodyTooLarge, to: id, isAnswerToHead: false, isEarly: true)
            case .unwanted:
                try session.discard(bytes.readableBytes)
            }
        case .endOfRequest(let id):
            if let request = streams.complete(id) { try start(id, request) }
        case .closed(let id):
            streams.closed(id)?.cancel()
        case .pingAnswered:
            if state.pingAnswered() { try session.refuseNewStreams() }
        }
    }

    // MARK: Handlers

    private static let bodyTooLarge = ServerResponse.text("The body is too large.\n", status: .contentTooLarge)

    /// Runs the handler on this thread until it suspends or returns.
    private func start(_ id: StreamID, _ request: ServerRequest) throws(NGHTTP2Error) {
        guard streams.start(id) else { return try session.reset(id, .refusedStream) }
        let handler = server.handler
        let connection = NIOLoopBound(self, eventLoop: loop.eventLoop)
        let task = Task.immediate(executorPreference: loop.executor) {
            let result: Result<ServerResponse, any Error>
            do {
                result = .success(try await handler(request))
            } catch {
                result = .failure(error)
            }
            // The task prefers this loop, but a handler may have its own idea of where it ends.
            let isAnswerToHead = request.method == .head
            if connection.eventLoop.inEventLoop {
                connection.value.finished(id, result, isAnswerToHead: isAnswerToHead)
            } else {
                connection.eventLoop.execute {
                    connection.value.finished(id, result, isAnswerToHead: isAnswerToHead)
                }
            }
        }
        streams.started(task)
    }

    private func finished(_ id: StreamID, _ result: Result<ServerResponse, any Error>, isAnswerToHead: Bool) {
        let isAwaited = streams.finished(id)
        guard let context else { return leaveIfDone() }
        guard isAwaited, state.isServing else { return }
        attempt(context) { () throws(NGHTTP2Error) in
            try respond(answer(for: result), to: id, isAnswerToHead: isAnswerToHead, isEarly: false)
        }
        if !isReading { scheduleFlush(context) }
    }

    private func answer(for result: Result<ServerResponse, any Error>) -> ServerResponse {
        switch result {
        case .success(let response) where response.status.code >= 200:
            return response
        case .success(let response):
            server.logger.error(
                "request handler answered with a status that is not final", metadata: ["status": "\(response.status)"])
        case .failure(let error as ServerError) where error.code == .bodyTooLarge:
            return Self.bodyTooLarge
        case .failure(let error):
            server.logger.error(
                "request handler failed", metadata: ["error.type": "\(type(of: error))", "error": "\(error)"])
        }
        return .text("The server has failed.\n", status: .internalServerError)
    }

    private func respond(
        _ response: ServerResponse, to id: StreamID, isAnswerToHead: Bool, isEarly: Bool
    ) throws(NGHTTP2Error) {
        let sendsBody = loop.fields.write(response, isAnswerToHead: isAnswerToHead, date: loop.dates.now())
        try session.respond(to: id, loop.fields, body: sendsBody ? response.body.bytes : [], isEarly: isEarly)
    }

    // MARK: Output

    /// Writes later in this tick of the loop, together with what other handlers finish until then.
    private func scheduleFlush(_ context: ChannelHandlerContext) {
        guard !isFlushScheduled else { return }
        isFlushScheduled = true
        context.eventLoop.assumeIsolated().execute {
            self.isFlushScheduled = false
            if let context = self.context { self.flush(context) }
        }
    }

    /// Writes what the session has to send, as far as the client reads it.
    private func flush(_ context: ChannelHandlerContext) {
        guard state.isServing else { return }
        attempt(context) { () throws(NGHTTP2Error) in
            var isMoreLeft = true
            while isMoreLeft, context.channel.isWritable {
                loop.output.clear()
                isMoreLeft = try session.write(to: &loop.output)
                if loop.output.readableBytes > 0 {
                    context.writeAndFlush(wrapOutboundOut(loop.output), promise: nil)
                }
            }
        }
        if state.isServing, session.isFinished, state.close() { context.close(promise: nil) }
    }

    // MARK: The end

    /// Does something with the session. Its failure is the connection's.
    private func attempt(_ context: ChannelHandlerContext, _ body: () throws(NGHTTP2Error) -> Void) {
        do {
            try body()
        } catch {
            fail(context, "\(error)", error.http2Code)
        }
    }

    /// Tells the client what is wrong with the connection, and closes it.
    private func fail(_ context: ChannelHandlerContext, _ reason: String, _ code: HTTP2ErrorCode) {
        guard state.isServing else { return }
        server.logger.debug("connection ended by the server", metadata: ["reason": "\(reason)", "code": "\(code)"])
        do {
            try session.terminate(code)
            loop.output.clear()
            _ = try session.write(to: &loop.output)
            context.writeAndFlush(wrapOutboundOut(loop.output), promise: nil)
        } catch {
            server.logger.debug("GOAWAY cannot be sent", metadata: ["error": "\(error)"])
        }
        if state.close() { context.close(promise: nil) }
    }

    /// Answers a client that does not speak HTTP/2, and closes when it has read the answer.
    private func refuse(_ answer: ByteBuffer?, _ context: ChannelHandlerContext) {
        guard let answer else { return context.close(promise: nil) }
        context.writeAndFlush(wrapOutboundOut(answer), promise: nil)
        // Not both directions: closing with unread bytes resets the connection, and the client may lose the answer.
        context.close(mode: .output, promise: nil)
        context.eventLoop.assumeIsolated().scheduleTask(in: server.limits.refusalTimeout) {
            self.context?.close(promise: nil)
        }
    }

    private func leaveIfDone() {
        if context == nil, streams.liveHandlers == 0 { server.connections.remove(self) }
    }
}
