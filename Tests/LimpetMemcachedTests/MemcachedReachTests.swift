import Foundation
import InMemoryLogging
import Limpet
import LimpetTesting
import Logging
import Testing

@testable import LimpetMemcached

/// Where people run memcached: other addresses than a port of 127.0.0.1, TLS, users with passwords.
struct MemcachedReachTests {
    /// Writes, swaps and reads.
    private func use(_ store: MemcachedStore, sourceLocation: SourceLocation = #_sourceLocation) async throws {
        try await store.put("one", key("a"))
        let token = try #require(try await store.read(key("a")), sourceLocation: sourceLocation).token
        let swapped = try await store.put("two", key("a"), if: .unchanged(since: token))
        #expect(swapped != .conflict, sourceLocation: sourceLocation)
        #expect(try await store.text(key("a")) == "two", sourceLocation: sourceLocation)
    }

    @Test(arguments: transports)
    func `a Unix socket`(transport: MemcachedConfiguration.Transport) async throws {
        try await withDirectory { directory in
            let path = directory.appending(path: "memcached.sock").path
            let server = try await MemcachedServer.start(
                ["-s", path, "-a", "0777"], isReady: { FileManager.default.fileExists(atPath: path) })
            try await use(try makeStore(path, transport: transport))
            try await server.kill()
        }
    }

    @Test(arguments: transports)
    func `an address of IPv6`(transport: MemcachedConfiguration.Transport) async throws {
        let server = try await MemcachedServer.start("-l", "::1")
        try await use(try makeStore("[::1]:\(server.port)", transport: transport))
    }

    @Test(arguments: transports)
    func `a name with several addresses, of which one answers`(
        transport: MemcachedConfiguration.Transport
    ) async throws {
        // localhost is ::1 as well, where nobody listens.
        let server = try await MemcachedServer.start()
        try await use(try makeStore("localhost:\(server.port)", transport: transport))
    }

    @Test func `a name without an address is a server that cannot be reached`() async throws {
        let store = try makeStore("nowhere.invalid:11211", transport: .pipelined, timeout: .milliseconds(500))
        let error = await failure { try await store.put("x", key("a")) }
        #expect(error?.saysOutage == true)
        #expect(error?.mayHaveTakenEffect == false)
    }

    // MARK: Users

    private func withUsers(_ body: (MemcachedServer) async throws -> Void) async throws {
        try await withDirectory { directory in
            let file = directory.appending(path: "users")
            try "node:kept secret\n".replacing(" ", with: "-").write(to: file, atomically: true, encoding: .utf8)
            let server = try await MemcachedServer.start(["-Y", file.path]) { true }
            try await eventuallyTrue { (try? server.ask("version\r\n")) != nil }
            try await body(server)
        }
    }

    private func configuration(
        _ server: MemcachedServer, _ transport: MemcachedConfiguration.Transport, user: String, password: String
    ) -> MemcachedConfiguration {
        var configuration = MemcachedConfiguration()
        configuration.servers = [server.address]
        configuration.transport = transport
        configuration.user = user
        configuration.password = password
        return configuration
    }

    @Test(arguments: transports)
    func `a user with a password`(transport: MemcachedConfiguration.Transport) async throws {
        try await withUsers { server in
            try await use(
                try makeStore(configuration(server, transport, user: "node", password: "kept-secret")))
        }
    }

    @Test(arguments: transports)
    func `a wrong password is said as that, and stands in no log`(
        transport: MemcachedConfiguration.Transport
    ) async throws {
        try await withUsers { server in
            let log = InMemoryLogHandler()
            let store = try makeStore(
                configuration(server, transport, user: "node", password: "wrong-secret"),
                logger: Logger(label: "test") { _ in log })
            let error = await failure { try await store.put("x", key("a")) }
            #expect(error?.code == .unavailable)
            #expect(error?.mayHaveTakenEffect == false)
            #expect(error?.message.contains("memcached.password") == true)
            #expect(log.entries.count { $0.level == .warning } == 1)
            #expect(log.entries.allSatisfy { !"\($0.message) \($0.metadata)".contains("secret") })
        }
    }

    @Test func `a server that asks for a user nobody told of says which keys are missing`() async throws {
        try await withUsers { server in
            let store = try makeStore(server.address, transport: .pipelined)
            let error = await failure { try await store.put("x", key("a")) }
            #expect(error?.code == .unavailable)
            #expect(error?.message.contains("memcached.user, memcached.password") == true)
        }
    }

    @Test(arguments: transports)
    func `a server that asks nobody keeps no password`(transport: MemcachedConfiguration.Transport) async throws {
        let server = try await MemcachedServer.start()
        try await use(try makeStore(configuration(server, transport, user: "node", password: "secret")))
        #expect(try server.ask("get limpet:hello\r\n", until: "END\r\n") == "END\r\n")
    }

