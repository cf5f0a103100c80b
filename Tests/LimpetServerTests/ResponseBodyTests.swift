import Foundation
import HTTPTypes
import InMemoryLogging
import Limpet
import Logging
import NIOCore
import ServiceLifecycle
import Testing

@testable import LimpetServer

private let window: [UInt8] = [0x3f, 0, 0, 0]

@Suite(.timeLimit(.minutes(1))) struct `The body of a response` {
    @Test func `is written while the client reads`() async throws {
        let proceed = Signal()
        try await TestServer.run { _ in
            ServerResponse(
                status: .ok,
                body: .written { writer in
                    try await writer.write("one")
                    await proceed.wait()
                    try await writer.write([UInt8("2".utf8.first ?? 0)])
                })
        } during: { server in
            let client = try await FrameClient.connect(server.port)
            try await client.send(.request(1))
            let head = try await client.next { $0.kind == .headers }
            #expect(head.status == 200)
            let first = try await client.next { $0.kind == .data }
            #expect(first.payload == Array("one".utf8))
            #expect(!first.endsStream)
            proceed.send()
            var rest: [UInt8] = []
            var last = first
            while !last.endsStream {
                last = try await client.next { $0.kind == .data }
                rest += last.payload
            }
            #expect(rest == Array("2".utf8))
        }
    }

    @Test func `makes its writer wait for a client that does not read`() async throws {
        let written = Locked(0)
        let piece = ByteBuffer(repeating: 7, count: 10_000)
        try await TestServer.run { _ in
            ServerResponse(
                status: .ok,
                body: .written { writer in
                    for _ in 0..<100 {
                        try await writer.write(piece)
                        written.withLock { $0 += piece.readableBytes }
                    }
                })
        } during: { server in
            let client = try await FrameClient.connect(server.port)
            try await client.send(.request(1))
            var content = 0
            while content < 65_535 { content += try await client.next { $0.kind == .data }.payload.count }
            try await client.send(Frame(kind: .ping, payload: [UInt8](repeating: 1, count: 8)))
            _ = try await client.next { $0.kind == .ping }
            // The window of 65,535 bytes, and what the server keeps.
            #expect(written.withLock { $0 } < 65_535 + OutgoingBody.highWater + piece.readableBytes)
            try await client.send(
                Frame(kind: .windowUpdate, payload: window), Frame(kind: .windowUpdate, stream: 1, payload: window))
            var isOver = false
            while !isOver {
                let frame = try await client.next { $0.kind == .data }
                content += frame.payload.count
                isOver = frame.endsStream
            }
            #expect(content == 1_000_000)
        }
    }

    @Test func `has trailers`() async throws {
        try await TestServer.run { request in
            if request.path == "/bytes" {
                var response = ServerResponse.text("hello")
                response.trailers = [.eTag: "x", .connection: "close"]
                return response
            }
            return ServerResponse(
                status: .ok,
                body: .written { writer in
                    if request.path == "/written" { try await writer.write("hello") }
                    writer.setTrailers([.eTag: "x"])
                })
        } during: { server in
            for path in ["/bytes", "/written"] {
                let nghttp = try await runTool("nghttp", ["--verbose", server.url(path)])
                let output = nghttp.output
                let body = try #require(output.range(of: "hello"), "\(output)\(nghttp.errors)")
                let rest = output[body.upperBound...]
                #expect(rest.contains("(stream_id=13) etag: x"), "\(output)")
                #expect(!output.contains("connection: close"))
                #expect(output.contains("content-length: 5") == (path == "/bytes"))
            }
            let client = try await FrameClient.connect(server.port)
            try await client.send(.request(1, "GET", "/empty"))
            let frames = [try await client.next { $0.stream == 1 }, try await client.next { $0.endsStream }]
            #expect(frames.map(\.kind) == [.headers, .headers])
        }
    }

    @Test func `is not written for HEAD`() async throws {
        try await TestServer.run { _ in
            ServerResponse(status: .ok, body: .written(length: 5) { _ in Issue.record("written for HEAD") })
        } during: { server in
            let curl = try await server.curl("--head", server.url("/"))
            #expect(curl.output.contains("content-length: 5\r\n"), "\(curl.errors)")
        }
    }

    @Test(arguments: ["/throws", "/short", "/long"])
    func `ends in a reset if it cannot be completed`(path: String) async throws {
        struct Broken: Error {}
        try await TestServer.run { request in
            guard request.path != "/fine" else { return .text("fine") }
            return ServerResponse(
                status: .ok,
                body: .written(length: request.path == "/throws" ? nil : 5) { writer in
                    try await writer.write(request.path == "/long" ? "123456" : "1234")
                    if request.path == "/throws" { throw Broken() }
                })
        } during: { server in
            let client = try await FrameClient.connect(server.port)
            try await client.send(.request(1, "GET", path))
            let end = try await client.next { $0.kind == .resetStream || $0.endsStream }
            #expect(end.kind == .resetStream)
            #expect(end.number(at: 0) == 2)  // INTERNAL_ERROR
            let type = path == "/throws" ? "Broken" : "ServerError"
            #expect(server.log.entries.filter { $0.level == .error }.map(\.metadata["error.type"]) == ["\(type)"])
            try await client.send(.request(3, "GET", "/fine"))
            #expect(try await client.response(3).content == Array("fine".utf8))
        }
    }

    @Test func `cancels its writer when the client resets the stream`() async throws {
        let ended = Signal()
        try await TestServer.run { _ in
            ServerResponse(
                status: .ok,
                body: .written { writer in
                    defer { ended.send() }
                    while true { try await writer.write([UInt8](repeating: 1, count: 1000)) }
                })
        } during: { server in
            let client = try await FrameClient.connect(server.port)
            try await client.send(.request(1))
            _ = try await client.next { $0.kind == .data }
            try await client.send(.reset(1))
            await ended.wait()
            #expect(server.log.entries.allSatisfy { $0.level < .warning })
        }
    }

    @Test func `is written by several tasks, though the client does not read`() async throws {
        let piece = ByteBuffer(repeating: 7, count: 50_000)
        try await TestServer.run { _ in
            ServerResponse(
                status: .ok,
                body: .written { writer in
                    try await withThrowingTaskGroup(of: Void.self) { group in
                        for _ in 0..<8 { group.addTask { try await writer.write(piece) } }
                        try await group.waitForAll()
                    }
                })
        } during: { server in
            let client = try await FrameClient.connect(server.port)
            try await client.send(.request(1))
            _ = try await client.next { $0.kind == .data }
            try await client.send(
                Frame(kind: .windowUpdate, payload: window), Frame(kind: .windowUpdate, stream: 1, payload: window))
            var count = 16_384
            var last: Frame
            repeat {
                last = try await client.next { $0.kind == .data }
                count += last.payload.count
            } while !last.endsStream
            #expect(count == 400_000)
        }
    }

    @Test func `reaches a slow reader whole though the server stops`() async throws {
        let body = [UInt8](repeating: 7, count: 4 << 20)
        try await TestServer.run { _ in
            ServerResponse(status: .ok, body: ResponseBody(body))
        } during: { server in
            let client = try await FrameClient.connect(server.port)
            try await client.send(
                Frame(kind: .windowUpdate, payload: window), .request(1),
                Frame(kind: .windowUpdate, stream: 1, payload: window))
            _ = try await client.next { $0.kind == .headers }
            try await client.channel.setOption(.autoRead, value: false).get()
            await server.group.triggerGracefulShutdown()
            try await client.channel.setOption(.autoRead, value: true).get()
            var count = 0
            while let frame = try await client.next() {
                if frame.kind == .data { count += frame.payload.count }
                if frame.kind == .ping {
                    try await client.send(Frame(kind: .ping, flags: Frame.acknowledgement, payload: frame.payload))
                }
            }
            #expect(count == body.count)
        }
    }

    @Test func `is reset if its head is too large to be sent`() async throws {
        try await TestServer.run { request in
            var response = ServerResponse.text("hello")
            if request.path == "/large" { response.fields[.eTag] = String(repeating: "x", count: 70_000) }
            return response
        } during: { server in
            let client = try await FrameClient.connect(server.port)
            try await client.send(.request(1, "GET", "/large"))
            #expect(try await client.next { $0.kind == .resetStream }.number(at: 0) == 2)
            #expect(server.log.entries.contains { $0.level == .error })
            try await client.send(.request(3))
            #expect(try await client.response(3).status == 200)
        }
    }

    @Test func `echoes while it is received`() async throws {
        try await TestServer.run { request in
            ServerResponse(
                status: .ok,
                body: .written { writer in
                    for try await piece in request.body { try await writer.write(piece) }
                })
        } during: { server in
            let client = try await FrameClient.connect(server.port)
            try await client.send(.request(1, "POST", endStream: false))
            for text in ["one", "two", "three"] {
                try await client.send(.data(1, Array(text.utf8), endStream: false))
                #expect(try await client.next { $0.kind == .data }.payload == Array(text.utf8))
            }
            try await client.send(.data(1, []))
            #expect(try await client.next { $0.kind == .data }.endsStream)
        }
    }

    @Test func `is a file`() async throws {
        try await withTemporaryDirectory { directory in
            let sent = Data((0..<300_000).map { UInt8(truncatingIfNeeded: $0 &* 31 >> 5) })
            let file = directory.appending(path: "file")
            let copy = directory.appending(path: "copy")
            try sent.write(to: file)
            try Data().write(to: directory.appending(path: "empty"))
            try await TestServer.run { request in
                ServerResponse(status: .ok, body: .file(directory.path + request.path))
            } during: { server in
                let curl = try await server.curl(
                    "--output", copy.path, "--write-out", "%{http_code} %header{content-length}", server.url("/file"))
                #expect(curl.output == "200 300000", "\(curl.errors)")
                #expect(try Data(contentsOf: copy) == sent)
                let head = try await server.curl("--head", server.url("/file"))
                #expect(head.output.contains("content-length: 300000\r\n"))
                let empty = try await server.curl("--include", server.url("/empty"))
                #expect(empty.output.contains("content-length: 0\r\n"))
                for path in ["/missing", "/", "/file/below"] {
                    let missing = try await server.curl("--write-out", " %{http_code}", server.url(path))
                    #expect(missing.output == "Not found.\n 404", "\(path)")
                }
                #expect(server.log.entries.allSatisfy { $0.level < .warning })
            }
        }
    }
}
