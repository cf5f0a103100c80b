import Foundation
import Testing

/// What the programs say when they cannot start.
struct StartTests {
    private func run(
        _ configuration: [String: Any], environment: [String: String] = [:], program: String = "failover-node"
    ) throws -> (output: String, status: Int32) {
        try ChildProcess(program, configuration: configuration, environment: environment).finish()
    }

    @Test(arguments: ["failover-node", "counter"])
    func `an unknown key is refused with the nearest one, and status 78`(program: String) throws {
        let (output, status) = try run(["session": ["saveIntervalSecond": 3]], program: program)
        #expect(status == 78)
        #expect(output.contains("session.saveIntervalSecond"))
        #expect(output.contains("session.saveIntervalSeconds"))
        #expect(!output.contains("listening"))
    }

    @Test func `a wrong value is refused with its key, the value and what would be right`() throws {
        let (output, status) = try run(["session": ["mode": "nomadic"]])
        #expect(status == 78)
        #expect(output.contains("session.mode"))
        #expect(output.contains("\"nomadic\""))
        #expect(output.contains("\"sticky\" or \"roaming\""))
    }

    @Test func `an environment variable wins, and is checked like the file`() throws {
        let (output, status) = try run(["server": ["port": 0]], environment: ["SERVER_PORT": "many"])
        #expect(status == 78)
        #expect(output.contains("SERVER_PORT"))
        #expect(output.contains("many"))
    }

    @Test func `a memcached address that cannot be is refused before a port is opened`() throws {
        let (output, status) = try run(
            ["server": ["port": 0], "store": ["kind": "memcached"], "memcached": ["servers": ["127.0.0.1:99999"]]])
        #expect(status == 78)
        #expect(output.contains("memcached.servers"))
        #expect(!output.contains("listening"))
    }

    @Test(arguments: ["failover-node", "counter"])
    func `a port that is in use is said in one line`(program: String) throws {
        let first = try ChildProcess("counter", configuration: ["server": ["port": 0]])
        let line = try first.waitForLine(containing: "listening")
        let port = try #require(line.firstMatch(of: /127\.0\.0\.1:(\d+)/).flatMap { Int($0.1) })
        let (output, status) = try run(["server": ["port": port]], program: program)
        #expect(status == 1)
        let lines = output.split(separator: "\n").filter { $0.contains("cannot listen on 127.0.0.1:\(port)") }
        #expect(lines.count >= 1)
        #expect(!output.contains("Fatal error") && !output.contains("Backtrace"))
    }

    @Test(arguments: ["failover-node", "counter"])
    func `a certificate that is not there is said in one line`(program: String) throws {
        let (output, status) = try run(
            ["server": ["port": 0, "certificateFile": "/missing.pem", "privateKeyFile": "/missing.key"]],
            program: program)
        #expect(status == 1)
        #expect(
            output.split(separator: "\n").contains(
                "server.certificateFile: cannot open /missing.pem: No such file or directory"))
        #expect(!output.contains("listening"))
        #expect(!output.contains("Fatal error") && !output.contains("Backtrace"))
    }

    @Test func `a certificate without its key is refused before a port is opened`() throws {
        let (output, status) = try run(["server": ["port": 0, "certificateFile": "/missing.pem"]])
        #expect(status == 78)
        #expect(output.contains("server.privateKeyFile"))
    }

    @Test func `sessions in memory say that they end with the process`() throws {
        let process = try ChildProcess("counter", configuration: ["server": ["port": 0]])
        let line = try process.waitForLine(containing: "they end with it")
        #expect(line.contains("store.kind is memory"))
    }
}
