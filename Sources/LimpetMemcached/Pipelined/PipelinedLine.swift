import DequeModule
import Limpet
import NIOCore
import NIOPosix
import NIOSSL

#if os(Linux)
    import Glibc
#endif

/// The way from one event loop to one server: a connection when there is one, and the commands that wait for one, or for room
/// on it.
///
/// One timer watches over all: every command has the same time-out, so the first of each queue is the first to be late.
/// Confined to its event loop.
final class PipelinedLine {
    /// A connection gets so much time to be opened at least: a name with an address that does not answer costs 250 ms before
    /// the next one is tried (RFC 8305, section 5).
    private static let leastOpenTime = TimeAmount.seconds(1)
    /// After a reply is late, the event loop looks at its sockets once more: it may be the loop that was late.
    private static let grace = TimeAmount.milliseconds(5)

    private enum State {
        /// There is no connection, and nobody waits for one.
        case closed
        /// The channel is being made, or the connection greets.
        case opening(PipelinedConnection?, deadline: NIODeadline, attempt: Int, isProbe: Bool)
        case open(PipelinedConnection)

        var isClosed: Bool { if case .closed = self { true } else { false } }
    }

    private let server: PipelinedServer
    private let eventLoop: any EventLoop
    private let busyLines: BusyLines
    private var state = State.closed {
        didSet {
            guard oldValue.isClosed != state.isClosed else { return }
            if state.isClosed { busyLines.subtract() } else { busyLines.add() }
        }
    }
    private var attempts = 0
    private var waiting = Deque<WaitingCall>()
    private var timer: (scheduled: Scheduled<Void>, due: NIODeadline)?
    /// Whether a reply was late at the last look.
    private var isLate = false
    private var isClosing = false

    init(_ server: PipelinedServer, eventLoop: any EventLoop, _ busyLines: BusyLines) {
        self.server = server
        self.eventLoop = eventLoop
        self.busyLines = busyLines
    }

    // MARK: Calls

    /// Sends a command, now or when there is a connection with room for it; it is answered in any case.
    func send(_ request: MetaRequest, generation: UInt64? = nil, _ target: PipelinedTarget, by deadline: NIODeadline) {
        guard !isClosing else { return target.fail(.closed, "the store was shut down", wasSent: false) }
        let call = WaitingCall(
            request: request, generation: generation, target: target, deadline: deadline)
        if case .open(let connection) = state, waiting.isEmpty, connection.hasRoom(for: call) {
            connection.send(call)
        } else if case .opening(_, _, _, isProbe: true) = state {
            // Who began the probe waits for it. Others need not.
            call.refuse()
        } else {
            waiting.append(call)
            if case .closed = state { open() }
        }
        watch(until: call.deadline)
    }

    /// Sends what waits, as far as there is room.
    private func drain() {
        guard case .open(let connection) = state else { return }
        while let call = waiting.first, connection.hasRoom(for: call) {
            waiting.removeFirst()
            connection.send(call)
        }
    }

    /// Takes no more commands, and closes the connection when all is answered.
    func close() {
        isClosing = true
        endIfDone()
    }

    private func endIfDone() {
        guard isClosing, waiting.isEmpty else { return }
        switch state {
        case .closed: break
        case .opening(nil, _, _, _): openingFailed(.shutDown)
        case .opening(let connection?, _, _, _): connection.end(.shutDown)
        case .open(let connection): if connection.isIdle { connection.end(.shutDown) }
        }
    }

    /// The event loop is about to end: its channels are closed, and what it was to do later is not done any more.
    private func loopEnded() {
        isClosing = true
        openingFailed(.shutDown)
        failWaiting(.shutDown)
    }

    // MARK: The connection

