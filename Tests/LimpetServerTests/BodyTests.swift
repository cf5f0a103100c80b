import Foundation
import HTTPTypes
import InMemoryLogging
import Limpet
import Logging
import NIOCore
import Testing

@testable import LimpetServer

private let window: [UInt8] = [0x3f, 0, 0, 0]

@Suite(.timeLimit(.minutes(1))) struct `The body of a request` {
    @Test func `is read while it comes`() async throws {
        let pieces = Locked<[String]>([])
        let read = [Signal(), Signal()]
        try await TestServer.run { request in
            for try await piece in request.body {
                let count = pieces.withLock { pieces in
                    pieces.append(String(buffer: piece))
                    return pieces.count
                }
                if count <= read.count { read[count - 1].send() }
            }
            return .text("\(pieces.withLock { $0 })")
        } during: { server in
            let client = try await FrameClient.connect(server.port)
            try await client.send(.request(1, "POST", endStream: false), .data(1, Array("one".utf8), endStream: false))
            await read[0].wait()
            try await client.send(.data(1, Array("two".utf8), endStream: false))
            await read[1].wait()
            try await client.send(.data(1, []))
            #expect(try await client.response(1).content == Array(#"["one", "two"]"#.utf8))
        }
    }

    @Test func `is held back by the window while the handler does not read`() async throws {
        let proceed = Signal()
        let total = 600_000
        try await TestServer.run { request in
            await proceed.wait()
            return .text("\(try await request.body.collect(upTo: total).count)")
        } during: { server in
            let client = try await FrameClient.connect(server.port)
            try await client.send(.request(1, "POST", endStream: false))
            let piece = [UInt8](repeating: 1, count: 16_384)
            for _ in 0..<16 { try await client.send(.data(1, piece, endStream: false)) }
            // All that the stream's window holds. The answer to a PING comes behind every WINDOW_UPDATE.
            try await client.send(Frame(kind: .ping, payload: [UInt8](repeating: 1, count: 8)))
            let next = try await client.next { $0.kind == .ping || $0.kind == .windowUpdate && $0.stream == 1 }
            #expect(next.kind == .ping)
            proceed.send()
            var sent = 16 * piece.count
            while sent < total {
                let update = try await client.next { $0.kind == .windowUpdate && $0.stream == 1 }
                var credit = min(Int(update.number(at: 0)), total - sent)
                while credit > 0 {
                    let count = min(credit, piece.count)
                    sent += count
                    credit -= count
                    try await client.send(.data(1, Array(piece.prefix(count)), endStream: sent == total))
                }
            }
            #expect(try await client.response(1).content == Array("\(total)".utf8))
        }
    }

    @Test func `does not hold up other streams when it is not read`() async throws {
        let proceed = Signal()
        try await TestServer.run { request in
            if request.path == "/wait" { await proceed.wait() }
            return .text("\(try await request.body.collect(upTo: 1 << 20).count)")
        } during: { server in
            let client = try await FrameClient.connect(server.port)
            let piece = [UInt8](repeating: 1, count: 16_384)
            // More than the connection's window of 1 MiB in all.
            var credit = 65_535
            for stream in stride(from: UInt32(1), to: 13, by: 2) {
                try await client.send(.request(stream, "POST", "/wait", endStream: false))
                for _ in 0..<15 {
                    while credit < piece.count {
                        credit += Int(
                            try await client.next { $0.kind == .windowUpdate && $0.stream == 0 }.number(at: 0))
                    }
                    try await client.send(.data(stream, piece, endStream: false))
                    credit -= piece.count
                }
            }
            try await client.send(.request(13, "POST", "/read", endStream: false), .data(13, piece))
            #expect(try await client.response(13).content == Array("16384".utf8))
            proceed.send()
            try await client.send(.data(1, []))
            #expect(try await client.response(1).content == Array("\(15 * 16_384)".utf8))
        }
    }

    @Test func `has trailers`() async throws {
        try await TestServer.run { request in
            let body = try await request.body.collect(upTo: 10)
            return .text("\(body) \(try await request.body.trailers?[values: .eTag] ?? [])")
        } during: { server in
            let client = try await FrameClient.connect(server.port)
            try await client.send(
                .request(1, "POST", endStream: false), .data(1, [7], endStream: false), .headers(1, [("etag", "x")]))
            #expect(try await client.response(1).content == Array(#"[7] ["x"]"#.utf8))
        }
    }

    @Test func `is asked for with 100 when the handler reads and the client expects it`() async throws {
        try await TestServer.run { request in
            if request.path == "/refuse" { return ServerResponse(status: .forbidden) }
            return .text("\(try await request.body.collect(upTo: 10))")
        } during: { server in
            let client = try await FrameClient.connect(server.port)
            let expect = [("expect", "100-Continue")]
            try await client.send(.request(1, "POST", fields: expect, endStream: false))
            let interim = try await client.next { $0.kind == .headers }
            #expect(interim.status == 100)
            #expect(!interim.endsStream)
            try await client.send(.data(1, [5]))
            #expect(try await client.response(1).content == Array("[5]".utf8))

            // The body is there already.
            try await client.send(.request(3, "POST", fields: expect, endStream: false), .data(3, [6]))
            #expect(try await client.response(3).content == Array("[6]".utf8))

            // The handler does not want it.
            try await client.send(.request(5, "POST", "/refuse", fields: expect, endStream: false))
            #expect(try await client.response(5).status == 403)
            #expect(try await client.next { $0.kind == .resetStream }.number(at: 0) == 0)

            try await client.send(.request(7, "POST", fields: [("expect", "magic")], endStream: false))
            #expect(try await client.response(7).status == 417)
        }
    }

    @Test func `fails for the handler when the client resets the stream`() async throws {
        let failure = Locked<(any Error)?>(nil)
        let failed = Signal()
        let started = Signal()
        try await TestServer.run { request in
            started.send()
            do {
                _ = try await request.body.collect(upTo: 10)
            } catch {
                failure.withLock { $0 = error }
                failed.send()
            }
            return .text("")
        } during: { server in
            let client = try await FrameClient.connect(server.port)
            try await client.send(.request(1, "POST", endStream: false))
            await started.wait()
            try await client.send(.reset(1))
            await failed.wait()
            #expect(failure.withLock { $0 is CancellationError })
        }
    }

    @Test func `is read by a task elsewhere`() async throws {
        try await TestServer.run { request in
            let body = request.body
            let count = try await Task.detached { () -> Int in
                var count = 0
                for try await piece in body { count += piece.readableBytes }
                return count
            }.value
            return .text("\(count)")
        } during: { server in
            let client = try await FrameClient.connect(server.port)
            try await client.send(.request(1, "POST", endStream: false))
            for _ in 0..<10 { try await client.send(.data(1, [1, 2, 3], endStream: false)) }
            try await client.send(.data(1, []))
            #expect(try await client.response(1).content == Array("30".utf8))
        }
    }

    @Test func `stops the reader whose task is cancelled`() async throws {
        try await TestServer.run { request in
            let body = request.body
            let reader = Task { try await body.collect(upTo: 10) }
            reader.cancel()
            do {
                return .text("\(try await reader.value)")
            } catch is CancellationError {
                return .text("cancelled")
            }
        } during: { server in
            let client = try await FrameClient.connect(server.port)
            try await client.send(.request(1, "POST", endStream: false))
            #expect(try await client.response(1).content == Array("cancelled".utf8))
        }
    }
}

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
