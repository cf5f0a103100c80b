import Foundation
import InMemoryLogging
import Logging
import NIOCore
import NIOSSL
import Testing

@testable import LimpetServer

@Suite(.timeLimit(.minutes(1))) struct `The server's certificate` {
    // MARK: At start

    private func error(_ change: (inout HTTP2ServerConfiguration) throws -> Void) async throws -> ServerError? {
        var configuration = HTTP2ServerConfiguration()
        configuration.port = 0
        try change(&configuration)
        let server = try HTTP2Server(configuration: configuration, logger: Logger(label: "test")) { _ in .text("") }
        let error = await #expect(throws: ServerError.self) { try await server.run() }
        await #expect { try await server.boundPort } throws: { $0 as? ServerError == error }
        #expect(error?.code == .unusableCertificate)
        return error
    }

    @Test func `is missed with its key and file`() async throws {
        try await withTemporaryDirectory { directory in
            let pair = try await TestCertificate.make(in: directory)
            let missing = directory.appending(path: "missing.pem").path
            let noCertificate = try await error {
                $0.certificateFile = missing
                $0.privateKeyFile = pair.privateKeyFile
            }
            #expect(
                noCertificate?.message
                    == "server.certificateFile: cannot open \(missing): No such file or directory")
            let noKey = try await error {
                $0.certificateFile = pair.certificateFile
                $0.privateKeyFile = missing
            }
            #expect(noKey?.message.hasPrefix("server.privateKeyFile: cannot open \(missing): ") == true)
            let isDirectory = try await error {
                $0.certificateFile = directory.path
                $0.privateKeyFile = pair.privateKeyFile
            }
            #expect(isDirectory?.message.hasPrefix("server.certificateFile: cannot read \(directory.path): ") == true)
        }
    }

    @Test func `is refused if it is none, or the key is none`() async throws {
        try await withTemporaryDirectory { directory in
            let pair = try await TestCertificate.make(in: directory)
            let broken = directory.appending(path: "broken.pem")
            try Data("-----BEGIN SECRET-----\nTm90aGluZw==\n-----END SECRET-----\n".utf8).write(to: broken)
            let noCertificate = try await error {
                $0.certificateFile = broken.path
                $0.privateKeyFile = pair.privateKeyFile
            }
            #expect(
                noCertificate?.message == "server.certificateFile: \(broken.path) holds no certificate in PEM")
            let noKey = try await error {
                $0.certificateFile = pair.certificateFile
                $0.privateKeyFile = broken.path
            }
            #expect(noKey?.message.hasPrefix("server.privateKeyFile: \(broken.path) holds no private key") == true)
        }
    }

    @Test func `is refused with the key of another`() async throws {
        try await withTemporaryDirectory { directory in
            let pair = try await TestCertificate.make(in: directory)
            let other = try await TestCertificate.make(in: directory, "other")
            let mismatch = try await error {
                $0.certificateFile = pair.certificateFile
                $0.privateKeyFile = other.privateKeyFile
            }
            #expect(
                mismatch?.message
                    == "server.privateKeyFile: the key in \(other.privateKeyFile) does not belong to the first "
                    + "certificate in \(pair.certificateFile)")
        }
    }

    @Test func `is refused without its key`() {
        var configuration = HTTP2ServerConfiguration()
        configuration.certificateFile = "a.pem"
        #expect {
            try HTTP2Server(configuration: configuration, logger: Logger(label: "test")) { _ in ServerResponse.text("")
            }
        } throws: { "\($0)".contains("server.privateKeyFile") }
    }

    // MARK: While the server runs

    @Test func `is reloaded for new connections while open ones go on`() async throws {
        let started = Signal()
        let finish = Signal()
        var limits = ServerLimits()
        limits.certificateLookInterval = .milliseconds(1)
        try await TestServer.runWithTLS(limits: limits) { request in
            guard request.path == "/wait" else { return .text("new") }
            started.send()
            await finish.wait()
            return .text("old")
        } during: { server, certificate in
            try await withTemporaryDirectory { directory in
                let open = try await FrameClient.connect(server.port, tls: certificate.client())
                try await open.send(.request(1, "GET", "/wait"))
                await started.wait()

                let new = try await TestCertificate.make(in: directory)
                try new.replace(certificate)
                let client = try await connect(server.port, trusting: new)
                try await client.send(.request(1))
                #expect(try await client.response(1).content == Array("new".utf8))

                finish.send()
                #expect(try await open.response(1).content == Array("old".utf8))
                #expect(server.log.entries.allSatisfy { $0.level < .warning })
            }
        }
    }

    /// Connects as soon as the server shows a certificate.
    private func connect(_ port: Int, trusting certificate: TestCertificate) async throws -> FrameClient {
        while true {
            do {
                return try await FrameClient.connect(port, tls: certificate.client())
            } catch  where error is NIOSSLError || error is ChannelError {
                // Still the certificate before.
                try Task.checkCancellation()
            }
        }
    }

    @Test func `stays while what replaces it is not fit, and goes once it is`() async throws {
        try await withTemporaryDirectory { directory in
            let pair = try await TestCertificate.make(in: directory)
            let new = try await TestCertificate.make(in: directory, "new")
            let log = InMemoryLogHandler()
            let contexts = try TLSContexts(
                CertificateFiles(certificate: pair.certificateFile, privateKey: pair.privateKeyFile),
                limits: ServerLimits(), logger: Logger(label: "test") { _ in log })
            let first = contexts.current
            let warnings = { log.entries.filter { $0.level == .warning } }

            // The certificate of one and the key of another.
            try FileManager.default.removeItem(atPath: pair.certificateFile)
            try FileManager.default.copyItem(atPath: new.certificateFile, toPath: pair.certificateFile)
            for _ in 0..<5 { contexts.look() }
            #expect(contexts.current === first)
            #expect(warnings().count == 1)
            #expect("\(warnings()[0].metadata)".contains("does not belong"))

            // A key that is being written.
            try Data("-----BEGIN PRIVATE KEY-----\nMIGH".utf8).write(to: URL(filePath: pair.privateKeyFile))
            for _ in 0..<5 { contexts.look() }
            #expect(contexts.current === first)
            #expect(warnings().count == 2)
            #expect(!"\(log.entries)".contains("MIGH"))

            try new.replace(pair)
            contexts.look()
            #expect(contexts.current === first)
            contexts.look()
            #expect(contexts.current !== first)
            #expect(warnings().count == 2)
        }
    }

    @Test func `is reloaded when a symbolic link on the way to it changes`() async throws {
        try await withTemporaryDirectory { directory in
            for version in ["1", "2"] {
                let folder = directory.appending(path: version)
                try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
                _ = try await TestCertificate.make(in: folder)
            }
            // As Kubernetes mounts a secret: `..data` points to the version.
            let data = directory.appending(path: "..data")
            try FileManager.default.createSymbolicLink(atPath: data.path, withDestinationPath: "1")
            let contexts = try TLSContexts(
                CertificateFiles(
                    certificate: data.appending(path: "server.certificate.pem").path,
                    privateKey: data.appending(path: "server.key.pem").path),
                limits: ServerLimits(), logger: Logger(label: "test"))
            let first = contexts.current
            contexts.look()
            #expect(contexts.current === first)
            try FileManager.default.createSymbolicLink(atPath: data.path + ".new", withDestinationPath: "2")
            #expect(rename(data.path + ".new", data.path) == 0)
            contexts.look()
            contexts.look()
            #expect(contexts.current !== first)
        }
    }
}

