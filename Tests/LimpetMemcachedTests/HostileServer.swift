import Limpet
import Foundation

#if canImport(Glibc)
    import Glibc
#elseif canImport(Darwin)
    import Darwin
#endif

/// A server that answers each line with what a test says, right or wrong, on one connection after the other.
final class HostileServer: Sendable {
    struct Failure: Error {}

    let port: Int
    private let listener: Int32
    private struct Received {
        var lines: [String] = []
        var pieces = 0
        var connections = 0
        var current: Int32?
    }

    private let received = Locked(Received())

    /// The lines that came, without their ends.
    var lines: [String] { received.withLock { $0.lines } }
    /// How often bytes were there to be read.
    var pieces: Int { received.withLock { $0.pieces } }
    /// How many connections were served.
    var connections: Int { received.withLock { $0.connections } }
    var address: String { "127.0.0.1:\(port)" }

    /// - Parameter answer: what to answer to a line; `nil` closes the connection.
    init(_ answer: @escaping @Sendable (String) -> String?) throws {
        #if canImport(Glibc)
            listener = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        #else
            listener = socket(AF_INET, SOCK_STREAM, 0)
        #endif
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_addr.s_addr = in_addr_t(0x7F00_0001).bigEndian
        var length = socklen_t(MemoryLayout<sockaddr_in>.size)
        let listener = listener
        // A `sockaddr_in` is what the system expects behind a `sockaddr` of AF_INET; the pointers live for the calls.
        let status = withUnsafeMutablePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { address in
                bind(listener, address, length) + listen(listener, 64) + getsockname(listener, address, &length)
            }
        }
        guard listener >= 0, status == 0 else { throw Failure() }
        port = Int(in_port_t(bigEndian: address.sin_port))
        Thread { [self] in
            while true {
                let connection = accept(listener, nil, nil)
                guard connection >= 0 else { break }
                serve(connection, answer)
                close(connection)
            }
            // Here and not in `stop`: this thread would go on to accept on whatever gets the number next.
            close(listener)
        }.start()
    }

    /// A server that says what it takes as memcached 1.6 does, and then answers what a test says.
    static func meta(
        evicts: Bool = true, _ answer: @escaping @Sendable (String) -> String?
    ) throws -> HostileServer {
        try HostileServer { line in
            switch line {
            case _ where line.hasPrefix("get limpet:hello:"): "END\r\n"
            case "mn": "MN\r\n"
            case _ where line.hasPrefix("mg limpet:hello:"): "EN O1\r\n"
            case "stats settings":
                "STAT item_size_max 1048576\r\nSTAT evictions \(evicts ? "on" : "off")\r\nEND\r\n"
            default: answer(line)
            }
        }
    }

    /// Ends the listening; the thread ends after the connection that it serves.
    func stop() {
        shutdown(listener, Int32(SHUT_RDWR))
    }

    /// Sends something on the connection that is served, asked or not.
    func send(_ text: String) {
        received.withLock { received in
            guard let connection = received.current else { return }
            let bytes = Array(text.utf8)
            _ = bytes.withUnsafeBytes { write(connection, $0.baseAddress, $0.count) }
        }
    }

    private func serve(_ connection: Int32, _ answer: (String) -> String?) {
        received.withLock { received in
            received.connections += 1
            received.current = connection
        }
        defer { received.withLock { $0.current = nil } }
        var pending: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 65_536)
        while true {
            while let end = pending.firstIndex(of: UInt8(ascii: "\n")) {
                let line = String(decoding: pending[..<end].dropLast(), as: UTF8.self)
                pending.removeSubrange(...end)
                received.withLock { $0.lines.append(line) }
                guard let text = answer(line) else { return }
                let bytes = Array(text.utf8)
                guard bytes.isEmpty || sendAll(connection, bytes)
                else { return }
            }
            let count = recv(connection, &buffer, buffer.count, 0)
            guard count > 0 else { return }
            received.withLock { $0.pieces += 1 }
            pending += buffer[..<count]
        }
    }
}

private func sendAll(_ connection: Int32, _ bytes: [UInt8]) -> Bool {
    send(connection, bytes, bytes.count, Int32(MSG_NOSIGNAL)) == bytes.count
}
