import Foundation

/// HAProxy as the sample configures it, on a Unix socket. It ends with this object.
final class Balancer: Sendable {
    /// The path of the socket.
    let socket: String
    private let process: Process
    private let directory: URL

    /// - Parameter ports: of the nodes `a` and `b`.
    init(ports: [String: Int]) throws {
        directory = FileManager.default.temporaryDirectory.appending(path: "limpet-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true)
        socket = directory.appending(path: "web").path
        let sample = URL(filePath: #filePath).deletingLastPathComponent()
            .appending(path: "../../Samples/Failover/haproxy.cfg")
        let address = "127.0.0.1:${WEB_PORT}"
        let configuration = try String(contentsOf: sample, encoding: .utf8)
        guard configuration.contains(address) else {
            throw ProgramFailure(description: "the sample's balancer does not listen on \(address)")
        }
        // A node that is late because the machine has other work is not down: one that is refuses the connection.
        let adapted = configuration.replacing(address, with: "unix@\(socket)")
            .replacing("defaults\n", with: "defaults\n    timeout check 10s\n")
        let file = directory.appending(path: "haproxy.cfg")
        try adapted.write(to: file, atomically: true, encoding: .utf8)
        process = Process()
        process.executableURL = URL(filePath: "/usr/bin/env")
        process.arguments = ["haproxy", "-db", "-f", file.path]
        var environment = ProcessInfo.processInfo.environment
        // Where Debian has it is not on every user's path.
        environment["PATH", default: ""] += ":/usr/sbin"
        for (name, port) in ports { environment["\(name.uppercased())_PORT"] = "\(port)" }
        process.environment = environment
        process.standardOutput = FileHandle.nullDevice
        try process.run()
    }

    deinit {
        if process.isRunning {
            process.terminate()
            process.waitUntilExit()
        }
        // A temporary folder that cannot be removed is the system's to clean.
        try? FileManager.default.removeItem(at: directory)
    }

    /// Waits until requests for this node get there.
    func waitUntilItKnows(_ node: String) async throws {
        let cookie = "cookie: session=AAAAAAAAAAAAAAAAAAAAAAAA.\(node)"
        var answer = ""
        while !answer.contains("\"node\":\"\(node)\"") {
            guard process.isRunning else { throw ProgramFailure(description: "the balancer has ended") }
            do {
                answer = try await output(
                    of: "curl",
                    [
                        "-sS", "--http2-prior-knowledge", "-m", "10", "--unix-socket", socket, "-H", cookie,
                        "http://localhost/session",
                    ])
            } catch is ProgramFailure {
                // It does not listen yet.
                answer = ""
            }
        }
    }
}
