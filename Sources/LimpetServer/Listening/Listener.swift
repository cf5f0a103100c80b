import Limpet
import Logging
import NIOCore

/// The socket on which a server accepts connections.
final class Listener: Sendable {
    let channel: any Channel
    /// With the port that it got.
    let address: ListenAddress
    private let logger: Logger
    private let isListening = Locked(true)

    init(_ channel: any Channel, configured address: ListenAddress, logger: Logger) {
        self.channel = channel
        self.logger = logger
        switch address {
        case .tcp(let host, let port): self.address = .tcp(host: host, port: channel.localAddress?.port ?? port)
        case .unix: self.address = address
        }
    }

    /// Stops accepting.
    func stop() {
        let isFirst = isListening.withLock { isListening in
            defer { isListening = false }
            return isListening
        }
        guard isFirst else { return }
        // Before the socket is closed: from then on the file may be another process's.
        if case .unix(let path) = address {
            do {
                try UnixSocketFile(path: path).remove()
            } catch {
                logger.warning("the Unix socket's file cannot be removed", metadata: ["error": "\(error)"])
            }
        }
        channel.close(promise: nil)
    }
}