@Suite struct `The watch over a certificate` {
    @Test func `reads a change once it has settled, and only once`() {
        var watch = CertificateWatch(1)
        #expect(watch.look(1) == false)
        #expect(watch.look(2) == false)
        #expect(watch.look(3) == false)
        #expect(watch.look(3) == true)
        #expect(watch.look(3) == false)
    }

    @Test func `does not read what came back before it settled`() {
        var watch = CertificateWatch(1)
        #expect(watch.look(2) == false)
        #expect(watch.look(1) == false)
        #expect(watch.look(1) == false)
    }
}

@Suite struct `The negotiation of a connection over TLS` {
    @Test func `passes everything on once it is h2`() {
        var negotiation = TLSNegotiation()
        #expect(negotiation.completed(negotiated: "h2") == true)
        guard case .pass = negotiation.received(ByteBuffer(string: "PRI")) else {
            Issue.record("h2")
            return
        }
        #expect(negotiation.giveUp() == false)
    }

    @Test func `waits until it is clear what a client without h2 speaks`() {
        var negotiation = TLSNegotiation()
        #expect(negotiation.completed(negotiated: nil) == false)
        guard case .wait = negotiation.received(ByteBuffer(string: "P")) else {
            Issue.record("may be HTTP/1 or HTTP/2")
            return
        }
        guard case .refuse(let answer?) = negotiation.received(ByteBuffer(string: "OST / HTTP/1.1")) else {
            Issue.record("an answer is due")
            return
        }
        #expect(String(buffer: answer).hasPrefix("HTTP/1.1 505 "))
        guard case .ignore = negotiation.received(ByteBuffer(string: "\r\n")) else {
            Issue.record("answered already")
            return
        }
    }

    @Test func `can be given up until it is over`() {
        var negotiation = TLSNegotiation()
        #expect(negotiation.giveUp() == true)
        #expect(negotiation.giveUp() == false)
        #expect(negotiation.completed(negotiated: "h2") == false)
        guard case .ignore = negotiation.received(ByteBuffer(string: "PRI")) else {
            Issue.record("given up")
            return
        }
    }
}
