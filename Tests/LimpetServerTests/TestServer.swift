import Foundation
import InMemoryLogging
import Logging
import Metrics
import ServiceLifecycle
import Tracing

@testable import LimpetServer

/// A server on a free port of this machine, while a test runs.
struct TestServer {
    let port: Int
    let group: ServiceGroup
    let log: InMemoryLogHandler

    /// Runs a server; stops it gracefully when the test's body returns.
    static func run<Result: Sendable>(
        limits: ServerLimits = ServerLimits(), configure: (inout HTTP2ServerConfiguration) -> Void = { _ in },
        metrics: any MetricsFactory = NOOPMetricsHandler.instance, tracer: any Tracer = NoOpTracer(),
        handler: @escaping HTTP2Server.Handler,
        during body: (TestServer) async throws -> Result
    ) async throws -> Result {
        var configuration = HTTP2ServerConfiguration()
        configuration.port = 0
        configuration.threads = 1
        // No warning of a machine whose limit of open files is low.
        configuration.maxConnections = 500
        configure(&configuration)
        let log = InMemoryLogHandler()
        var logger = Logger(label: "test") { _ in log }
        logger.logLevel = .debug
        let server = try HTTP2Server(
            configuration: configuration, limits: limits, logger: logger, metrics: metrics, tracer: tracer,
            handler: handler)
        let group = ServiceGroup(services: [server], logger: Logger(label: "group") { _ in log })
        return try await withThrowingTaskGroup(of: Void.self) { tasks in
            tasks.addTask { try await group.run() }
            let result = try await body(TestServer(port: server.boundPort, group: group, log: log))
            await group.triggerGracefulShutdown()
            try await tasks.waitForAll()
            return result
        }
    }

    func url(_ path: String) -> String { "http://127.0.0.1:\(port)\(path)" }

    func curl(_ arguments: String...) async throws -> ToolResult {
        try await runTool("curl", ["-sS", "--max-time", "20", "--http2-prior-knowledge"] + arguments)
    }
}

struct ToolResult: Sendable {
    let output: String
    let errors: String
    let status: Int32
}

/// Runs a program and waits for its end.
func runTool(_ name: String, _ arguments: [String]) async throws -> ToolResult {
    try await withTemporaryDirectory { directory in
        let files = ["output", "errors"].map { directory.appending(path: $0) }
        for file in files { try Data().write(to: file) }
        let process = Process()
        process.executableURL = URL(filePath: "/usr/bin/env")
        process.arguments = [name] + arguments
        process.standardInput = FileHandle.nullDevice
        process.standardOutput = try FileHandle(forWritingTo: files[0])
        process.standardError = try FileHandle(forWritingTo: files[1])
        try await withCheckedThrowingContinuation { (ended: CheckedContinuation<Void, any Error>) in
            process.terminationHandler = { _ in ended.resume() }
            do { try process.run() } catch { ended.resume(throwing: error) }
        }
        let texts = try files.map { String(decoding: try Data(contentsOf: $0), as: UTF8.self) }
        return ToolResult(output: texts[0], errors: texts[1], status: process.terminationStatus)
    }
}

func withTemporaryDirectory<Result>(_ body: (URL) async throws -> Result) async throws -> Result {
    let directory = FileManager.default.temporaryDirectory.appending(path: "limpet-\(UUID().uuidString)")
    try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true)
    let result: Result
    do {
        result = try await body(directory)
    } catch {
        try FileManager.default.removeItem(at: directory)
        throw error
    }
    try FileManager.default.removeItem(at: directory)
    return result
}
