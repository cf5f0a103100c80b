import Foundation

#if canImport(Glibc)
    import Glibc
#elseif canImport(Darwin)
    import Darwin
#endif

/// A thread that answers each request over a socket of the loopback interface with so many bytes: what a round trip costs
/// when nobody does anything.
struct Echo {
    struct Failure: Error {}

    private let client: Int32
    private let bytes: Int

    init(bytes: Int) throws {
        self.bytes = bytes
        #if canImport(Glibc)
            let stream = Int32(SOCK_STREAM.rawValue)
        #else
            let stream = SOCK_STREAM
        #endif
        let listener = socket(AF_INET, stream, 0)
        client = socket(AF_INET, stream, 0)
        let client = client
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_addr.s_addr = in_addr_t(0x7F00_0001).bigEndian
        var length = socklen_t(MemoryLayout<sockaddr_in>.size)
        // A `sockaddr_in` is what the system expects behind a `sockaddr` of AF_INET; the pointers live for the calls.
        let status = withUnsafeMutablePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { address in
                bind(listener, address, length) + listen(listener, 1) + getsockname(listener, address, &length)
                    + connect(client, address, length)
            }
        }
        guard status == 0 else { throw Failure() }
        let connection = accept(listener, nil, nil)
        guard connection >= 0 else { throw Failure() }
        var one: Int32 = 1
        for socket in [client, connection] {
            setsockopt(socket, Int32(IPPROTO_TCP), TCP_NODELAY, &one, socklen_t(MemoryLayout<Int32>.size))
        }
        Thread {
            var buffer = [UInt8](repeating: 0, count: 4096)
            let answer = [UInt8](repeating: 0x61, count: bytes)
            while recv(connection, &buffer, buffer.count, 0) > 0 {
                guard send(connection, answer, answer.count, 0) == answer.count else { break }
            }
        }.start()
    }

    func microsecondsOfRoundTrip(_ count: Int) throws -> Double {
        let request = [UInt8](repeating: 0x62, count: 32)
        var buffer = [UInt8](repeating: 0, count: 4096)
        let clock = ContinuousClock()
        let start = clock.now
        for _ in 0..<count {
            guard send(client, request, request.count, 0) == request.count else { throw Failure() }
            var received = 0
            while received < bytes {
                let count = recv(client, &buffer, buffer.count, 0)
                guard count > 0 else { throw Failure() }
                received += count
            }
        }
        return (clock.now - start) / .microseconds(1) / Double(count)
    }
}
