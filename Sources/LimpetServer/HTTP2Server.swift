public import Logging
import NIOCore
import NIOPosix
public import ServiceLifecycle

#if canImport(Glibc)
    import Glibc
#elseif canImport(Darwin)
    import Darwin
#endif

/// An HTTP/2 server over cleartext TCP, for clients with prior knowledge: a balancer in front, or a tool like curl.
///
/// ```swift
/// let server = try HTTP2Server(configuration: .init(), logger: logger) { request in
///     .text("You asked for \(request.path).\n")
/// }
/// try await ServiceGroup(services: [server], gracefulShutdownSignals: [.sigterm], logger: logger).run()
/// ```
///
/// A handler runs on the event loop of its connection and holds up the other requests of that loop while it computes;
/// it comes back to the loop whenever it has waited. Its task is cancelled when the client resets the stream or the
/// connection ends. An error that it throws is logged, and the client gets 500.
///
/// A request's handler starts when the head has come, and reads the body as it comes.
public final class HTTP2Server: Service {
    /// Answers a request.
    public typealias Handler = @Sendable (ServerRequest) async throws -> ServerResponse

    private let configuration: HTTP2ServerConfiguration
    private let context: ServerContext
    private let port = BoundPort()

    /// Makes a server that listens once it is run.
    public convenience init(
        configuration: HTTP2ServerConfiguration = HTTP2ServerConfiguration(), logger: Logger,
        handler: @escaping Handler
    ) throws {
        try self.init(configuration: configuration, limits: ServerLimits(), logger: logger, handler: handler)
    }

    init(
        configuration: HTTP2ServerConfiguration, limits: ServerLimits, logger: Logger, handler: @escaping Handler
    ) throws {
        self.configuration = configuration
        context = ServerContext(handler: handler, limits: limits, logger: logger)
    }

    /// The port that the server listens on; waits until it does.
    ///
    /// - Throws: the error with which ``run()`` failed to listen; `CancellationError`.
    public var boundPort: Int {
        get async throws { try await port.wait() }
    }

    /// Listens and serves until the service group shuts down gracefully, or the task is cancelled.
    ///
    /// A graceful shutdown stops accepting, tells clients to send no more requests on their connections (GOAWAY), and
    /// gives the requests under way ten seconds to finish. Cancellation closes all connections at once.
    ///
    /// - Throws: ``ServerError`` if the address cannot be listened on.
    public func run() async throws {
        let threads = configuration.threads == 0 ? System.coreCount : configuration.threads
        let group = MultiThreadedEventLoopGroup(numberOfThreads: threads)
        do {
            let listener = try await listen(group)
            let boundPort = listener.localAddress?.port ?? configuration.port
            port.resolve(.success(boundPort))
            context.logger.info(
                "listening", metadata: ["address": "\(address(port: boundPort))", "threads": "\(threads)"])
            try await serve(listener)
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

    private func listen(_ group: MultiThreadedEventLoopGroup) async throws -> any Channel {
        var loops: [ObjectIdentifier: NIOLoopBoundBox<LoopContext>] = [:]
        for loop in group.makeIterator() {
            loops[ObjectIdentifier(loop)] = .makeBoxSendingValue(
                LoopContext(loop, server: context), eventLoop: loop)
        }
        let bootstrap = ServerBootstrap(group: group)
            // The kernel shortens it to net.core.somaxconn.
            .serverChannelOption(.backlog, value: 4096)
            .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
            .childChannelOption(.tcpOption(.tcp_nodelay), value: 1)
            .childChannelInitializer { [context, loops] channel in
                channel.eventLoop.makeCompletedFuture {
                    guard let loop = loops[ObjectIdentifier(channel.eventLoop)]?.value else {
                        preconditionFailure("connections are served by the group's own loops")
                    }
                    try Self.keepFromChildren(channel)
                    try channel.pipeline.syncOperations.addHandler(HTTP2ConnectionHandler(server: context, loop: loop))
                }
            }
        do {
            return try await bootstrap.bind(host: configuration.host, port: configuration.port).get()
        } catch {
            throw listenError(error)
        }
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

    private func listenError(_ error: any Error) -> ServerError {
        let address = address(port: configuration.port)
        switch error {
        case let error as IOError where error.errnoCode == EADDRINUSE:
            return ServerError(.addressInUse, "cannot listen on \(address): the port is in use")
        case let error as IOError where error.errnoCode == EACCES:
            return ServerError(.permissionDenied, "cannot listen on \(address): no permission for this port")
        case let error as IOError where error.errnoCode == EADDRNOTAVAIL:
            return ServerError(.addressUnavailable, "cannot listen on \(address): not an address of this machine")
        case is SocketAddressError:
            return ServerError(.addressUnavailable, "cannot listen on \(address): the host name is not known")
        default:
            return ServerError(.cannotListen, "cannot listen on \(address): \(error)")
        }
    }

    private func address(port: Int) -> String {
        let host = configuration.host
        return host.contains(":") ? "[\(host)]:\(port)" : "\(host):\(port)"
    }

    /// Waits for the end, and takes the connections to theirs.
    private func serve(_ listener: any Channel) async throws {
        let connections = context.connections
        let limits = context.limits
        try await withTaskCancellationHandler {
            try await withGracefulShutdownHandler {
                try await listener.closeFuture.get()
            } onGracefulShutdown: {
                listener.close(promise: nil)
            }
            if !Task.isCancelled {
                connections.drain()
                if try await connections.emptied(within: limits.drainTimeout, on: listener.eventLoop) { return }
            }
            connections.close()
            _ = try await connections.emptied(within: limits.cancelTimeout, on: listener.eventLoop)
        } onCancel: {
            listener.close(promise: nil)
            connections.close()
        }
    }
}