    private func open() {
        let isProbe: Bool
        let target: SocketAddress?
        switch server.admit(at: .now()) {
        case .connect(let address, let probes): (target, isProbe) = (address, probes)
        case .refuse: return refuseWaiting()
        }
        attempts += 1
        let attempt = attempts
        let patience = max(server.settings.timeout, Self.leastOpenTime)
        state = .opening(nil, deadline: .now() + patience, attempt: attempt, isProbe: isProbe)
        let bootstrap = ClientBootstrap(group: eventLoop)
            .connectTimeout(patience)
            // A turn's replies of 1 KiB to 64 callers come in one read.
            .channelOption(
                .recvAllocator, value: AdaptiveRecvByteBufferAllocator(minimum: 2048, initial: 16384, maximum: 262_144))
        let channel: EventLoopFuture<any Channel>
        switch (target, server.endpoint.endpoint) {
        case (_, .socket(let path)): channel = bootstrap.connect(unixDomainSocketPath: path)
        case (let address?, .host): channel = Self.keepingAlive(bootstrap).connect(to: address)
        case (nil, .host(let host, let port)):
            // Names are looked up one after the other: an address does not wait for one that is slow.
            if let address = try? SocketAddress(ipAddress: host, port: Int(port)) {
                channel = Self.keepingAlive(bootstrap).connect(to: address)
            } else {
                channel = Self.keepingAlive(bootstrap).connect(host: host, port: Int(port))
            }
        }
        channel.assumeIsolated().whenComplete { self.connected($0, attempt: attempt) }
    }

    /// Finds the end of a peer that said nothing of it, within nine seconds: a connection that is not used would keep its
    /// address (``PipelinedServer/opened(at:isProbe:)``) from being given up.
    private static func keepingAlive(_ bootstrap: ClientBootstrap) -> ClientBootstrap {
        let bootstrap = bootstrap.channelOption(.socketOption(.so_keepalive), value: 1)
        #if os(Linux)
            return bootstrap.channelOption(.tcpOption(.init(rawValue: CInt(TCP_KEEPIDLE))), value: 5)
                .channelOption(.tcpOption(.init(rawValue: CInt(TCP_KEEPINTVL))), value: 1)
                .channelOption(.tcpOption(.init(rawValue: CInt(TCP_KEEPCNT))), value: 4)
        #else
            return bootstrap
        #endif
    }

    private func connected(_ result: Result<any Channel, any Error>, attempt: Int) {
        guard case .opening(nil, let deadline, attempt, let isProbe) = state else {
            // It took too long, and was given up.
            if case .success(let channel) = result { channel.close(promise: nil) }
            return
        }
        let channel: any Channel
        switch result {
        case .success(let made): channel = made
        case .failure(let error):
            return openingFailed(error.isShutdown ? .shutDown : .unreachable("\(error)"))
        }
        let connection = PipelinedConnection(server, isProbe: isProbe, eventLoop: eventLoop, line: self)
        state = .opening(connection, deadline: deadline, attempt: attempt, isProbe: isProbe)
        do {
            let pipeline = channel.pipeline.syncOperations
            if let tls = server.settings.tls {
                try pipeline.addHandler(try NIOSSLClientHandler(context: tls, serverHostname: server.endpoint.tlsName))
            }
            try pipeline.addHandler(connection)
        } catch {
            channel.close(promise: nil)
            connection.end(.refused("the connection could not be opened: \(error)"))
        }
        watch()
    }

    /// There is no channel.
    private func openingFailed(_ problem: PipelinedServer.Problem) {
        guard case .opening(nil, _, _, let isProbe) = state else { return }
        busyLines.add()
        defer { busyLines.subtract() }
        state = .closed
        server.failed(problem, isProbe: isProbe)
        failWaiting(problem)
        endIfDone()
    }

    /// The connection may be used.
    func connectionOpened() {
        guard case .opening(let connection?, _, _, _) = state else { return }
        state = .open(connection)
        drain()
        endIfDone()
    }

