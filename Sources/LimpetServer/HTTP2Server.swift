public import Logging
import Metrics
import NIOCore
import NIOPosix
import NIOSSL
public import ServiceLifecycle
import Tracing

#if canImport(Glibc)
    import Glibc
#elseif canImport(Darwin)
    import Darwin
#endif

/// An HTTP/2 server, over TLS for everyone, or over cleartext TCP or a Unix socket for clients with prior knowledge: a
/// balancer in front, or a tool like curl.
///
/// ```swift
/// let server = try HTTP2Server(configuration: .init(), logger: logger) { request in
///     .text("You asked for \(request.path).\n")
/// }
/// await ServiceGroup(services: [server], logger: logger).runOrExit()
/// ```
///
/// A handler runs on the event loop of its connection and holds up the other requests of that loop while it computes;
/// it comes back to the loop whenever it has waited. Its task is cancelled when the client resets the stream or the
/// connection ends. An error that it throws is logged, and the client gets 500.
///
/// A request's handler starts when the head has come, and reads the body as it comes.
///
/// The server counts with swift-metrics, under names that begin with `limpet_server_`, and runs handlers in spans of
/// swift-distributed-tracing: bootstrap both before you make it.
public final class HTTP2Server: Service {
    /// Answers a request.
    public typealias Handler = @Sendable (ServerRequest) async throws -> ServerResponse

    private let configuration: HTTP2ServerConfiguration
    private let context: ServerContext
    private let port = BoundPort()

    /// Makes a server that listens once it is run.
    ///
    /// - Throws: `ConfigurationError` if the configuration's values do not fit together.
    public convenience init(
        configuration: HTTP2ServerConfiguration = HTTP2ServerConfiguration(), logger: Logger,
        handler: @escaping Handler
    ) throws {
        try self.init(
            configuration: configuration, limits: ServerLimits(configuration), logger: logger, handler: handler)
    }

    init(
        configuration: HTTP2ServerConfiguration, limits: ServerLimits, logger: Logger,
        metrics: any MetricsFactory = MetricsSystem.factory, tracer: any Tracer = InstrumentationSystem.tracer,
        handler: @escaping Handler
    ) throws {
        try configuration.check()
        self.configuration = configuration
        context = ServerContext(
            handler: handler, limits: limits, logsAccess: configuration.accessLog, logger: logger, metrics: metrics,
            tracer: tracer)
    }

    /// The port that the server listens on, 0 with a Unix socket; waits until it does.
    ///
    /// - Throws: the error with which ``run()`` failed to listen; `CancellationError`.
    public var boundPort: Int {
        get async throws { try await port.wait() }
    }

    /// Listens and serves until the service group shuts down gracefully, or the task is cancelled.
    ///
    /// A graceful shutdown stops accepting, tells clients to send no more requests on their connections (GOAWAY), and
    /// gives the requests under way ``HTTP2ServerConfiguration/drainTimeoutSeconds`` to finish. Cancellation, also during
    /// a graceful shutdown, closes all connections at once.
    ///
    /// - Throws: ``ServerError`` if the address cannot be listened on, or the certificate cannot be used.
    public func run() async throws {
        let threads = configuration.threads == 0 ? System.coreCount : configuration.threads
        let group = MultiThreadedEventLoopGroup(numberOfThreads: threads)
        do {
            let tls = try contexts()
            let maxConnections = try FileDescriptorLimit.raiseProcessLimit(
                forConnections: configuration.maxConnections, threads: threads, logger: context.logger)
            let gate = ConnectionGate(limit: maxConnections, logger: context.logger)
            let listener = try await listen(group, threads, tls, gate)
            port.resolve(.success(listener.channel.localAddress?.port ?? 0))
            context.logger.info(
                "listening", metadata: ["address": "\(listener.address)", "threads": "\(threads)"])
            try await withThrowingTaskGroup(of: Void.self) { tasks in
                if let tls { tasks.addTask { await tls.watch() } }
                try await serve(listener)
                tasks.cancelAll()
            }
        } catch {
            port.resolve(.failure(error))
            try await group.shutdownGracefully()
            throw error
        }
        let left = context.connections.count
        guard left == 0 else {
            // Their tasks come back to these threads: they must stay.
            context.logger.warning(
                "request handlers ignore that they are cancelled", metadata: ["connections": "\(left)"])
            return
        }
        try await group.shutdownGracefully()
    }

