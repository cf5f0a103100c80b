import Limpet
import LimpetServer
import Testing

@Suite struct `The server's configuration` {
    @Test func `has defaults that are reachable from this machine only`() async throws {
        let section = try await ConfigurationFile.load(nil, environment: [:], HTTP2ServerConfiguration.self)
        #expect(section.host == "127.0.0.1")
        #expect(section.port == 8080)
        #expect(section.threads == 0)
    }

    @Test func `is read from its three keys`() async throws {
        let variables = ["SERVER_HOST": "::1", "SERVER_PORT": "0", "SERVER_THREADS": "2"]
        let section = try await ConfigurationFile.load(nil, environment: variables, HTTP2ServerConfiguration.self)
        #expect(section.host == "::1")
        #expect(section.port == 0)
        #expect(section.threads == 2)
        #expect(HTTP2ServerConfiguration.keys.map(\.name) == ["server.host", "server.port", "server.threads"])
    }

    @Test(arguments: [("SERVER_PORT", "65536"), ("SERVER_PORT", "-1"), ("SERVER_THREADS", "-1"), ("SERVER_HOST", "")])
    func `refuses what cannot be`(variable: String, value: String) async throws {
        await #expect(throws: ConfigurationError.self) {
            try await ConfigurationFile.load(nil, environment: [variable: value], HTTP2ServerConfiguration.self)
        }
    }
}
