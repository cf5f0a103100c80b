import Foundation
import HTTPTypes
import NIOCore
import Testing

@testable import LimpetServer

@Suite(.timeLimit(.minutes(1))) struct `With clients of others, the server` {
    @Test func `echoes a body of 1 MiB to curl`() async throws {
        try await TestServer.run { request in
            ServerResponse(status: .ok, body: ResponseBody(try await request.body.collect(upTo: 1 << 20)))
        } during: { server in
            try await withTemporaryDirectory { directory in
                let sent = Data((0..<1 << 20).map { UInt8(truncatingIfNeeded: $0 &* 31 >> 5) })
                let file = directory.appending(path: "sent")
                let copy = directory.appending(path: "received")
                try sent.write(to: file)
                let curl = try await server.curl(
                    "--data-binary", "@\(file.path)", "--output", copy.path,
                    "--write-out", "%{http_code} %{http_version}", server.url("/echo"))
                #expect(curl.output == "200 2", "\(curl.errors)")
                #expect(try Data(contentsOf: copy) == sent)
            }
        }
    }

    @Test func `answers HEAD without content`() async throws {
        try await TestServer.run { _ in
            .text("hello")
        } during: { server in
            let curl = try await server.curl("--head", server.url("/"))
            #expect(curl.status == 0, "\(curl.errors)")
            let lines = curl.output.split(separator: "\r\n")
            #expect(lines.first == "HTTP/2 200 ")
            #expect(lines.contains("content-length: 5"))
            #expect(lines.contains { $0.hasPrefix("date: ") && $0.hasSuffix(" GMT") })
        }
    }

    @Test func `keeps several cookies of a response apart`() async throws {
        try await TestServer.run { _ in
            var response = ServerResponse(status: .ok)
            response.fields.append(HTTPField(name: .setCookie, value: "a=1"))
            response.fields.append(HTTPField(name: .setCookie, value: "b=2; Path=/"))
            return response
        } during: { server in
            let curl = try await server.curl("--include", server.url("/"))
            let cookies = curl.output.split(separator: "\r\n").filter { $0.hasPrefix("set-cookie") }
            #expect(cookies == ["set-cookie: a=1", "set-cookie: b=2; Path=/"], "\(curl.errors)")
        }
    }

    @Test func `serves h2load whether its handlers wait or not`() async throws {
        try await TestServer.run { request in
            if request.path == "/yield" { for _ in 0..<3 { await Task.yield() } }
            return .text("hello")
        } during: { server in
            for path in ["/", "/yield"] {
                let load = try await runTool("h2load", ["-n5000", "-c8", "-m50", "-t1", server.url(path)])
                #expect(load.output.contains("5000 succeeded, 0 failed, 0 errored"), "\(load.output)\(load.errors)")
            }
        }
    }

    @Test func `echoes bodies and trailers to Python's h2, through windows of 1000 bytes`() async throws {
        try await TestServer.run { request in
            ServerResponse(
                status: .ok,
                body: .written { writer in
                    for try await piece in request.body { try await writer.write(piece) }
                    writer.setTrailers(try await request.body.trailers ?? [:])
                })
        } during: { server in
            let script = URL(filePath: #filePath).deletingLastPathComponent().appending(path: "python-h2-client")
            let client = try await runTool("/usr/bin/python3", [script.path, "\(server.port)"])
            #expect(client.status == 0, "\(client.errors)")
            #expect(
                client.output.split(separator: "\n") == [
                    "1 200 0 True x-sent=0", "3 200 10 True x-sent=10", "5 200 512000 True x-sent=512000",
                    "7 200 256000 True x-sent=256000", "pushed False streams 100 list 16384 window 262144",
                ])
        }
    }

    @Test func `reads a body and trailers from nghttp that waits for 100 Continue`() async throws {
        try await TestServer.run { request in
            let body = try await request.body.collect(upTo: 1 << 20)
            let field = try #require(HTTPField.Name("x-sent"))
            var response = ServerResponse.text("\(body.count)")
            response.trailers = try await request.body.trailers ?? [:]
            response.trailers[field] = (response.trailers[field] ?? "none") + " and returned"
            return response
        } during: { server in
            try await withTemporaryDirectory { directory in
                let file = directory.appending(path: "sent")
                try Data(repeating: 7, count: 300_000).write(to: file)
                let client = try await runTool(
                    "nghttp",
                    [
                        "-v", "--expect-continue", "--no-push", "--data=\(file.path)", "--trailer=x-sent: all",
                        server.url("/"),
                    ])
                #expect(client.status == 0, "\(client.errors)")
                let statuses = client.output.matches(of: /recv \(stream_id=\d+[^)]*\) :status: (\d+)/).map(\.1)
                #expect(statuses == ["100", "200"])
                #expect(client.output.contains("x-sent: all and returned"))
                #expect(client.output.contains("\n300000"))
            }
        }
    }

    @Test func `takes 4 MiB from curl that expects 100 Continue, however slowly the handler reads`() async throws {
        var limits = ServerLimits()
        limits.maxRequestBodyBytes = 8 << 20
        try await TestServer.run(limits: limits) { request in
            var count = 0
            for try await piece in request.body {
                count += piece.readableBytes
                // Lets the client run into its windows.
                for _ in 0..<50 { await Task.yield() }
            }
            return .text("\(count)")
        } during: { server in
            try await withTemporaryDirectory { directory in
                let file = directory.appending(path: "sent")
                try Data(repeating: 7, count: 4 << 20).write(to: file)
                let curl = try await server.curl(
                    "--verbose", "--header", "expect: 100-continue", "--data-binary", "@\(file.path)", server.url("/"))
                #expect(curl.output == "\(4 << 20)", "\(curl.errors)")
                #expect(curl.errors.contains("< HTTP/2 100"))
            }
        }
    }

    @Test func `serves h2load over TLS`() async throws {
        try await withTemporaryDirectory { directory in
            let certificate = try await TestCertificate.make(in: directory)
            try await TestServer.run(configure: { server in
                server.certificateFile = certificate.certificateFile
                server.privateKeyFile = certificate.privateKeyFile
            }) { _ in
                .text("hello")
            } during: { server in
                let load = try await runTool(
                    "h2load", ["-n2000", "-c8", "-m20", "-t1", "https://localhost:\(server.port)/"])
                #expect(load.output.contains("2000 succeeded, 0 failed, 0 errored"), "\(load.output)\(load.errors)")
                #expect(load.output.contains("Application protocol: h2"))
            }
        }
    }

    @Test func `tells curl in HTTP/1 that it speaks HTTP/2`() async throws {
        try await TestServer.run { _ in
            .text("")
        } during: { server in
            let curl = try await runTool("curl", ["-sS", "--max-time", "20", "--include", server.url("/")])
            #expect(curl.status == 0, "\(curl.errors)")
            #expect(curl.output.hasPrefix("HTTP/1.1 505 "))
        }
    }
}
