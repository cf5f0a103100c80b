import Foundation
import HTTPTypes
import Logging
import NIOCore
import ServiceLifecycle
import Testing

@testable import LimpetServer

@Suite(.timeLimit(.minutes(1))) struct `Over TLS, the server` {
    // MARK: What it speaks

    @Test(arguments: ["1.2", "1.3"]) func `speaks HTTP/2 with curl`(version: String) async throws {
        try await TestServer.runWithTLS { server, certificate in
            let curl = try await server.curl(
                certificate, "--tlsv\(version)", "--tls-max", version, "--write-out", "\n%{http_code} %{http_version}")
            #expect(curl.output == "hello\n200 2", "\(curl.errors)")
        }
    }

    @Test(arguments: [["--http1.1"], ["--http1.1", "--no-alpn"], ["--no-alpn"]])
    func `tells an HTTP/1 client what to do, and closes`(arguments: [String]) async throws {
        try await TestServer.runWithTLS { server, certificate in
            let curl = try await runTool(
                "curl",
                ["-sS", "--max-time", "20", "--include", "--cacert", certificate.certificateFile] + arguments
                    + ["https://localhost:\(server.port)/"])
            #expect(curl.status == 0, "\(curl.errors)")
            #expect(curl.output.hasPrefix("HTTP/1.1 505 HTTP Version Not Supported\r\n"))
            #expect(curl.output.contains("\r\nconnection: close\r\n"))
            #expect(curl.output.hasSuffix("HTTP/2 only, negotiated as h2 in ALPN: try curl --http2.\n"))
        }
    }

    @Test func `tells the same to a client that negotiates h2 and speaks HTTP/1`() async throws {
        try await TestServer.runWithTLS { server, certificate in
            let client = try await FrameClient.connect(server.port, handshake: false, tls: certificate.client())
            try await client.send(bytes: Array("GET / HTTP/1.1\r\nhost: test\r\n\r\n".utf8))
            let answer = await client.rest()
            #expect(answer.hasPrefix("HTTP/1.1 505 HTTP Version Not Supported\r\n"))
            #expect(answer.hasSuffix("HTTP/2 only, negotiated as h2 in ALPN: try curl --http2.\n"))
        }
    }

    // RFC 9113, section 3.3: implementations that support HTTP/2 over TLS must use protocol negotiation.
    @Test(arguments: [[], ["http/1.1"], ["h2c"]])
    func `serves nobody HTTP/2 who has not negotiated it`(protocols: [String]) async throws {
        try await TestServer.runWithTLS { _ in
            Issue.record("a request was served")
            return .text("")
        } during: { server, certificate in
            let client = try await FrameClient.connect(
                server.port, handshake: false, tls: certificate.client(negotiating: protocols))
            try await client.send(bytes: Frame.preface)
            #expect(await client.rest() == "")
        }
    }

    @Test func `chooses h2, whatever else is offered first`() async throws {
        try await TestServer.runWithTLS { server, certificate in
            let client = try await FrameClient.connect(
                server.port, tls: certificate.client(negotiating: ["http/1.1", "h2"]))
            try await client.send(.request(1))
            #expect(try await client.response(1).status == 200)
        }
    }

    // RFC 9113, section 9.2.2 and appendix A.
    @Test(arguments: [
        (["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-SHA"], "handshake failure"),
        (["-tls1_2", "-cipher", "ECDHE-ECDSA-AES256-SHA384"], "handshake failure"),
        (["-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0"], "protocol version"),
    ])
    func `refuses what HTTP/2 forbids in TLS`(arguments: [String], alert: String) async throws {
        try await TestServer.runWithTLS { server, _ in
            let openssl = try await runTool(
                "openssl", ["s_client", "-connect", "127.0.0.1:\(server.port)", "-alpn", "h2"] + arguments)
            #expect(openssl.status != 0)
            #expect(openssl.errors.contains("alert \(alert)"), "\(openssl.errors)")
        }
    }

    @Test(arguments: [
        "ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-ECDSA-CHACHA20-POLY1305",
    ])
    func `accepts authenticated encryption in TLS 1.2, without compression`(cipher: String) async throws {
        try await TestServer.runWithTLS { server, _ in
            let openssl = try await runTool(
                "openssl",
                ["s_client", "-connect", "127.0.0.1:\(server.port)", "-alpn", "h2", "-tls1_2", "-cipher", cipher])
            #expect(openssl.output.contains("Cipher is \(cipher)"), "\(openssl.errors)")
            #expect(openssl.output.contains("ALPN protocol: h2"))
            #expect(openssl.output.contains("Compression: NONE"))
        }
    }

    // MARK: What it does not wait for, or answer

    @Test(arguments: ["GET / HTTP/1.1\r\nhost: a\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"])
    func `closes a connection without TLS`(bytes: String) async throws {
        try await TestServer.runWithTLS { server, _ in
            let client = try await FrameClient.connect(server.port, handshake: false)
            try await client.send(bytes: Array(bytes.utf8))
            #expect(!(await client.rest()).contains("HTTP"))
        }
    }

    @Test func `closes a connection that does not shake hands in time`() async throws {
        var limits = ServerLimits()
        limits.tlsHandshakeTimeout = .milliseconds(20)
        try await TestServer.runWithTLS(limits: limits) { server, _ in
            let client = try await FrameClient.connect(server.port, handshake: false)
            #expect(await client.rest() == "")
        }
    }

    @Test func `closes a connection without h2 that sends nothing`() async throws {
        var limits = ServerLimits()
        limits.tlsHandshakeTimeout = .milliseconds(200)
        try await TestServer.runWithTLS(limits: limits) { server, certificate in
            let client = try await FrameClient.connect(
                server.port, handshake: false, tls: certificate.client(negotiating: []))
            #expect(await client.rest() == "")
        }
    }

    @Test func `leaves a connection alone once it has negotiated h2`() async throws {
        var limits = ServerLimits()
        // However busy the machine is.
        limits.tlsHandshakeTimeout = .seconds(4)
        try await TestServer.runWithTLS(limits: limits) { server, certificate in
            let client = try await FrameClient.connect(server.port, tls: certificate.client())
            try await client.send(.request(1))
            #expect(try await client.response(1).status == 200)
            // Ends when the time has passed for both.
            let silent = try await FrameClient.connect(server.port, handshake: false)
            #expect(await silent.rest() == "")
            try await client.send(.request(3))
            #expect(try await client.response(3).status == 200)
        }
    }

    @Test func `stops without waiting for a handshake`() async throws {
        try await TestServer.runWithTLS { server, certificate in
            let silent = try await FrameClient.connect(server.port, handshake: false)
            // Accepted after it.
            let client = try await FrameClient.connect(server.port, tls: certificate.client())
            try await client.send(.request(1))
            _ = try await client.response(1)
            await server.group.triggerGracefulShutdown()
            #expect(await silent.rest() == "")
        }
    }

    @Test func `serves h2load`() async throws {
        try await TestServer.runWithTLS { server, _ in
            let load = try await runTool(
                "h2load", ["-n2000", "-c8", "-m50", "-t1", "https://localhost:\(server.port)/"])
            #expect(load.output.contains("2000 succeeded, 0 failed, 0 errored"), "\(load.output)\(load.errors)")
        }
    }

    @Test func `echoes a body of 1 MiB`() async throws {
        let body = Data((0..<1 << 20).map { UInt8(truncatingIfNeeded: $0 &* 31 >> 5) })
        try await TestServer.runWithTLS { request in
            ServerResponse(status: .ok, body: ResponseBody(try await request.body.collect(upTo: 1 << 20)))
        } during: { server, certificate in
            try await withTemporaryDirectory { directory in
                let sent = directory.appending(path: "sent")
                let received = directory.appending(path: "received")
                try body.write(to: sent)
                let curl = try await server.curl(
                    certificate, "--data-binary", "@\(sent.path)", "--output", received.path)
                #expect(curl.status == 0, "\(curl.errors)")
                #expect(try Data(contentsOf: received) == body)
            }
        }
    }

    @Test func `finishes a large response though it stops`() async throws {
        let body = [UInt8](repeating: 7, count: 4 << 20)
        try await TestServer.runWithTLS { _ in
            ServerResponse(status: .ok, body: ResponseBody(body))
        } during: { server, certificate in
            let client = try await FrameClient.connect(server.port, tls: certificate.client())
            try await client.send(
                .windowUpdate(0, 1 << 30), .request(1), .windowUpdate(1, 1 << 30))
            _ = try await client.next { $0.kind == .headers }
            try await client.channel.setOption(.autoRead, value: false).get()
            await server.group.triggerGracefulShutdown()
            // As soon as it drains.
            await #expect(throws: (any Error).self) {
                while true { _ = try await FrameClient.connect(server.port, handshake: false) }
            }
            try await client.channel.setOption(.autoRead, value: true).get()
            var content: [UInt8] = []
            var lastStreams: [UInt32] = []
            var isWhole = false
            while let frame = try await client.next() {
                if frame.kind == .data { content += frame.payload }
                if frame.endsStream { isWhole = true }
                if frame.kind == .goAway { lastStreams.append(frame.number(at: 0)) }
                if frame.kind == .ping { try await client.send(frame.with(flags: Frame.acknowledgement)) }
            }
            #expect(isWhole)
            #expect(content == body)
            #expect(lastStreams == [0x7fff_ffff, 1])
        }
    }
}
