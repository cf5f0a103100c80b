import Foundation
import Limpet
import Testing

/// What clients notice of nodes that are restarted: nothing.
@Suite(.timeLimit(.minutes(2))) struct DrainTests {
    /// Starts a node on a port; 0 for any free one.
    private func startNode(_ name: String, port: Int = 0) throws -> (process: ChildProcess, port: Int) {
        let process = try ChildProcess(
            "failover-node",
            configuration: ["server": ["port": port, "threads": 2], "session": ["node": name]])
        let line = try process.waitForLine(containing: "listening")
        return (process, try #require(line.firstMatch(of: /127\.0\.0\.1:(\d+)/).flatMap { Int($0.1) }))
    }

    @Test func `no request fails while the nodes behind a balancer restart in turns`() async throws {
        var nodes = ["a": try startNode("a"), "b": try startNode("b")]
        let balancer = try Balancer(ports: nodes.mapValues(\.port))
        for name in ["a", "b"] { try await balancer.waitUntilItKnows(name) }
        let isOver = Locked(false)
        async let load = requestsAnswered(by: balancer, until: isOver)
        for name in ["a", "b", "a", "b"] {
            guard let (process, port) = nodes.removeValue(forKey: name) else { continue }
            try process.send(SIGTERM)
            #expect(process.end() == 0)
            nodes[name] = try startNode(name, port: port)
            try await balancer.waitUntilItKnows(name)
        }
        isOver.withLock { $0 = true }
        #expect(try await load >= 2000)
    }

    /// Asks the balancer without a pause. Half of the requests take 20 ms, so that there are always some under way.
    ///
    /// - Returns: how many requests there were, none of which has failed.
    private func requestsAnswered(by balancer: Balancer, until isOver: borrowing Locked<Bool>) async throws -> Int {
        let burst = 2000
        var count = 0
        repeat {
            let report = try await output(
                of: "h2load",
                [
                    "-t1", "-c20", "-m5", "-n\(burst)", "--base-uri=unix:\(balancer.socket)",
                    "http://localhost/session", "http://localhost/hold?ms=20",
                ])
            try #require(report.contains("\(burst) succeeded, 0 failed, 0 errored, 0 timeout"), "\(report)")
            try #require(report.contains("status codes: \(burst) 2xx"), "\(report)")
            count += burst
        } while !isOver.withLock { $0 } && !Task.isCancelled
        return count
    }

    @Test func `a client that honours GOAWAY loses nothing when its node stops`() async throws {
        let node = try startNode("a")
        let script = URL(filePath: #filePath).deletingLastPathComponent().appending(path: "goaway-client")
        let transcript = try await output(
            of: "/usr/bin/python3", [script.path, "\(node.port)", "\(node.process.id)"])
        #expect(
            transcript.split(separator: "\n") == [
                "goaway 2147483647 0", "status 3 200", "data 3 ok end", "goaway 3 0",
                "status 1 200", "data 1 one two end", "closed",
            ])
        #expect(node.process.end() == 0)
    }
}
