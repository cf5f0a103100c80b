import Logging
import Metrics
import NIOCore
import Tracing

/// What all connections of a server share: an object, of which each keeps a reference and no copy.
final class ServerContext: Sendable {
    let handler: HTTP2Server.Handler
    let limits: ServerLimits
    let logger: Logger
    let metrics: ServerMetrics
    /// One line a request.
    let logsAccess: Bool
    let connections = OpenConnections()

    init(
        handler: @escaping HTTP2Server.Handler, limits: ServerLimits, logsAccess: Bool, logger: Logger,
        metrics: any MetricsFactory, tracer: any Tracer
    ) {
        self.handler = tracer is NoOpTracer ? handler : traced(handler, by: tracer)
        self.limits = limits
        self.logsAccess = logsAccess
        self.logger = logger
        self.metrics = ServerMetrics(metrics)
        isTimed = logsAccess || self.metrics.isWanted
    }

    /// Whether anybody wants to know how long a request took.
    private let isTimed: Bool

    /// This moment, if it will be asked for.
    var beginning: NIODeadline { isTimed ? .now() : .uptimeNanoseconds(0) }
}