    /// - Returns: `nil` without a certificate: the server speaks cleartext.
    private func contexts() throws(ServerError) -> TLSContexts? {
        guard !configuration.certificateFile.isEmpty else { return nil }
        let files = CertificateFiles(
            certificate: configuration.certificateFile, privateKey: configuration.privateKeyFile)
        return try TLSContexts(files, limits: context.limits, logger: context.logger)
    }

    private func listen(
        _ group: MultiThreadedEventLoopGroup, _ threads: Int, _ tls: TLSContexts?, _ gate: ConnectionGate
    ) async throws -> Listener {
        var loops: [ObjectIdentifier: NIOLoopBoundBox<LoopContext>] = [:]
        for loop in group.makeIterator() {
            loops[ObjectIdentifier(loop)] = .makeBoxSendingValue(
                LoopContext(loop, server: context, loops: threads), eventLoop: loop)
        }
        let bootstrap = ServerBootstrap(group: group)
            .serverChannelOption(.backlog, value: Listener.backlog)
            // Kept by the connection: NIO's 2 KiB are an eighth of an idle one, and few requests need as much. A client that
            // fills it gets twice the size, again and again.
            .childChannelOption(
                .recvAllocator, value: AdaptiveRecvByteBufferAllocator(minimum: 64, initial: 256, maximum: 65_536)
            )
            .childChannelInitializer { [context, loops] channel in
                channel.eventLoop.makeCompletedFuture {
                    guard let loop = loops[ObjectIdentifier(channel.eventLoop)]?.value else {
                        preconditionFailure("connections are served by the group's own loops")
                    }
                    guard gate.admit(channel) else {
                        loop.counts.hit(.connections)
                        throw ConnectionGate.TooManyConnections()
                    }
                    try Self.keepFromChildren(channel)
                    let pipeline = channel.pipeline.syncOperations
                    if let tls {
                        try pipeline.addHandler(NIOSSLServerHandler(context: tls.current))
                        try pipeline.addHandler(TLSHandshakeHandler(server: context, loop: loop))
                    } else {
                        try pipeline.addHandler(HTTP2ConnectionHandler(server: context, loop: loop))
                    }
                }
            }
        let address = ListenAddress(configuration)
        let channel: any Channel
        do {
            switch address {
            case .tcp(let host, let port):
                channel =
                    try await bootstrap
                    .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
                    .childChannelOption(.tcpOption(.tcp_nodelay), value: 1)
                    // Finds clients that are gone where a response waits for its handler: the system asks after two hours,
                    // unless it is set to less (net.ipv4.tcp_keepalive_time).
                    .childChannelOption(.socketOption(.so_keepalive), value: 1)
                    .bind(host: host, port: port).get()
            case .unix(let path):
                try await UnixSocketFile(path: path).replaceStale(on: group.next())
                channel = try await bootstrap.bind(unixDomainSocketPath: path).get()
            }
        } catch {
            throw address.error(error)
        }
        return Listener(channel, configured: address)
    }

    /// A program that the application starts must not inherit the connection: it would stay open after it was closed here,
    /// and the client would wait. SwiftNIO accepts connections without that flag.
    private static func keepFromChildren(_ channel: any Channel) throws {
        try channel.pipeline.syncOperations.withUnsafeTransportIfAvailable(of: NIOBSDSocket.Handle.self) { socket in
            // Only sets a flag of a socket that is open: the channel closes it, not before this returns.
            guard fcntl(socket, F_SETFD, FD_CLOEXEC) == 0 else {
                throw IOError(errnoCode: errno, reason: "fcntl")
            }
        }
    }

    /// Waits for the end, and takes the connections to theirs.
    private func serve(_ listener: Listener) async throws {
        let connections = context.connections
        let loop = listener.channel.eventLoop
        try await withTaskCancellationHandler {
            try await withGracefulShutdownHandler {
                try await listener.channel.closeFuture.get()
            } onGracefulShutdown: {
                listener.stop()
            }
            let drainTimeout = TimeAmount.seconds(Int64(configuration.drainTimeoutSeconds))
            if try await connections.drain(within: drainTimeout, on: loop) { return }
            connections.close()
            _ = try await connections.closed(within: context.limits.cancelTimeout, on: loop)
        } onCancel: {
            listener.stop()
            connections.close()
        }
    }
}
