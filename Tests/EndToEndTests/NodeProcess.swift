import Foundation
import Synchronization

/// A `failover-node` as a process of its own, with its own configuration file.
final class NodeProcess: Sendable {
    let name: String
    let port: Int
    private let process: ChildProcess

    /// Starts a node and waits until it listens.
    ///
    /// - Parameter port: 0 for any free one; a restart takes the port that it had.
    init(
        _ name: String, memcached: [Int], port: Int = 0, saveIntervalSeconds: Int = 60, session: [String: Any] = [:],
        lock: [String: Any] = [:]
    ) throws {
        self.name = name
        let configuration: [String: Any] = [
            "server": ["port": port, "threads": 2],
            "session": ["node": name, "saveIntervalSeconds": saveIntervalSeconds]
                .merging(session) { _, new in new },
            "lock": lock,
            "store": ["kind": "memcached"],
            "memcached": ["servers": memcached.map { "127.0.0.1:\($0)" }],
        ]
        process = try ChildProcess("failover-node", configuration: configuration)
        let line = try process.waitForLine(containing: "listening")
        guard let port = line.firstMatch(of: /address=127\.0\.0\.1:(\d+)/).flatMap({ Int($0.1) }) else {
            throw ChildProcess.Failure(description: "the node does not tell its port: \(line)")
        }
        self.port = port
    }

    /// As a power cut would.
    func killHard() {
        process.kill(SIGKILL)
    }

    /// Stops the process in its tracks, until ``resume()``: connections are made, and nothing is answered.
    func pause() throws { try process.send(SIGSTOP) }

    /// Lets the process go on, as if no time had passed.
    func resume() throws { try process.send(SIGCONT) }

    /// The node's counters.
    func statistics() async throws -> Statistics {
        let answer = try await HTTPClient().request("GET", port: port, "/stats")
        return try JSONDecoder().decode(Statistics.self, from: Data(answer.body.utf8))
    }

    struct Statistics: Decodable {
        let localHits, verified, loads, takeovers, commits, merges, conflicts, accessTimeSaves, lockWaits,
            republished: Int
        let sessionsInMemory, sessionsEntered, unsentSessions, unsentDelivered: Int
        let storeOperations: [String: Int]
        var storeCalls: Int { storeOperations.values.reduce(0, +) }
    }
}

/// One of this package's programs, started with a configuration file. It ends with this object.
final class ChildProcess: Sendable {
    struct Failure: Error, CustomStringConvertible {
        let description: String
    }

    private let process: Process
    private let output: FileHandle
    private let directory: URL

    init(
        _ program: String, configuration: [String: Any], environment: [String: String] = [:]
    ) throws {
        directory = FileManager.default.temporaryDirectory.appending(path: "limpet-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true)
        let file = directory.appending(path: "node.json")
        try JSONSerialization.data(withJSONObject: configuration).write(to: file)
        process = Process()
        process.executableURL = try Self.directory.appending(path: program)
        process.arguments = program == "counter" ? [file.path] : ["--config", file.path]
        process.environment = ProcessInfo.processInfo.environment.merging(environment) { _, new in new }
        let pipe = Pipe()
        process.standardOutput = pipe
        process.standardError = pipe
        output = pipe.fileHandleForReading
        try process.run()
    }

    deinit {
        kill(SIGKILL)
        // A temporary folder that cannot be removed is the system's to clean.
        try? FileManager.default.removeItem(at: directory)
    }

    /// Where this package's programs are built: beside the tests.
    private static var directory: URL {
        get throws {
            let tests = URL(filePath: CommandLine.arguments[0]).standardizedFileURL
            var directory = tests.deletingLastPathComponent()
            while directory.path != "/" {
                if FileManager.default.isExecutableFile(atPath: directory.appending(path: "failover-node").path) {
                    return directory
                }
                directory.deleteLastPathComponent()
            }
            throw Failure(description: "failover-node is not beside the tests: \(tests.path)")
        }
    }

    /// Reads what the program prints until a line has this text.
    func waitForLine(containing text: String) throws -> String {
        var printed = ""
        while true {
            let data = output.availableData
            guard !data.isEmpty else { throw Failure(description: "the program ended: \(printed)") }
            printed += String(decoding: data, as: UTF8.self)
            if let line = printed.split(separator: "\n").first(where: { $0.contains(text) }), printed.hasSuffix("\n") {
                // What it prints from now on is read and dropped, so that it never waits for this process.
                output.readabilityHandler = { handle in
                    if handle.availableData.isEmpty { handle.readabilityHandler = nil }
                }
                return String(line)
            }
        }
    }

    /// Waits for the end; everything that was printed, and the status.
    func finish() throws -> (output: String, status: Int32) {
        let data = try output.readToEnd() ?? Data()
        process.waitUntilExit()
        return (String(decoding: data, as: UTF8.self), process.terminationStatus)
    }

    var isRunning: Bool { process.isRunning }

    /// The number of the process.
    var id: Int32 { process.processIdentifier }

    func send(_ signal: Int32) throws {
        guard Foundation.kill(process.processIdentifier, signal) == 0 else {
            throw Failure(description: "the program cannot be sent a signal: \(errno)")
        }
    }

    /// Waits for the end; the status.
    func end() -> Int32 {
        process.waitUntilExit()
        return process.terminationStatus
    }

    func kill(_ signal: Int32) {
        guard process.isRunning else { return }
        _ = Foundation.kill(process.processIdentifier, signal)
        process.waitUntilExit()
    }
}
