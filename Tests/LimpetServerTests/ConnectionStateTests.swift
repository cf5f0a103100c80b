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

    @Test func `waits for the preface when it drains before it, and drains then`() {
        var state = ConnectionState()
        #expect(state.drain() == .awaitPreface)
        #expect(state.drain() == .nothing)
        let isServing = {
            if case .feed = state.received(ByteBuffer(bytes: Frame.preface)) { true } else { false }
        }()
        #expect(isServing)
        let isDue = state.isDrainDue
        #expect(isDue)
        #expect(state.drain() == .sendNotice)
        let isLate = state.prefaceIsLate()
        #expect(!isLate)
    }

    @Test func `ends when the preface does not come while it drains`() {
        var state = ConnectionState()
        let isEarly = state.prefaceIsLate()
        #expect(!isEarly)
        #expect(state.drain() == .awaitPreface)
        let isLate = state.prefaceIsLate()
        #expect(isLate)
        let isOpen = state.isOpen
        #expect(!isOpen)
    }

}
