import HTTPTypes
import Logging
import NIOCore

/// A request on its way to its answer.
struct Exchange {
    let id: StreamID
    let request: ServerRequest
    let isAnswerToHead: Bool
    let began: NIODeadline
}

extension ServerContext {
    /// A request is done: with this answer, or because the client went away.
    func ended(_ exchange: Exchange, status: Int?, bytes: Int, counts: inout ServerCounts) {
        counts.answered(status)
        let duration = beginning - exchange.began
        if metrics.isWanted { metrics.record(nanoseconds: duration.nanoseconds) }
        guard logsAccess else { return }
        exchange.request.logger.info(
            "request",
            metadata: [
                "method": "\(exchange.request.method.rawValue)", "path": "\(exchange.request.path)",
                "status": "\(status.map { "\($0)" } ?? "none")", "bytes": "\(bytes)",
                "microseconds": "\(duration.nanoseconds / 1000)",
            ])
    }
}
