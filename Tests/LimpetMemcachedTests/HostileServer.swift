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
    private let received = Locked<[String]>([])

    /// The lines that came, without their ends.
    var lines: [String] { received.withLock { $0 } }
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
                bind(listener, address, length) + listen(listener, 8) + getsockname(listener, address, &length)
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

    /// Ends the listening; the thread ends after the connection that it serves.
    func stop() {
        shutdown(listener, Int32(SHUT_RDWR))
    }

    private func serve(_ connection: Int32, _ answer: (String) -> String?) {
        var pending: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 65_536)
        while true {
            while let end = pending.firstIndex(of: UInt8(ascii: "\n")) {
                let line = String(decoding: pending[..<end].dropLast(), as: UTF8.self)
                pending.removeSubrange(...end)
                received.withLock { $0.append(line) }
                guard let text = answer(line) else { return }
                let bytes = Array(text.utf8)
                guard bytes.isEmpty || send(connection, bytes, bytes.count, Int32(MSG_NOSIGNAL)) == bytes.count
                else { return }
            }
            let count = recv(connection, &buffer, buffer.count, 0)
            guard count > 0 else { return }
            pending += buffer[..<count]
        }
    }
}
