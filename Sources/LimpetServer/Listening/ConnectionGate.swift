import Limpet
import Logging
import NIOCore

/// Counts the connections of a server in and out.
final class ConnectionGate: Sendable {
    struct TooManyConnections: Error {}

    private let state: Locked<ConnectionAdmission>
    private let logger: Logger

    init(limit: Int, logger: Logger) {
        state = Locked(ConnectionAdmission(limit: limit))
        self.logger = logger
    }

    /// - Throws: ``TooManyConnections``: SwiftNIO closes a connection that cannot be set up.
    func admit(_ channel: any Channel) throws {
        let (answer, limit) = state.withLock { ($0.admit(now: .now()), $0.limit) }
        switch answer {
        case .admitted:
            channel.closeFuture.whenComplete { _ in self.state.withLock { $0.leave() } }
            return
        case .refused:
            break
        case .refusedWithWarning:
            logger.warning("connections are refused: there are too many", metadata: ["limit": "\(limit)"])
        }
        throw TooManyConnections()
    }
}
