import DequeModule
import Limpet
import NIOCore

/// One connection to a server: commands go out as they are asked for, without waiting for one another, and their replies
/// come back in the same order.
///
/// ```
///              the server has said what it takes
///   greeting ───────────────────────────────────▶ open
///      │                                            │  no reply in time, a reply that cannot be, the end
///      └──────────────────▶ ended ◀─────────────────┘  of the connection: all that is outstanding fails
/// ```
///
/// All commands of one turn of the event loop are one write. A reply is matched by order and by the mark that it repeats: one
/// that belongs to another call ends the connection. Nothing is ever sent twice.
///
/// Confined to its event loop. No user's code runs in its callbacks: to resume a caller puts the caller's task on a queue.
final class PipelinedConnection: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer

    private enum State {
        case greeting(MetaHandshake)
        case open(MetaHandshake.Limits)
        case ended
    }

    /// Commands that are outstanding at most; more wait until replies come.
    static let maxCalls = 1024
    /// Bytes of commands that are outstanding at most, but for a single one that has more.
    static let maxBytes = 4 * 1024 * 1024
    /// A buffer that grew beyond this is not kept.
    private static let keptBytes = 256 * 1024

    private let server: PipelinedServer
    private let isProbe: Bool
    private let eventLoop: any EventLoop
    /// Until the connection ends.
    private var line: PipelinedLine?
    private var state: State
    private var context: ChannelHandlerContext?
    /// Nothing that is asked before the connection is open is answered with a value.
    private var parser = MetaReplyParser(longestValue: 0)
    private var pending = Deque<PendingCall>()
    private var pendingBytes = 0
    /// Of `pending`, how many have not been given to the channel.
    private var unwritten = 0
    private var buffer = ByteBuffer()
    private var isFlushDue = false
    /// Calls that were answered, up to as many as prove that the server is well.
    private var answered = 0
    private var proof = 1
    private var lastMark: UInt32 = 0

    /// - Parameter isProbe: whether it was admitted to find out if the server answers again.
    init(_ server: PipelinedServer, isProbe: Bool, eventLoop: any EventLoop, line: PipelinedLine) {
        self.server = server
        self.isProbe = isProbe
        self.eventLoop = eventLoop
        self.line = line
        state = .greeting(MetaHandshake(credentials: server.settings.credentials))
    }

    // MARK: Calls

    var isIdle: Bool { pending.isEmpty }
    /// A server that answers some commands rightly, and breaks the connection at others, is not well.
    private var isProved: Bool { answered >= proof }
    /// When the reply has to be here that is waited for the longest.
    var deadline: NIODeadline? { pending.first?.deadline }

    /// Whether another command may be sent before a reply has come.
    func hasRoom(for call: WaitingCall) -> Bool {
        pending.isEmpty || pending.count < Self.maxCalls && pendingBytes + call.request.size <= Self.maxBytes
    }

    /// Sends a command, at the end of the event loop's turn.
    func send(_ call: WaitingCall) {
        guard case .open(let limits) = state else {
            return call.target.fail(.unavailable, "the connection is not open", wasSent: false)
        }
        let generation = server.generation
        if let since = call.generation, since != generation { return call.target.conflict() }
        guard !limits.isTooLarge(call.request) else {
            return call.target.fail(.tooLarge, "the value is larger than the server takes", wasSent: false)
        }
        var mark: UInt32?
        if limits.mayDestroy, case .put = call.request {
            call.request.writeKeeping(to: &buffer)
        } else {
            lastMark &+= 1
            call.request.write(to: &buffer, mark: lastMark)
            mark = lastMark
        }
        let size = call.request.size
        pendingBytes += size
        unwritten += 1
        pending.append(
            PendingCall(
                target: call.target, mark: mark, generation: generation, deadline: call.deadline, size: size))
        flushSoon()
    }

    private func flushSoon() {
        guard !isFlushDue else { return }
        isFlushDue = true
        eventLoop.assumeIsolated().execute { self.flush() }
    }

    private func flush() {
        isFlushDue = false
        unwritten = 0
        guard let context, buffer.readableBytes > 0 else { return }
        context.writeAndFlush(wrapOutboundOut(buffer), promise: nil)
        // Cheap once the system has taken all of it: then nobody else holds the storage.
        if buffer.capacity > Self.keptBytes { buffer = ByteBuffer() } else { buffer.clear() }
    }

    /// Ends the connection: what is outstanding fails.
    func end(_ problem: PipelinedServer.Problem) {
        let wasOpen: Bool
        switch state {
        case .ended: return
        case .greeting: wasOpen = false
        case .open: wasOpen = true
        }
        let wasAtNoop = isAtNoop
        state = .ended
        let calls = pending
        pending = []
        for (index, call) in calls.enumerated() {
            call.target.fail(problem.code, problem.message, wasSent: index < calls.count - unwritten)
        }
        buffer = ByteBuffer()
        parser = MetaReplyParser(longestValue: 0)
        context?.close(promise: nil)
        if wasOpen {
            var isFailure = !calls.isEmpty
            switch problem {
            // A server that is started anew, or does not like long connections, is asked again at once.
            case .ended: if isProved { isFailure = false }
            case .broken: isFailure = true
            case .shutDown: isFailure = false
            default: break
            }
            server.lost(problem, isFailure: isFailure, wasProved: isProved)
        } else {
            server.failed(problem, isProbe: isProbe, wasAtNoop: wasAtNoop)
        }
        line?.connectionEnded(self, problem)
        line = nil
    }

    // MARK: The channel

    func handlerAdded(context: ChannelHandlerContext) {
        self.context = context
        // It may have ended while it was opened.
        if context.channel.isActive { greet() } else { end(.ended) }
    }

    func handlerRemoved(context: ChannelHandlerContext) {
        self.context = nil
        // A channel that is closed before it was quite active tells nobody else.
        end(.ended)
    }

    private func greet() {
        guard case .greeting(var handshake) = state else { return }
        handshake.start(&buffer)
        state = .greeting(handshake)
        flush()
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        if case .ended = state { return }
        parser.feed(unwrapInboundIn(data))
        do throws(MetaReplyProblem) {
            while let reply = try parser.next() {
                switch state {
                case .open: try accept(reply)
                case .greeting(let handshake): try proceed(handshake, with: reply)
                case .ended: return
                }
            }
        } catch {
            end(.broken(error))
        }
    }

    func channelReadComplete(context: ChannelHandlerContext) {
        line?.repliesCame()
        context.fireChannelReadComplete()
    }

    func channelInactive(context: ChannelHandlerContext) {
        endWithChannel()
        context.fireChannelInactive()
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        // A connection that was cut, or TLS that cannot be agreed on: nothing is to be had from it any more.
        switch state {
        case .greeting(let handshake) where !handshake.hasGreeted:
            end(.refused("the connection could not be opened: \(error)"))
        case .greeting, .open, .ended: endWithChannel()
        }
    }

    private func endWithChannel() {
        if isAtNoop, server.endsAllAtNoop(isProbe: isProbe) { return endNotMeta() }
        end(.ended)
    }

    private var isAtNoop: Bool { if case .greeting(let handshake) = state { handshake.hasGreeted } else { false } }

    private func endNotMeta() {
        // First: those who wait are told by the end, and go the other way.
        server.settings.fallBack?(server.endpoint)
        end(.refused("the server does not speak meta commands (memcached.transport: libmemcached)"))
    }

    // MARK: Replies

    private func accept(_ reply: MetaReply) throws(MetaReplyProblem) {
        // Only what was sent can be answered.
        guard pending.count > unwritten, let call = pending.popFirst() else { throw .unknownReply }
        var isRefusal = false
        if case .refusal(let refusal) = reply.kind {
            isRefusal = true
            if refusal == .unknownCommand {
                // A proxy that knows some of the commands.
                pending.prepend(call)
                return endNotMeta()
            }
            if refusal == .outOfMemory, call.mark != nil, case .open(var limits) = state {
                // It runs out of memory though it makes room: what it refuses keeps its old value from now on.
                limits.evicts = false
                state = .open(limits)
            }
        }
        guard isRefusal || reply.mark == call.mark, call.target.accept(reply, generation: call.generation) else {
            pending.prepend(call)
            throw .unknownReply
        }
        pendingBytes -= call.size
        guard !isProved else { return }
        answered += 1
        if isProved { server.proved() }
    }

    private func proceed(
        _ handshake: MetaHandshake, with reply: MetaReply
    ) throws(MetaReplyProblem) {
        var handshake = handshake
        let outcome = try handshake.receive(reply, &buffer)
        state = .greeting(handshake)
        switch outcome {
        case nil: flush()
        case .open(let limits):
            guard parser.isEmpty else { throw .unknownReply }
            guard server.opened(at: context?.remoteAddress, isProbe: isProbe) else { return end(.elsewhere) }
            state = .open(limits)
            proof = server.proof
            parser = MetaReplyParser(longestValue: limits.itemSize ?? MetaHandshake.Limits.largestItem)
            line?.connectionOpened()
        case .notMeta: endNotMeta()
        case .unauthenticated:
            end(.refused("the server asks for a user and a password (memcached.user, memcached.password)"))
        case .refusedUser:
            end(.refused("the server refuses the user or the password (memcached.user, memcached.password)"))
        }
    }
}

extension PipelinedTarget {
    /// Answers that the condition does not hold: for commands with a token.
    fileprivate func conflict() {
        switch self {
        case .put(let reply): reply.resume(.success(.conflict))
        case .deleted(let reply): reply.resume(.success(.conflict))
        case .entry, .entryOfMany, .sumOfMany, .touched:
            preconditionFailure("a command without a token has no generation")
        }
    }
}
