import NIOCore

/// The socket on which a server accepts connections.
struct Listener: Sendable {
    let channel: any Channel
    /// With the port that it got.
    let address: ListenAddress

    init(_ channel: any Channel, configured address: ListenAddress) {
        self.channel = channel
        switch address {
        case .tcp(let host, let port): self.address = .tcp(host: host, port: channel.localAddress?.port ?? port)
        case .unix: self.address = address
        }
    }

    /// Stops accepting. SwiftNIO removes the file of a Unix socket.
    func stop() {
        channel.close(promise: nil)
    }
}
