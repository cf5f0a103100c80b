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

    /// Stops accepting, once those are accepted who have connected: the kernel would reset their connections, with the requests that
    /// they have sent. SwiftNIO removes the file of a Unix socket.
    func stop() {
        let channel = channel
        // All at once, and not a few in each turn of the loop: no queue of connections is longer.
        channel.setOption(.maxMessagesPerRead, value: UInt(Self.backlog)).whenComplete { _ in
            // Behind a turn of the loop that accepts.
            channel.eventLoop.scheduleTask(in: .milliseconds(1)) { channel.close(promise: nil) }
        }
    }

    /// Connections that may wait to be accepted. The kernel shortens it to net.core.somaxconn.
    static let backlog: Int32 = 4096
}
