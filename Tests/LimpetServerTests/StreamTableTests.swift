import HTTPTypes
import NIOCore
import Testing

@testable import LimpetServer

@Suite struct `The streams of a connection` {
    private let head = HTTPRequest(method: .post, scheme: "http", authority: "test", path: "/")

    private func body(_ id: StreamID) -> IncomingBody {
        IncomingBody(stream: id, limit: 5, awaitsContinue: false, connection: nil)
    }

    @Test func `start a request when it is complete or the burst is over, whichever is first`() {
        var streams = StreamTable(limits: ServerLimits())
        streams.open(1, head, body(1), at: .now())
        streams.open(3, head, body(3), at: .now())
        let complete = streams.complete(1)
        #expect(complete?.id == 1)
        let again = streams.complete(1) == nil
        #expect(again)
        let rest = streams.takeArriving()
        #expect(rest.map(\.id) == [3])
        let late = streams.complete(3) == nil
        #expect(late)
        #expect(streams.takeArriving().isEmpty == true)
    }

    @Test func `forget a request that is reset before its handler was started`() {
        var streams = StreamTable(limits: ServerLimits())
        streams.open(1, head, body(1), at: .now())
        let closed = streams.closed(1) != nil
        #expect(closed)
        #expect(streams.takeArriving().isEmpty == true)
        let isUnwanted = streams.body(1) == nil
        #expect(isUnwanted)
    }

    @Test func `count handlers until they return, also those of closed streams`() {
        var limits = ServerLimits()
        limits.maxLiveHandlers = 2
        var streams = StreamTable(limits: limits)
        let task = Task {}
        for id in [StreamID(1), 3] {
            #expect(streams.start(id) == true)
            streams.started(task, at: .now())
        }
        streams.closed(1)?.close()
        #expect(task.isCancelled)
        #expect(streams.start(5) == false)
        #expect(streams.abandonedHandlers == 1)
        let isAwaited = streams.finished(1) != nil
        #expect(!isAwaited)
        #expect(streams.abandonedHandlers == 0)
        #expect(streams.start(5) == true)
        let isStartingAwaited = streams.finished(5) != nil
        #expect(isStartingAwaited)
        let isSuspendedAwaited = streams.finished(3) != nil
        #expect(isSuspendedAwaited)
        let live = streams.liveHandlers
        #expect(live == 0)
    }

    @Test func `hand out everything when the connection ends`() {
        var streams = StreamTable(limits: ServerLimits())
        let task = Task {}
        #expect(streams.start(1) == true)
        streams.started(task, at: .now())
        streams.open(3, head, body(3), at: .now())
        #expect(streams.start(5) == true)
        for stream in streams.closeAll() { stream.close() }
        #expect(task.isCancelled)
        #expect(streams.takeArriving().isEmpty == true)
        #expect(streams.abandonedHandlers == 2)
        for id in [StreamID(1), 5] {
            let isAwaited = streams.finished(id) != nil
            #expect(!isAwaited)
        }
        #expect(streams.abandonedHandlers == 0)
    }

    @Test func `have no use for a body that is written after they were closed`() {
        var streams = StreamTable(limits: ServerLimits())
        let task = Task {}
        for id in [StreamID(1), 3] {
            #expect(streams.start(id) == true)
            streams.started(task, at: .now())
        }
        streams.closed(1)?.close()
        #expect(streams.writes(OutgoingBody(stream: 1, length: nil, trailers: [:], connection: nil)) == false)
        #expect(streams.writes(OutgoingBody(stream: 3, length: nil, trailers: [:], connection: nil)) == true)
    }
}

@Suite struct `The window of a connection` {
    @Test func `is given back at once while little is unread, and with the reading when much is`() {
        var limits = ServerLimits()
        limits.streamWindow = 100
        limits.maxUnreadBytes = 300
        var unread = UnreadBodies(limits: limits)
        var ofLoop = 0
        #expect(unread.received(200, ofLoop: &ofLoop) == 200)
        #expect(unread.received(100, ofLoop: &ofLoop) == 100)
        #expect(unread.received(50, ofLoop: &ofLoop) == 0)
        #expect(unread.received(50, ofLoop: &ofLoop) == 0)
        #expect(unread.taken(50, ofLoop: &ofLoop) == 0)
        #expect(unread.taken(50, ofLoop: &ofLoop) == 100)
        #expect(ofLoop == 300)
    }

    @Test func `stays shut for who has much unread while the loop has too much, and for nobody else`() {
        var limits = ServerLimits()
        limits.streamWindow = 100
        limits.maxUnreadBytesOfLoop = 500
        var ofLoop = 1000
        var modest = UnreadBodies(limits: limits)
        #expect(modest.received(100, ofLoop: &ofLoop) == 100)
        var greedy = UnreadBodies(limits: limits)
        #expect(greedy.received(101, ofLoop: &ofLoop) == 0)
        #expect(greedy.taken(1, ofLoop: &ofLoop) == 101)
        #expect(ofLoop == 1200)
    }
}