    /// The connection is no more, and has answered all that were outstanding.
    func connectionEnded(_ connection: PipelinedConnection, _ problem: PipelinedServer.Problem) {
        // What waits may go on: nobody is to think that nothing is left.
        busyLines.add()
        defer { busyLines.subtract() }
        switch state {
        case .opening(let current?, _, _, _) where current === connection:
            state = .closed
            if case .elsewhere = problem { break }
            failWaiting(problem)
        case .open(let current) where current === connection: state = .closed
        default: return
        }
        isLate = false
        // What was not sent can go out on the next one.
        if !waiting.isEmpty { open() }
        endIfDone()
    }

    /// There may be room again.
    func repliesCame() {
        if !waiting.isEmpty { drain() }
        endIfDone()
    }

    private func failWaiting(_ problem: PipelinedServer.Problem) {
        let calls = waiting
        waiting = []
        // Whatever the server did, it has not answered them.
        let code = problem.code == .timeout ? problem.code : .unavailable
        for call in calls { call.target.fail(code, problem.message, wasSent: false) }
    }

    private func refuseWaiting() {
        let calls = waiting
        waiting = []
        for call in calls { call.refuse() }
    }

    // MARK: Time

    /// When something is late at the earliest.
    private var nextDeadline: NIODeadline? {
        let own: NIODeadline?
        switch state {
        case .closed: own = nil
        case .opening(_, let deadline, _, _): own = deadline
        case .open(let connection): own = connection.deadline
        }
        guard let call = waiting.first?.deadline else { return own }
        return min(call, own ?? call)
    }

    /// Sees to it that there is a look when something is late.
    private func watch() {
        if let next = nextDeadline { watch(until: next) }
    }

    private func watch(until deadline: NIODeadline) {
        if let timer {
            if timer.due <= deadline { return }
            timer.scheduled.cancel()
        }
        schedule(deadline)
    }

    private func schedule(_ deadline: NIODeadline) {
        let scheduled = eventLoop.assumeIsolated().scheduleTask(deadline: deadline) {
            self.timer = nil
            self.look()
        }
        timer = (scheduled, deadline)
        scheduled.futureResult.assumeIsolated().whenFailure { error in
            if case EventLoopError.shutdown = error { self.loopEnded() }
        }
    }

    /// Looks for what is late.
    private func look() {
        let now = NIODeadline.now()
        while let call = waiting.first, call.deadline <= now {
            waiting.removeFirst()
            call.target.fail(.timeout, "the time passed before the operation was sent", wasSent: false)
        }
        switch state {
        case .closed: break
        case .opening(nil, let deadline, _, _) where deadline <= now: openingFailed(.timeout)
        case .opening(let connection?, let deadline, _, _) where deadline <= now: connection.end(.timeout)
        case .opening: break
        case .open(let connection):
            guard let deadline = connection.deadline, deadline <= now else {
                isLate = false
                break
            }
            if isLate {
                isLate = false
                connection.end(.timeout)
            } else {
                isLate = true
                return schedule(now + Self.grace)
            }
        }
        endIfDone()
        watch()
    }
}

extension WaitingCall {
    /// The server is known not to answer.
    fileprivate func refuse() {
        target.fail(.unavailable, "the server does not answer, and is asked again soon", wasSent: false)
    }
}

extension MemcachedAddress {
    /// What the server's certificate has to name; `nil` for an address: names alone can be told to a server (RFC 6066,
    /// section 3), and NIOSSL checks an address by itself.
    fileprivate var tlsName: String? {
        guard case .host(let host, let port) = endpoint else { return nil }
        let isAddress = (try? SocketAddress(ipAddress: host, port: Int(port))) != nil
        return isAddress ? nil : host
    }
}

extension Error {
    /// Whether the event loop is about to end.
    fileprivate var isShutdown: Bool {
        if let error = self as? EventLoopError, error == .shutdown { return true }
        guard let error = self as? NIOConnectionError, !error.connectionErrors.isEmpty else { return false }
        return error.connectionErrors.allSatisfy(\.error.isShutdown)
    }
}
