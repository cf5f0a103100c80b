import Limpet
import Logging
import NIOCore

/// Counts the connections of a server in and out.
final class ConnectionGate: Sendable {
    /// Why a connection is not set up: SwiftNIO closes it.
    struct TooManyConnections: Error {}

    private let state: Locked<ConnectionAdmission>
    private let logger: Logger

    init(limit: Int, logger: Logger) {
        state = Locked(ConnectionAdmission(limit: limit))
        self.logger = logger
    }

    /// - Returns: whether there is room for a connection.
    func admit(_ channel: any Channel) -> Bool {
        let (answer, limit) = state.withLock { ($0.admit(now: .now()), $0.limit) }
        switch answer {
        case .admitted:
            channel.closeFuture.whenComplete { _ in self.state.withLock { $0.leave() } }
            return true
        case .refused:
            return false
        case .refusedWithWarning:
            logger.warning("connections are refused: there are too many", metadata: ["limit": "\(limit)"])
            return false
        }
    }
}
