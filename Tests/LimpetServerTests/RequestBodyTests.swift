import Foundation
import HTTPTypes
import InMemoryLogging
import Limpet
import Logging
import NIOCore
import ServiceLifecycle
import Testing

@testable import LimpetServer

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

    @Test func `is not taken for whole when the client resets the stream before it was read`() async throws {
        let started = Signal()
        let proceed = Signal()
        let seen = Locked<Result<[UInt8], any Error>?>(nil)
        let ended = Signal()
        try await TestServer.run { request in
            started.send()
            // Not cancelled with the handler.
            await Task { await proceed.wait() }.value
            do {
                let bytes = try await request.body.collect(upTo: 100)
                seen.withLock { $0 = .success(bytes) }
            } catch {
                seen.withLock { $0 = .failure(error) }
            }
            ended.send()
            return .text("")
        } during: { server in
            let client = try await FrameClient.connect(server.port)
            try await client.send(.request(1, "POST", endStream: false), .data(1, [1, 2, 3]))
            await started.wait()
            try await client.send(.reset(1), Frame(kind: .ping, payload: [UInt8](repeating: 1, count: 8)))
            _ = try await client.next { $0.kind == .ping }
            proceed.send()
            await ended.wait()
            #expect(throws: CancellationError.self) { try seen.withLock { try $0?.get() } }
        }
    }

    @Test func `keeps no more memory than it has bytes, however it is cut`() throws {
        let body = IncomingBody(stream: 1, limit: 1 << 20, awaitsContinue: false, connection: nil)
        let read = ByteBuffer(repeating: 7, count: 65_536)
        for index in 0..<10_000 {
            #expect(body.append(read.getSlice(at: index, length: 1) ?? ByteBuffer()))
        }
        var chunks: [ByteBuffer] = []
        while case .bytes(let chunk) = try body.next() { chunks.append(chunk) }
        #expect(chunks.reduce(0) { $0 + $1.readableBytes } == 10_000)
        #expect(chunks.reduce(0) { $0 + $1.storageCapacity } < 65_536)
    }

    @Test func `is shared by tasks that read it at the same time`() async throws {
        try await TestServer.run { request in
            let body = request.body
            async let first = body.collect(upTo: 10)
            async let second = body.collect(upTo: 10)
            return .text("\(try await first.count + second.count)")
        } during: { server in
            let client = try await FrameClient.connect(server.port)
            try await client.send(.request(1, "POST", endStream: false))
            for _ in 0..<6 { try await client.send(.data(1, [1], endStream: false)) }
            try await client.send(.data(1, []))
            #expect(try await client.response(1).content == Array("6".utf8))
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