    @Test func `a configuration that is printed shows no password`() {
        var configuration = MemcachedConfiguration()
        configuration.user = "node"
        configuration.password = "secret"
        var dumped = ""
        dump(configuration, to: &dumped)
        for text in ["\(configuration)", String(reflecting: configuration), dumped] {
            #expect(!text.contains("secret"))
            #expect(text.contains("127.0.0.1:11211"))
        }
    }

    // MARK: TLS

    private struct Certificate {
        let file, key: String

        /// A certificate that signs itself, for this machine.
        static func make(in directory: URL, _ name: String) throws -> Certificate {
            let files = ["certificate", "key"].map { directory.appending(path: "\(name).\($0).pem").path }
            let openssl = Process()
            openssl.executableURL = URL(filePath: "/usr/bin/env")
            openssl.arguments = [
                "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                "-days", "2", "-keyout", files[1], "-out", files[0], "-subj", "/CN=localhost", "-addext",
                "subjectAltName=DNS:localhost,IP:127.0.0.1",
            ]
            openssl.standardError = FileHandle.nullDevice
            try openssl.run()
            openssl.waitUntilExit()
            try #require(openssl.terminationStatus == 0)
            // memcached reads it as the user that it becomes.
            try FileManager.default.setAttributes([.posixPermissions: 0o644], ofItemAtPath: files[1])
            return Certificate(file: files[0], key: files[1])
        }
    }

    private func withTLS(
        _ arguments: (Certificate) -> String = { _ in "" },
        _ body: (MemcachedServer, _ server: Certificate, _ client: Certificate) async throws -> Void
    ) async throws {
        try await withDirectory { directory in
            let own = try Certificate.make(in: directory, "server")
            let client = try Certificate.make(in: directory, "client")
            let server = try await MemcachedServer.start([
                "-Z", "-o", "ssl_chain_cert=\(own.file),ssl_key=\(own.key)" + arguments(client),
            ]) { true }
            try await eventuallyTrue { server.listens }
            try await body(server, own, client)
        }
    }

    private func configuration(_ server: MemcachedServer, ca: Certificate?) -> MemcachedConfiguration {
        var configuration = MemcachedConfiguration()
        configuration.servers = [server.address]
        configuration.tls = true
        configuration.caFile = ca?.file ?? ""
        return configuration
    }

    @Test func `TLS, with an authority of one's own, to a name and to an address`() async throws {
        try await withTLS { server, own, _ in
            var configuration = configuration(server, ca: own)
            try await use(try makeStore(configuration))
            configuration.servers = ["localhost:\(server.port)"]
            try await use(try makeStore(configuration))
        }
    }

    @Test func `a certificate of an unknown authority is refused, and the log says so`() async throws {
        try await withTLS { server, _, client in
            for ca in [client, nil] {
                let log = InMemoryLogHandler()
                let store = try makeStore(
                    configuration(server, ca: ca), logger: Logger(label: "test") { _ in log })
                let error = await failure { try await store.put("x", key("a")) }
                #expect(error?.code == .unavailable)
                #expect(error?.mayHaveTakenEffect == false)
                #expect(log.entries.contains { "\($0.metadata)".contains("CERTIFICATE_VERIFY_FAILED") })
            }
        }
    }

    @Test func `a server that wants to know its clients takes one with a certificate, and no other`() async throws {
        try await withTLS({ ",ssl_verify_mode=2,ssl_ca_cert=\($0.file)" }) { server, own, client in
            var configuration = configuration(server, ca: own)
            let error = await failure { try await makeStore(configuration).put("x", key("a")) }
            #expect(error?.saysOutage == true)
            configuration.certificateFile = client.file
            configuration.privateKeyFile = client.key
            try await use(try makeStore(configuration))
        }
    }

    @Test func `large values over TLS come back whole`() async throws {
        try await withTLS { server, own, _ in
            let store = try makeStore(configuration(server, ca: own))
            let value = (0..<900_000).map { UInt8(truncatingIfNeeded: $0 &* 7 >> 2) }
            for _ in 0..<5 {
                _ = try await store.put(value, for: key("a"), timeToLive: .seconds(60), if: .always)
                #expect(try await store.read(key("a"))?.bytes == value)
            }
        }
    }

    private func withDirectory(_ body: (URL) async throws -> Void) async throws {
        let directory = FileManager.default.temporaryDirectory.appending(path: "limpet-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true)
        // memcached makes its socket there as another user.
        try FileManager.default.setAttributes([.posixPermissions: 0o777], ofItemAtPath: directory.path)
        let result: Result<Void, any Error>
        do {
            result = .success(try await body(directory))
        } catch {
            result = .failure(error)
        }
        try FileManager.default.removeItem(at: directory)
        try result.get()
    }
}

extension MemcachedServer {
    /// Whether somebody accepts connections on the port.
    fileprivate var listens: Bool {
        do {
            _ = try ask("\u{16}\u{3}\u{1}", until: "")
            return true
        } catch {
            return !"\(error)".contains("does not listen")
        }
    }
}
