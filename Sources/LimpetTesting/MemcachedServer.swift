import Limpet
import Foundation

#if canImport(Glibc)
    import Glibc
#elseif canImport(Darwin)
    import Darwin
#endif

/// A real memcached for a test: a child process on a free port of the loopback interface.
///
/// It ends with the object, and with the test's process however that ends. `memcached` has to be in the `PATH`.
///
/// ```swift
/// let server = try await MemcachedServer.start()
/// // … server.address
/// try await server.restart()
/// ```
public final class MemcachedServer: Sendable {
    /// The server could not be started or asked.
    public struct Failure: Error, Sendable, CustomStringConvertible {
        /// What went wrong.
        public let description: String
    }

    private struct Child: Sendable {
        let process: Process
        /// The child ends when this is closed.
        let lifeline: Pipe
        let pid: pid_t
    }

    /// Runs memcached, tells its process id, and kills it when its own input ends: when the test closes the pipe, or is
    /// no more. Asynchronous commands of a shell read from /dev/null, so memcached does not hold the pipe.
    private static let script = #"memcached "$@" & echo $!; cat > /dev/null; kill -9 $!; wait"#
    /// Outside of the range from which Linux takes the ports of outgoing connections (32768 to 60999), so that none of
    /// these takes the port while the server is down.
    private static let ports = 20_000..<32_768
    private static let patience = Duration.seconds(10)

    /// The port on 127.0.0.1. A restart keeps it.
    public let port: Int
    private let arguments: [String]
    private let isReady: (@Sendable () -> Bool)?
    private let child = Locked<Child?>(nil)

    /// Where the server listens: `127.0.0.1:port`.
    public var address: String { "127.0.0.1:\(port)" }

    private init(port: Int, arguments: [String], isReady: (@Sendable () -> Bool)?) {
        self.port = port
        self.arguments = arguments
        self.isReady = isReady
    }

    deinit {
        child.withLock { child in
            // The script does the rest, with nobody waiting for it. A pipe that is closed already is as good.
            try? child?.lifeline.fileHandleForWriting.close()
        }
    }

    /// Starts a server, and waits until it answers.
    ///
    /// - Parameter arguments: for memcached, beside address and port: `"-m", "2"`.
    public static func start(_ arguments: String...) async throws -> MemcachedServer {
        try await start(arguments)
    }

    /// - Parameter isReady: how to find that a server answers which does not answer everybody; `nil`: it tells its number.
    package static func start(
        _ arguments: [String], isReady: (@Sendable () -> Bool)? = nil
    ) async throws -> MemcachedServer {
        var lastError: any Error = Failure(description: "no free port")
        for _ in 0..<5 {
            let server = MemcachedServer(port: try freePort(), arguments: arguments, isReady: isReady)
            do {
                try await server.launch()
                return server
            } catch {
                lastError = error
            }
        }
        throw lastError
    }

    /// Starts the server again on the same port, with an empty memory; kills it first if it runs.
    public func restart() async throws {
        try await kill()
        try await launch()
    }

    /// Ends the server as `kill -9` does, and waits until it is gone.
    public func kill() async throws {
        guard let child = child.withLock({ child in child.take() }) else { return }
        try child.lifeline.fileHandleForWriting.close()
        try await poll("the server does not end") { child.process.isRunning ? nil : () }
    }

    /// Stops the process in its tracks: it accepts connections, and answers nothing, until ``resume()``.
    public func pause() async throws {
        let pid = try signal(SIGSTOP)
        // A thread on another processor goes on for a moment after the signal was sent.
        try await poll("the server does not stop") { try Self.isStopped(pid) ? () : nil }
    }

    /// Lets the process go on.
    public func resume() throws { _ = try signal(SIGCONT) }

    /// What the server says about itself: the answer to `stats`.
    public func statistics() throws -> [String: String] {
        var statistics: [String: String] = [:]
        for line in try ask("stats\r\n", until: "END\r\n").split(separator: "\r\n") {
            let words = line.split(separator: " ", maxSplits: 2)
            if words.count == 3, words[0] == "STAT" { statistics[String(words[1])] = String(words[2]) }
        }
        return statistics
    }

