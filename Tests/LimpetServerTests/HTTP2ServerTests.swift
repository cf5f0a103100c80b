import Limpet
import Foundation
import HTTPTypes
import InMemoryLogging
import Logging
import NIOCore
import Testing

@testable import LimpetServer

@Suite(.timeLimit(.minutes(1))) struct `The server` {
    @Test func `answers a request`() async throws {
        try await TestServer.run { _ in
            .text("hello")
        } during: { server in
            let client = try await FrameClient.connect(server.port)
            try await client.send(.request(1))
            let response = try await client.response(1)
            #expect(response.status == 200)
            #expect(response.content == Array("hello".utf8))
        }
    }

    @Test func `announces its limits`() async throws {
        try await TestServer.run { _ in
            .text("")
        } during: { server in
            let client = try await FrameClient.connect(server.port)
            let settings = try await client.next { $0.kind == .settings && $0.flags == 0 }
            var values: [UInt16: UInt32] = [:]
            for offset in stride(from: 0, to: settings.payload.count, by: 6) {
                let id = UInt16(settings.payload[offset]) << 8 | UInt16(settings.payload[offset + 1])
                values[id] = settings.number(at: offset + 2)
            }
            // RFC 9113, section 6.5.2, and RFC 9218, section 2.1.
            #expect(values == [3: 100, 4: 262_144, 6: 16_384, 9: 1])
        }
    }

    @Test func `gives the handler what the client sent`() async throws {
        let seen = Locked<ServerRequest?>(nil)
        try await TestServer.run { request in
            seen.withLock { $0 = request }
            let content = try await request.body.collect(upTo: 3)
            #expect(content == [1, 2, 3])
            return ServerResponse(status: .noContent)
        } during: { server in
            let client = try await FrameClient.connect(server.port)
            try await client.send(
                .request(
                    1, "PUT", "/attributes/name?x=1",
                    fields: [("cookie", "a=1"), ("x-long", String(repeating: "v", count: 300)), ("cookie", "b=2")],
                    endStream: false),
                .data(1, [1, 2], endStream: false), .data(1, [3]))
            #expect(try await client.response(1).status == 204)
        }
        let request = try #require(seen.withLock { $0 })
        #expect(request.method == .put)
        #expect(request.head.scheme == "http")
        #expect(request.head.authority == "test")
        #expect(request.path == "/attributes/name")
        #expect(request.query("x") == "1")
        #expect(request.fields[values: .cookie] == ["a=1", "b=2"])
        #expect(request.fields[.cookie] == "a=1; b=2")
        #expect(request.fields[try #require(HTTPField.Name("X-Long"))]?.count == 300)
    }

    @Test func `answers concurrent streams in the order in which their handlers finish`() async throws {
        let signals = [Signal(), Signal(), Signal()]
        try await TestServer.run { request in
            let number = Int(request.query("n") ?? "") ?? 0
            await signals[number].wait()
            return .text("\(number)")
        } during: { server in
            let client = try await FrameClient.connect(server.port)
            try await client.send(.request(1, "GET", "/?n=0"), .request(3, "GET", "/?n=1"), .request(5, "GET", "/?n=2"))
            for number in [2, 0, 1] {
                signals[number].send()
                let response = try await client.response(UInt32(2 * number + 1))
                #expect(response.content == Array("\(number)".utf8))
            }
        }
    }

    @Test func `runs a handler on the event loop before and after it has waited`() async throws {
        let threads = Locked<[ObjectIdentifier]>([])
        let note: @Sendable () -> Void = { threads.withLock { $0.append(ObjectIdentifier(Thread.current)) } }
        let signal = Signal()
        try await TestServer.run { _ in
            note()
            await signal.wait()
            note()
            return .text("")
        } during: { server in
            let client = try await FrameClient.connect(server.port)
            try await client.send(.request(1))
            try await client.send(Frame(kind: .ping, payload: [UInt8](repeating: 0, count: 8)))
            _ = try await client.next { $0.kind == .ping }
            signal.send()
            #expect(try await client.response(1).status == 200)
        }
        let seen = threads.withLock { $0 }
        #expect(seen.count == 2 && Set(seen).count == 1)
    }

    @Test func `cancels the handler of a stream that the client resets`() async throws {
        let started = Signal()
        let cancelled = Signal()
        try await TestServer.run { request in
            guard request.path == "/wait" else { return .text("next") }
            started.send()
            await Signal().wait()
            #expect(Task.isCancelled)
            cancelled.send()
            return .text("late")
        } during: { server in
            let client = try await FrameClient.connect(server.port)
            try await client.send(.request(1, "GET", "/wait"))
            await started.wait()
            try await client.send(.reset(1))
            await cancelled.wait()
            try await client.send(.request(3))
            let head = try await client.next { $0.kind == .headers }
            #expect(head.stream == 3)
        }
    }

    @Test func `cancels the handlers of a connection that ends`() async throws {
        let started = Signal()
        let cancelled = Signal()
        try await TestServer.run { _ in
            started.send()
            await Signal().wait()
            cancelled.send()
            return .text("late")
        } during: { server in
            let client = try await FrameClient.connect(server.port)
            try await client.send(.request(1))
            await started.wait()
            try await client.close()
            await cancelled.wait()
        }
    }

    @Test func `refuses streams while too many handlers are left running`() async throws {
        var limits = ServerLimits()
        limits.maxLiveHandlers = 2
        let stubborn = Signal()
        try await TestServer.run(limits: limits) { _ in
            // A task of its own does not know that the handler is cancelled.
            await Task { await stubborn.wait() }.value
            return .text("")
        } during: { server in
            let client = try await FrameClient.connect(server.port)
            try await client.send(.request(1), .reset(1), .request(3), .reset(3), .request(5))
            let reset = try await client.next { $0.kind == .resetStream }
            #expect(reset.stream == 5)
            #expect(reset.number(at: 0) == 7)  // REFUSED_STREAM
            stubborn.send()
        }
    }

    @Test func `answers 413 and stops a body that is too large`() async throws {
        try await TestServer.run { request in
            if request.method == .get { return .text("fine") }
            _ = try await request.body.collect(upTo: .max)
            return .text("unreachable")
        } during: { server in
            let client = try await FrameClient.connect(server.port)
            try await client.send(.request(1, "POST", endStream: false))
            let piece = [UInt8](repeating: 0, count: 16_384)
            for _ in 0..<16 { try await client.send(.data(1, piece, endStream: false)) }
            var sent = 16
            while sent <= 64 {
                // The server gives back what it has taken: 256 KiB are in flight at most.
                let update = try await client.next { $0.kind == .windowUpdate && $0.stream == 1 }
                for _ in 0..<update.number(at: 0) / 16_384 {
                    try await client.send(.data(1, piece, endStream: false))
                    sent += 1
                }
            }
            let response = try await client.response(1)
            #expect(response.status == 413)
            let reset = try await client.next { $0.kind == .resetStream }
            #expect(reset.stream == 1)
            #expect(reset.number(at: 0) == 0)  // NO_ERROR
            try await client.send(.request(3))
            #expect(try await client.response(3).status == 200)
        }
    }

    @Test func `answers 413 before the body if its length is told`() async throws {
        try await TestServer.run { _ in
            .text("unreachable")
        } during: { server in
            let client = try await FrameClient.connect(server.port)
            try await client.send(.request(1, "POST", fields: [("content-length", "1048577")], endStream: false))
            #expect(try await client.response(1).status == 413)
            #expect(try await client.next { $0.kind == .resetStream }.number(at: 0) == 0)
        }
    }

    @Test func `answers 413 if the handler accepts less than came`() async throws {
        try await TestServer.run { request in
            _ = try await request.body.collect(upTo: 2)
            return .text("unreachable")
        } during: { server in
            let client = try await FrameClient.connect(server.port)
            try await client.send(.request(1, "POST", endStream: false), .data(1, [1, 2, 3]))
            #expect(try await client.response(1).status == 413)
            #expect(server.log.entries.allSatisfy { $0.level < .error })
        }
    }

    @Test(arguments: [
        (0..<10).map { ("x-\($0)", String(repeating: "a", count: 1600)) },
        (0..<101).map { ("x-\($0)", "") },
    ])
    func `answers 431 if the header list is too large`(fields: [(String, String)]) async throws {
        try await TestServer.run { _ in
            .text("fine")
        } during: { server in
            let client = try await FrameClient.connect(server.port)
            let request = Frame.request(1, fields: fields)
            try await client.send(request)
            #expect(try await client.response(1).status == 431)
            try await client.send(.request(3))
            #expect(try await client.response(3).status == 200)
        }
    }

    @Test func `answers 500 and logs if a handler throws`() async throws {
        struct Broken: Error {}
        try await TestServer.run { _ in
            throw Broken()
        } during: { server in
            let client = try await FrameClient.connect(server.port)
            try await client.send(.request(1, fields: [("cookie", "session=secret")]))
            #expect(try await client.response(1).status == 500)
            let errors = server.log.entries.filter { $0.level >= .error }
            #expect(errors.map(\.metadata["error.type"]) == ["Broken"])
            #expect(!"\(server.log.entries)".contains("secret"))
        }
    }

    @Test func `answers 500 if a handler answers with an interim status`() async throws {
        try await TestServer.run { _ in
            ServerResponse(status: .earlyHints)
        } during: { server in
            let client = try await FrameClient.connect(server.port)
            try await client.send(.request(1))
            #expect(try await client.response(1).status == 500)
        }
    }

    @Test func `sends no more than the client's windows allow, and the rest when they open`() async throws {
        let body = (0..<200_000).map { UInt8(truncatingIfNeeded: $0 / 7) }
        try await TestServer.run { _ in
            ServerResponse(status: .ok, body: ResponseBody(body))
        } during: { server in
            let client = try await FrameClient.connect(server.port)
            try await client.send(.request(1), Frame(kind: .ping, payload: [UInt8](repeating: 1, count: 8)))
            _ = try await client.next { $0.kind == .headers }
            var content: [UInt8] = []
            while content.count < 65_535 { content += try await client.next { $0.kind == .data }.payload }
            #expect(content.count == 65_535)
            let increment: [UInt8] = [0, 4, 0, 0]
            try await client.send(
                Frame(kind: .windowUpdate, payload: increment),
                Frame(kind: .windowUpdate, stream: 1, payload: increment))
            var last: Frame
            repeat {
                last = try await client.next { $0.kind == .data }
                content += last.payload
            } while !last.endsStream
            #expect(content == body)
        }
    }

    @Test func `keeps what a client does not read until it does`() async throws {
        let body = [UInt8](repeating: 7, count: 1 << 20)
        try await TestServer.run { request in
            request.path == "/small" ? .text("small") : ServerResponse(status: .ok, body: ResponseBody(body))
        } during: { server in
            let slow = try await FrameClient.connect(server.port)
            try await slow.channel.setOption(.autoRead, value: false).get()
            let increment: [UInt8] = [0x3f, 0, 0, 0]
            try await slow.send(Frame(kind: .windowUpdate, payload: increment))
            for stream in stride(from: UInt32(1), to: 17, by: 2) {
                try await slow.send(.request(stream), Frame(kind: .windowUpdate, stream: stream, payload: increment))
            }
            let other = try await FrameClient.connect(server.port)
            try await other.send(.request(1, "GET", "/small"))
            #expect(try await other.response(1).status == 200)

            try await slow.channel.setOption(.autoRead, value: true).get()
            let contents = try await slow.contents(of: 8)
            #expect(contents.count == 8)
            #expect(contents.values.allSatisfy { $0 == body })
        }
    }

    @Test func `ends the connection of a client that breaks the protocol`() async throws {
        try await TestServer.run { _ in
            .text("")
        } during: { server in
            let client = try await FrameClient.connect(server.port)
            try await client.send(.data(1, [1]))
            let goAway = try await client.next { $0.kind == .goAway }
            #expect(goAway.number(at: 4) == 1)  // PROTOCOL_ERROR
            #expect(try await client.next() == nil)
        }
    }

    @Test func `tells an HTTP/1 client what it speaks`() async throws {
        try await TestServer.run { _ in
            .text("")
        } during: { server in
            let client = try await FrameClient.connect(server.port, handshake: false)
            try await client.send(bytes: Array("GET / HTTP/1.1\r\nhost: test\r\n\r\n".utf8))
            let answer = await client.rest()
            #expect(answer.hasPrefix("HTTP/1.1 505 HTTP Version Not Supported\r\n"))
            #expect(answer.contains("\r\nconnection: close\r\n"))
            #expect(answer.hasSuffix("--http2-prior-knowledge.\n"))
        }
    }
}
