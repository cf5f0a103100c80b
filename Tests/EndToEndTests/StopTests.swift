import Foundation
import Testing

/// How the programs stop.
@Suite(.timeLimit(.minutes(1))) struct StopTests {
    /// Starts a node, and a request that takes a minute.
    private func busyNode() async throws -> (process: ChildProcess, port: Int, request: Task<Void, any Error>) {
        let process = try ChildProcess(
            "failover-node", configuration: ["server": ["port": 0, "threads": 1, "drainTimeoutSeconds": 3600]])
        let line = try process.waitForLine(containing: "listening")
        let port = try #require(line.firstMatch(of: /127\.0\.0\.1:(\d+)/).flatMap { Int($0.1) })
        let client = HTTPClient()
        try await client.request("POST", port: port, "/count")
        // The answer is sent before the session is left.
        while try await sessionsEntered(port) != "0" {}
        let request = Task { _ = try await client.request("GET", port: port, "/hold?ms=60000") }
        while try await sessionsEntered(port) == "0" {}
        return (process, port, request)
    }

    private func sessionsEntered(_ port: Int) async throws -> String? {
        try await HTTPClient().request("GET", port: port, "/stats").json("sessionsEntered")
    }

    @Test(arguments: [(SIGTERM, SIGTERM), (SIGINT, SIGINT), (SIGTERM, SIGINT)])
    func `the second signal ends what the first one has left`(first: Int32, second: Int32) async throws {
        let (process, port, request) = try await busyNode()
        try process.send(first)
        // New connections are refused as soon as it drains.
        await #expect(throws: ProgramFailure.self) { while true { _ = try await sessionsEntered(port) } }
        #expect(process.isRunning)
        try process.send(second)
        #expect(process.end() == 0)
        await #expect(throws: ProgramFailure.self) { try await request.value }
    }

    @Test(arguments: [SIGTERM, SIGINT]) func `one signal is enough when nothing is under way`(signal: Int32)
        async throws
    {
        let process = try ChildProcess("counter", configuration: ["server": ["port": 0, "drainTimeoutSeconds": 3600]])
        _ = try process.waitForLine(containing: "listening")
        try process.send(signal)
        #expect(process.end() == 0)
    }
}
