import HTTPTypes
import Logging
import NIOCore

/// One connection: feeds the client's bytes to the session, starts a handler for each request, and writes what the
/// session has to send, once for each burst of bytes that was read.
///
/// What happens next is decided by ``ConnectionState``, ``StreamTable``, ``InboundFrames`` and ``ConnectionTimeouts``; this
/// class does it. Confined to the connection's event loop.
final class HTTP2ConnectionHandler: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer

    let server: ServerContext
    let loop: LoopContext
    var session: NGHTTP2Session
    var state: ConnectionState
    var streams: StreamTable
    var unread: UnreadBodies
    var openRequests: OpenRequests
    private var inbound: InboundFrames
    private var timeouts: ConnectionTimeouts
    private var events = EventQueue()
    /// The request that is served next.
    private var next: Exchange?
    private(set) var context: ChannelHandlerContext?
    /// Bytes are being read: what is to be sent is written when the burst is over.
    private var isReading = false
    private var isFlushScheduled = false
    /// Bytes that were given to the channel.
    private var bytesWritten = 0
    /// The open streams and the client's resets that have been counted.
    private var countedStreams = 0
    private var countedResets = 0
    /// The streams that had been opened at the last tick.
    private var seenStreams = 0
    /// What requests have left was given back, and there were none since.
    private var isTrimmed = true

    /// - Parameter advice: what a client is told that speaks HTTP/1.
    init(server: ServerContext, loop: LoopContext, advice: ClientPreface.Advice = .priorKnowledge) throws {
        self.server = server
        self.loop = loop
        state = ConnectionState(advice: advice)
        session = try NGHTTP2Session(limits: server.limits)
        streams = StreamTable(limits: server.limits)
        unread = UnreadBodies(limits: server.limits)
        openRequests = OpenRequests(limits: server.limits)
        inbound = InboundFrames(limits: server.limits)
        timeouts = ConnectionTimeouts(limits: server.limits, opened: loop.now, spread: .random(in: 0...1))
    }

    // MARK: Events of the channel

    func handlerAdded(context: ChannelHandlerContext) {
        self.context = context
        loop.add(self)
        // Only now is the loop's time that of this moment.
        timeouts = ConnectionTimeouts(limits: server.limits, opened: loop.now, spread: .random(in: 0...1))
        server.connections.add(context.channel, for: self)
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        let bytes = unwrapInboundIn(data)
        loop.counts.receivedBytes += bytes.readableBytes
        switch state.received(bytes) {
        case .feed(let bytes):
            feed(bytes, context)
            if state.isDrainDue { drain(context) }
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
        drain(context)
    }

    func channelInactive(context: ChannelHandlerContext) {
        leave()
        context.fireChannelInactive()
    }

    /// A channel that was closed while it was being accepted has never been active.
    func handlerRemoved(context: ChannelHandlerContext) {
        leave()
    }

    private func leave() {
        guard context != nil else { return }
        _ = state.close()
        count(openStreams: 0)
        loop.remove(self)
        for stream in streams.closeAll() { stream.close() }
        context = nil
        countRequests()
        leaveIfDone()
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        server.logger.debug("connection failed", metadata: ["error": "\(error)"])
        context.close(promise: nil)
    }

    // MARK: Input

    private func feed(_ bytes: ByteBuffer, _ context: ChannelHandlerContext) {
        isReading = true
        let verdict = inbound.received(bytes, at: loop.now)
        attempt { () throws(NGHTTP2Error) in try session.receive(verdict.readable(bytes)) }
        handleEvents()
        for request in streams.takeArriving() where state.isServing {
            attempt { () throws(NGHTTP2Error) in next = try start(request) }
            if next != nil { serve() }
        }
        if case .end(_, let fault) = verdict { return fail(fault) }
        if !context.channel.isWritable, session.queuedFrames > server.limits.maxQueuedFrames {
            fail(.queuedFrames)
        }
    }

    private func handleEvents() {
        events.refill { session.takeEvents(&$0) }
        while hasNext() { serve() }
        events.clear()
    }

    /// The next request that is to be served; `nil` when all are, and always elsewhere than below `handleEvents`.
    func nextExchange() -> Exchange? {
        guard hasNext() else { return nil }
        defer { next = nil }
        return next
    }

    /// Handles what has happened up to the next request that is to be served.
    private func hasNext() -> Bool {
        // What came before the connection failed is not handled either: its answer could not be sent.
        while next == nil, state.isServing, let event = events.next() {
            attempt { () throws(NGHTTP2Error) in
                if let request = try handle(event) { next = try start(request) }
            }
        }
        return next != nil
    }

    /// - Returns: a request whose handler is to be started.
    private func handle(_ event: HTTP2Event) throws(NGHTTP2Error) -> StreamTable.Request? {
        switch event {
        case .request(let id, let head, _) where head.method == .connect:
            try refuse(id, head, Self.noTunnel)
        case .request(let id, let head, let isComplete):
            if isComplete { return StreamTable.Request(id: id, head: head, body: nil) }
            try open(id, head)
        case .oversizedRequest(let id, let head):
            loop.counts.hit(.headerList)
            try refuse(id, head, Self.headTooLarge)
        case .unsentHead(let id):
            server.logger.error("the header fields of a response are too large to be sent")
            try session.reset(id, .internalError)
        case .body(let id, let bytes):
            let count = bytes.readableBytes
            try giveBack(unread.received(count, ofLoop: &loop.unreadBytes))
            if streams.body(id)?.append(bytes) != true { bodyWasDropped(count) }
        case .endOfRequest(let id, let trailers):
            streams.body(id)?.complete(trailers: trailers)
            return streams.complete(id)
        case .closed(let id):
            guard let stream = streams.closed(id) else { break }
            if loop.now - stream.began >= server.limits.patience { inbound.gaveUp() }
            stream.close()
        case .pingAnswered:
            guard state.isNoticeSent else { break }
            loop.eventLoop.assumeIsolated().scheduleTask(in: server.limits.drainGrace) { self.finishNotice() }
        }
        return nil
    }

    // MARK: Output

    /// Writes later in this tick of the loop, together with what other handlers finish until then.
    func scheduleFlush() {
        guard !isReading, !isFlushScheduled else { return }
        isFlushScheduled = true
        loop.eventLoop.assumeIsolated().execute {
            self.isFlushScheduled = false
            if let context = self.context { self.flush(context) }
        }
    }

    /// Writes what the session has to send, as far as the client reads it.
    private func flush(_ context: ChannelHandlerContext) {
        // Not from within `handleEvents`: the end of a connection can lead here.
        guard state.isServing, events.isEmpty else { return }
        attempt { () throws(NGHTTP2Error) in
            var isMoreLeft = true
            while isMoreLeft, state.isServing, context.channel.isWritable {
                loop.output.clear()
                let written = try session.write(to: &loop.output)
                isMoreLeft = written.isMoreLeft
                let count = loop.output.readableBytes
                loop.counts.sent(count, resets: written.frames.resets)
                if count > 0 {
                    bytesWritten += count
                    context.writeAndFlush(wrapOutboundOut(loop.output), promise: nil)
                }
                for body in written.drainedBodies { body.wake() }
                if let fault = inbound.sent(written.frames, isAll: !isMoreLeft, at: loop.now) {
                    return fail(fault)
                }
                // Streams end when their last frame is sent, or a reset.
                if written.hasEvents {
                    handleEvents()
                    isMoreLeft = isMoreLeft || session.hasOutput
                }
            }
        }
        countRequests()
        // For writing only: what is still to be sent would be lost with the rest.
        if session.isFinished, state.finish() { context.close(mode: .output, promise: nil) }
    }

    /// Streams have ended, or handlers of closed streams have returned.
    func countRequests() {
        let open = (context == nil ? 0 : session.openStreams) + streams.abandonedHandlers
        openRequests.update(open, ofLoop: &loop.openRequests)
    }

    // MARK: Time

    /// Looks at what the client has not done in time. Called once a ``ServerLimits/tick``.
    func tick() {
        guard let context, state.isOpen || state.isEnding else { return }
        count(openStreams: session.openStreams)
        let isBusy = session.openStreams > 0 || session.openedStreams != seenStreams
        seenStreams = session.openedStreams
        trim(isIdle: !isBusy)
        let buffered = bufferedBytes(context.channel)
        if state.isEnding {
            let isOver = timeouts.isOver(bytesLeft: buffered, bytesTaken: bytesWritten - buffered, at: loop.now)
            if isOver { context.close(promise: nil) }
            return
        }
        let moment = ConnectionTimeouts.Moment(
            now: loop.now, isGreeted: session.isGreeted, headerListBegan: inbound.headerListBegan,
            isBusy: isBusy, isHeldBack: buffered > 0 || session.isHeldBack,
            bytesTaken: bytesWritten - buffered)
        switch timeouts.check(moment) {
        case .fine: break
        case .drain(let limit):
            if state.isUndisturbed { loop.counts.hit(limit) }
            drain(context)
        case .end(let limit): return fail(limit)
        }
        if unread.isShut {
            attempt { () throws(NGHTTP2Error) in try giveBack(unread.credit(loop.unreadBytes)) }
            flush(context)
        }
        // Nobody can be blamed who may not send.
        for body in unread.isShut ? [] : streams.slowBodies(at: loop.now, server.limits) {
            loop.counts.hit(.bodyRate)
            body.fail(ServerError(.bodyTooSlow, "the client sends the request's body too slowly"))
        }
        guard session.isSendingBodies else { return }
        attempt { () throws(NGHTTP2Error) in
            for id in session.streamsHeldBack(at: loop.now, server.limits) {
                loop.counts.hit(.writeRate)
                try session.reset(id, .cancel)
            }
        }
        flush(context)
    }

    /// Gives back the memory of requests that are done, once there were none for a tick: what a client repeats, arrays and tables as
    /// large as they ever had to be.
    private func trim(isIdle: Bool) {
        if isIdle, !isTrimmed {
            session.trim()
            streams.trim()
            events.trim()
        }
        isTrimmed = isIdle
    }

    /// Counts what has changed since it was counted last.
    private func count(openStreams: Int) {
        loop.counts.streams += openStreams - countedStreams
        loop.counts.resetsByClient += inbound.resets - countedResets
        countedStreams = openStreams
        countedResets = inbound.resets
    }

    /// Bytes that the kernel has not taken.
    private func bufferedBytes(_ channel: any Channel) -> Int {
        do {
            return try channel.syncOptions?.getOption(.bufferedWritableBytes) ?? 0
        } catch {
            // The channel has just been closed: it has nothing left to write.
            return 0
        }
    }

    // MARK: The end

    /// Takes no more requests, and closes when those under way are answered.
    private func drain(_ context: ChannelHandlerContext) {
        switch state.drain() {
        case .nothing: break
        case .awaitPreface:
            context.eventLoop.assumeIsolated().scheduleTask(in: server.limits.drainPingTimeout) {
                if let context = self.context, self.state.prefaceIsLate() { context.close(promise: nil) }
            }
        case .sendNotice:
            attempt { () throws(NGHTTP2Error) in try session.noticeShutdown() }
            flush(context)
            context.eventLoop.assumeIsolated().scheduleTask(in: server.limits.drainPingTimeout) {
                self.finishNotice()
            }
        }
    }

    /// The client has answered the PING behind the first GOAWAY, or not in time: it gets the second one.
    private func finishNotice() {
        guard let context, state.pingAnswered() else { return }
        session.refuseNewStreams()
        flush(context)
    }

    /// Does something with the session. Its failure is the connection's.
    func attempt(_ body: () throws(NGHTTP2Error) -> Void) {
        do {
            try body()
        } catch {
            fail("\(error)", error.http2Code)
        }
    }

    /// The client has gone beyond a limit: ends the connection.
    private func fail(_ limit: ServerLimit) { fail(.limit(limit)) }

    private func fail(_ fault: ConnectionFault) {
        if case .limit(let limit) = fault { loop.counts.hit(limit) }
        fail(fault.reason, fault.code)
    }

    /// Tells the client what is wrong with the connection, and closes it.
    private func fail(_ reason: String, _ code: HTTP2ErrorCode) {
        guard let context, state.isOpen else { return }
        server.logger.debug("connection ended by the server", metadata: ["reason": "\(reason)", "code": "\(code)"])
        if state.isServing {
            do {
                try session.terminate(code)
                loop.output.clear()
                _ = try session.write(to: &loop.output)
                context.writeAndFlush(wrapOutboundOut(loop.output), promise: nil)
            } catch {
                server.logger.debug("GOAWAY cannot be sent", metadata: ["error": "\(error)"])
            }
        }
        if state.close() { closeBehindAnswer(context) }
    }

    /// Answers a client that does not speak HTTP/2, and closes when it has read the answer.
    private func refuse(_ answer: ByteBuffer?, _ context: ChannelHandlerContext) {
        guard let answer else { return context.close(promise: nil) }
        context.writeAndFlush(wrapOutboundOut(answer), promise: nil)
        closeBehindAnswer(context)
    }

    /// Closes when the client has read what was written, or does not.
    private func closeBehindAnswer(_ context: ChannelHandlerContext) {
        // Not both directions: closing with unread bytes resets the connection, and the client may lose the answer.
        context.close(mode: .output, promise: nil)
        context.eventLoop.assumeIsolated().scheduleTask(in: server.limits.refusalTimeout) {
            self.context?.close(promise: nil)
        }
    }

    func leaveIfDone() {
        guard context == nil, streams.liveHandlers == 0 else { return }
        server.connections.remove(self)
        loop.settle()
    }
}