    /// Sends the server a command of its text protocol, on a connection of its own.
    ///
    /// - Parameters:
    ///   - command: with its line end.
    ///   - end: how the answer ends.
    public func ask(_ command: String, until end: String = "\r\n") throws -> String {
        let socket = try Self.openSocket()
        defer { close(socket) }
        var patience = timeval(tv_sec: 5, tv_usec: 0)
        setsockopt(socket, SOL_SOCKET, SO_RCVTIMEO, &patience, socklen_t(MemoryLayout<timeval>.size))
        guard Self.withAddress(port, { connect(socket, $0, $1) }) == 0 else {
            throw Failure(description: "the server does not listen (\(String(cString: strerror(errno))))")
        }
        let request = Array(command.utf8)
        guard send(socket, request, request.count, Int32(MSG_NOSIGNAL)) == request.count else {
            throw Failure(description: "the server does not take a command")
        }
        var answer: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 16_384)
        while !answer.suffix(end.utf8.count).elementsEqual(end.utf8) {
            let count = recv(socket, &buffer, buffer.count, 0)
            guard count > 0 else { throw Failure(description: "the server does not answer") }
            answer += buffer[..<count]
        }
        return String(decoding: answer, as: UTF8.self)
    }

    private func signal(_ number: Int32) throws -> pid_t {
        guard let pid = child.withLock({ $0?.pid }), sendSignal(pid, number) == 0 else {
            throw Failure(description: "the server does not run")
        }
        return pid
    }

    /// Whether all threads of a process are stopped: the state behind the name in parentheses is T (proc(5)).
    private static func isStopped(_ pid: pid_t) throws -> Bool {
        let threads = "/proc/\(pid)/task"
        return try FileManager.default.contentsOfDirectory(atPath: threads).allSatisfy { thread in
            let status = try String(contentsOfFile: "\(threads)/\(thread)/stat", encoding: .utf8)
            return status.split(separator: ")").last?.hasPrefix(" T") ?? false
        }
    }

    private func launch() async throws {
        let process = Process()
        let lifeline = Pipe()
        let output = Pipe()
        process.executableURL = URL(filePath: "/bin/sh")
        // memcached refuses to run as root unless it is told which user to become.
        let user = getuid() == 0 ? ["-u", "nobody"] : []
        process.arguments =
            ["-c", Self.script, "memcached", "-l", "127.0.0.1", "-p", "\(port)", "-U", "0"] + user + arguments
        process.standardInput = lifeline
        process.standardOutput = output
        try process.run()
        // The child has its own; with ours open it would never see its end.
        try lifeline.fileHandleForReading.close()
        let text = String(decoding: output.fileHandleForReading.availableData, as: UTF8.self)
        guard let pid = pid_t(text.trimmingCharacters(in: .whitespacesAndNewlines)) else {
            throw Failure(description: "the shell does not start memcached")
        }
        child.withLock { $0 = Child(process: process, lifeline: lifeline, pid: pid) }
        do {
            try await poll("memcached does not answer on port \(port): is it installed, and the port free?") {
                if let isReady { return isReady() ? () : nil }
                // Refused until it listens; a number of another process if the port is somebody else's.
                return (try? statistics()["pid"]) == "\(pid)" ? () : nil
            }
        } catch {
            try await kill()
            throw error
        }
    }

    private func poll(_ failure: String, _ condition: () throws -> Void?) async throws {
        let deadline = ContinuousClock.now + Self.patience
        while try condition() == nil {
            guard ContinuousClock.now < deadline else { throw Failure(description: failure) }
            try await Task.sleep(for: .milliseconds(5))
        }
    }

    private static func freePort() throws -> Int {
        for _ in 0..<100 {
            let port = Int.random(in: ports)
            let socket = try openSocket()
            defer { close(socket) }
            if withAddress(port, { bind(socket, $0, $1) }) == 0 { return port }
        }
        throw Failure(description: "no free port")
    }

    private static func openSocket() throws -> Int32 {
        #if canImport(Glibc)
            let socket = Glibc.socket(AF_INET, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
        #else
            let socket = Darwin.socket(AF_INET, SOCK_STREAM, 0)
        #endif
        guard socket >= 0 else { throw Failure(description: "no socket (\(String(cString: strerror(errno))))") }
        return socket
    }

    private static func withAddress(
        _ port: Int, _ body: (UnsafePointer<sockaddr>, socklen_t) -> Int32
    ) -> Int32 {
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = in_port_t(port).bigEndian
        address.sin_addr.s_addr = in_addr_t(0x7F00_0001).bigEndian
        // A `sockaddr_in` is what the system expects behind a `sockaddr` of AF_INET; the pointer lives for the call.
        return withUnsafePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                body($0, socklen_t(MemoryLayout<sockaddr_in>.size))
            }
        }
    }
}

/// `kill(2)`, which the server's own method hides.
private func sendSignal(_ pid: pid_t, _ number: Int32) -> Int32 { kill(pid, number) }
