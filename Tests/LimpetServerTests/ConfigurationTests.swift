import Limpet
import NIOCore
@testable import LimpetServer
import Testing

@Suite struct `The server's configuration` {
    @Test func `has defaults that are reachable from this machine only`() async throws {
        let section = try await ConfigurationFile.load(nil, environment: [:], HTTP2ServerConfiguration.self)
        #expect(section.host == "127.0.0.1")
        #expect(section.port == 8080)
        #expect(section.threads == 0)
    }

    @Test func `is read from its keys`() async throws {
        let variables = [
            "SERVER_HOST": "::1", "SERVER_PORT": "0", "SERVER_THREADS": "2", "SERVER_UNIX_SOCKET": "/run/a",
            "SERVER_CERTIFICATE_FILE": "a.pem", "SERVER_PRIVATE_KEY_FILE": "b.pem", "SERVER_MAX_CONNECTIONS": "7",
            "SERVER_DRAIN_TIMEOUT_SECONDS": "0", "SERVER_MAX_REQUEST_BODY_BYTES": "9",
            "SERVER_MIN_BYTES_PER_SECOND": "1",
            "SERVER_IDLE_TIMEOUT_SECONDS": "3", "SERVER_MAX_CONNECTION_AGE_SECONDS": "0", "SERVER_ACCESS_LOG": "true",
        ]
        let section = try await ConfigurationFile.load(nil, environment: variables, HTTP2ServerConfiguration.self)
        #expect(section.host == "::1")
        #expect(section.port == 0)
        #expect(section.threads == 2)
        #expect(section.unixSocket == "/run/a")
        #expect(section.certificateFile == "a.pem")
        #expect(section.privateKeyFile == "b.pem")
        #expect(section.maxConnections == 7)
        #expect(section.drainTimeoutSeconds == 0)
        #expect(section.accessLog)
        let limits = ServerLimits(section)
        #expect(limits.maxRequestBodyBytes == 9)
        #expect(limits.minBytesPerSecond == 1)
        #expect(limits.idleTimeout == .seconds(3))
        #expect(limits.maxConnectionAge == .zero)
        #expect(HTTP2ServerConfiguration.keys.count == variables.count)
    }

    @Test(arguments: [
        ("SERVER_CERTIFICATE_FILE", "server.privateKeyFile"), ("SERVER_PRIVATE_KEY_FILE", "server.certificateFile"),
    ])
    func `refuses a certificate or key without the other`(variable: String, missing: String) async throws {
        await #expect {
            try await ConfigurationFile.load(nil, environment: [variable: "a.pem"], HTTP2ServerConfiguration.self)
        } throws: {
            "\($0)".hasPrefix("\(missing): \"\" cannot be; it must be set together with ")
        }
    }

    @Test(arguments: [
        ("SERVER_PORT", "65536"), ("SERVER_PORT", "-1"), ("SERVER_THREADS", "-1"), ("SERVER_HOST", ""),
        ("SERVER_MAX_CONNECTIONS", "0"), ("SERVER_DRAIN_TIMEOUT_SECONDS", "-1"),
        ("SERVER_UNIX_SOCKET", "/" + String(repeating: "a", count: 107)),
    ])
    func `refuses what cannot be`(variable: String, value: String) async throws {
        await #expect(throws: ConfigurationError.self) {
            try await ConfigurationFile.load(nil, environment: [variable: value], HTTP2ServerConfiguration.self)
        }
    }
}
