import Logging

/// What all connections of a server share.
struct ServerContext: Sendable {
    let handler: HTTP2Server.Handler
    let limits: ServerLimits
    let logger: Logger
    let connections = OpenConnections()
}
