import Foundation
import NIOSSL

@testable import LimpetServer

/// A self-signed certificate for this machine and its key, made by `openssl` in a directory.
struct TestCertificate: Sendable {
    struct Failure: Error, CustomStringConvertible {
        let description: String
    }

    let certificateFile: String
    let privateKeyFile: String

    /// Makes a pair in files that begin with a name.
    static func make(in directory: URL, _ name: String = "server") async throws -> TestCertificate {
        let pair = TestCertificate(
            certificateFile: directory.appending(path: "\(name).certificate.pem").path,
            privateKeyFile: directory.appending(path: "\(name).key.pem").path)
        let openssl = try await runTool(
            "openssl",
            [
                "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
                "-keyout", pair.privateKeyFile, "-out", pair.certificateFile, "-subj", "/CN=localhost", "-addext",
                "subjectAltName=DNS:localhost,IP:127.0.0.1",
            ])
        guard openssl.status == 0 else { throw Failure(description: openssl.errors) }
        return pair
    }

    /// Puts this pair's files in the place of another's as certbot does: each in one step, one after the other.
    func replace(_ other: TestCertificate) throws {
        for (new, old) in [
            (certificateFile, other.certificateFile), (privateKeyFile, other.privateKeyFile),
        ] {
            try FileManager.default.copyItem(atPath: new, toPath: old + ".new")
            guard rename(old + ".new", old) == 0 else { throw Failure(description: "\(old) cannot be replaced") }
        }
    }

    /// What a client needs that trusts this certificate alone.
    func client(negotiating protocols: [String] = ["h2"]) throws -> NIOSSLContext {
        var configuration = TLSConfiguration.makeClientConfiguration()
        configuration.trustRoots = .certificates(try NIOSSLCertificate.fromPEMFile(certificateFile))
        configuration.applicationProtocols = protocols
        return try NIOSSLContext(configuration: configuration)
    }
}

extension TestServer {
    /// Runs a server with a certificate of its own.
    static func runWithTLS<Result: Sendable>(
        limits: ServerLimits = ServerLimits(), handler: @escaping HTTP2Server.Handler = { _ in .text("hello") },
        during body: (TestServer, TestCertificate) async throws -> Result
    ) async throws -> Result {
        try await withTemporaryDirectory { directory in
            let certificate = try await TestCertificate.make(in: directory)
            return try await run(
                limits: limits,
                configure: {
                    $0.certificateFile = certificate.certificateFile
                    $0.privateKeyFile = certificate.privateKeyFile
                },
                handler: handler, during: { try await body($0, certificate) })
        }
    }

    /// curl, trusting a certificate.
    func curl(_ certificate: TestCertificate, _ arguments: String...) async throws -> ToolResult {
        let always = ["-sS", "--max-time", "20", "--cacert", certificate.certificateFile]
        return try await runTool("curl", always + arguments + ["https://localhost:\(port)/"])
    }
}
