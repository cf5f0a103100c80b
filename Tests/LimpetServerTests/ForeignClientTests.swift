import Foundation
import HTTPTypes
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
