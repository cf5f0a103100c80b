import HTTPTypes
import NIOCore
import Testing

@testable import LimpetServer

@Suite struct `The state of a connection` {
    private static let preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

    @Test func `waits for the whole preface and then passes everything on`() {
        var state = ConnectionState()
        for byte in Self.preface.utf8.dropLast() {
            guard case .wait = state.received(ByteBuffer(bytes: [byte])) else {
                Issue.record("not waiting at \(byte)")
                return
            }
            #expect(state.isServing == false)
        }
        guard case .feed(let bytes) = state.received(ByteBuffer(string: "\nmore")) else {
            Issue.record("the preface is complete")
            return
        }
        #expect(String(buffer: bytes) == Self.preface + "more")
        #expect(state.isServing == true)
    }

    @Test(arguments: ["GET / HTTP/1.1\r\n", "PRI * HTTP/1.1", "POST "])
    func `answers an HTTP/1 client once`(request: String) {
        var state = ConnectionState()
        guard case .refuse(let answer?) = state.received(ByteBuffer(string: request)) else {
            Issue.record("an answer is due")
            return
        }
        #expect(String(buffer: answer).hasPrefix("HTTP/1.1 505 "))
        guard case .ignore = state.received(ByteBuffer(string: "host: a\r\n\r\n")) else {
            Issue.record("answered already")
            return
        }
    }

    @Test func `closes without an answer for what is not HTTP`() {
        var state = ConnectionState()
        guard case .refuse(nil) = state.received(ByteBuffer(bytes: [0x16, 0x03, 0x01])) else {
            Issue.record("a TLS handshake is not answered")
            return
        }
    }

    @Test func `drains in two steps`() {
        var state = ConnectionState()
        _ = state.received(ByteBuffer(string: Self.preface))
        #expect(state.pingAnswered() == false)
        #expect(state.drain() == .sendNotice)
        #expect(state.drain() == .nothing)
        #expect(state.isServing == true)
        #expect(state.pingAnswered() == true)
        #expect(state.pingAnswered() == false)
        #expect(state.isServing == true)
        let wasOpen = state.close()
        let isOpen = state.close()
        #expect(wasOpen && !isOpen)
        #expect(state.isServing == false)
    }

    @Test func `ends at once when it drains before the preface`() {
        var state = ConnectionState()
        #expect(state.drain() == .close)
        guard case .ignore = state.received(ByteBuffer(string: Self.preface)) else {
            Issue.record("closed")
            return
        }
    }
}

@Suite struct `The streams of a connection` {
    private let head = HTTPRequest(method: .post, scheme: "http", authority: "test", path: "/")

    @Test func `collect a body in pieces`() async throws {
        var streams = StreamTable(limits: ServerLimits())
        #expect(streams.open(1, head) == .kept)
        #expect(streams.received(ByteBuffer(string: "he"), on: 1) == .kept)
        #expect(streams.received(ByteBuffer(string: "llo"), on: 1) == .kept)
        #expect(streams.received(ByteBuffer(string: "x"), on: 3) == .unwanted)
        let complete = streams.complete(1)
        let request = try #require(complete)
        #expect(try await request.body.collect(upTo: 5) == Array("hello".utf8))
        let again = streams.complete(1) == nil
        #expect(again)
    }

    @Test func `forget a stream whose body is too large`() {
        var limits = ServerLimits()
        limits.maxRequestBodyBytes = 4
        var streams = StreamTable(limits: limits)
        #expect(streams.open(1, head) == .kept)
        #expect(streams.received(ByteBuffer(string: "1234"), on: 1) == .kept)
        #expect(streams.received(ByteBuffer(string: "5"), on: 1) == .tooLarge)
        #expect(streams.received(ByteBuffer(string: "6"), on: 1) == .unwanted)
        let isForgotten = streams.complete(1) == nil
        #expect(isForgotten)
    }

    @Test func `count handlers until they return, also those of closed streams`() {
        var limits = ServerLimits()
        limits.maxLiveHandlers = 2
        var streams = StreamTable(limits: limits)
        let task = Task {}
        for id in [StreamID(1), 3] {
            #expect(streams.start(id) == true)
            streams.started(task)
        }
        let cancelled = streams.closed(1)
        #expect(cancelled == task)
        #expect(streams.start(5) == false)
        let isAwaited = streams.finished(1)
        #expect(!isAwaited)
        #expect(streams.start(5) == true)
        let isStartingAwaited = streams.finished(5)
        #expect(isStartingAwaited)
        let isSuspendedAwaited = streams.finished(3)
        #expect(isSuspendedAwaited)
        let live = streams.liveHandlers
        #expect(live == 0)
    }

    @Test func `hand out the tasks to cancel when the connection ends`() {
        var streams = StreamTable(limits: ServerLimits())
        let task = Task {}
        #expect(streams.start(1) == true)
        streams.started(task)
        #expect(streams.open(3, head) == .kept)
        let tasks = streams.closeAll()
        #expect(tasks == [task])
        let isAwaited = streams.finished(1)
        #expect(!isAwaited)
    }
}
