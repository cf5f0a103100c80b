import NIOCore
import Testing

@testable import LimpetServer

@Suite struct `A token bucket` {
    private let start = NIODeadline.uptimeNanoseconds(1_000_000_000_000)

    private func takes(_ bucket: inout TokenBucket, at now: NIODeadline) -> Int {
        var count = 0
        while bucket.take(at: now) { count += 1 }
        return count
    }

    @Test func `is full at first, and fills at its rate`() {
        var bucket = TokenBucket(.init(burst: 10, perSecond: 5))
        #expect(takes(&bucket, at: start) == 10)
        #expect(takes(&bucket, at: start + .milliseconds(199)) == 0)
        #expect(takes(&bucket, at: start + .milliseconds(200)) == 1)
        #expect(takes(&bucket, at: start + .seconds(1)) == 4)
    }

    @Test func `holds no more than its burst`() {
        var bucket = TokenBucket(.init(burst: 10, perSecond: 5))
        #expect(takes(&bucket, at: start) == 10)
        #expect(takes(&bucket, at: start + .hours(1)) == 10)
        bucket.giveBack(1000)
        #expect(takes(&bucket, at: start + .hours(1)) == 10)
        #expect(takes(&bucket, at: start + .hours(1)) == 0)
    }

    @Test func `takes what is given back`() {
        var bucket = TokenBucket(.init(burst: 10, perSecond: 5))
        #expect(takes(&bucket, at: start) == 10)
        bucket.giveBack(3)
        #expect(takes(&bucket, at: start) == 3)
    }

    @Test func `gives several at once or none`() {
        var bucket = TokenBucket(.init(burst: 10, perSecond: 5))
        #expect(bucket.take(8, at: start) == true)
        #expect(bucket.take(3, at: start) == false)
        #expect(bucket.take(2, at: start) == true)
        #expect(bucket.take(11, at: start + .hours(1)) == false)
    }
}

@Suite struct `The streams that were opened` {
    @Test func `are known, and those that were passed over are told apart`() {
        var streams = OpenedStreams()
        for id in [StreamID(1), 3, 9, 11] { #expect(streams.open(id) == .opened) }
        for id in [StreamID(1), 3, 9, 11] { #expect(streams.open(id) == .known) }
        for id in [StreamID(5), 7] { #expect(streams.open(id) == .passedOver) }
        #expect(streams.open(0x7fff_ffff) == .opened)
        #expect(streams.open(0x7fff_ffff) == .known)
        #expect(streams.open(0x7fff_fffd) == .passedOver)
    }

    @Test func `include the first ones that were passed over`() {
        var streams = OpenedStreams()
        #expect(streams.open(5) == .opened)
        #expect(streams.open(1) == .passedOver)
        #expect(streams.open(3) == .passedOver)
    }

    @Test func `take no more memory however many are passed over`() {
        var streams = OpenedStreams()
        for id in stride(from: StreamID(1), to: 100_001, by: 10) { #expect(streams.open(id) == .opened) }
        #expect(streams.open(99_989) == .passedOver)
        // Forgotten: the library drops it.
        #expect(streams.open(3) == .known)
    }
}

@Suite struct `The frames of a client` {
    private let now = NIODeadline.uptimeNanoseconds(1_000_000_000_000)

    private func bytes(_ frames: [Frame]) -> ByteBuffer {
        var buffer = ByteBuffer()
        for frame in frames { frame.write(to: &buffer) }
        return buffer
    }

    /// What becomes of frames behind a preface.
    private func verdict(_ frames: [Frame], limits: ServerLimits = ServerLimits()) -> InboundFrames.Verdict {
        var inbound = InboundFrames(limits: limits)
        #expect(inbound.received(ByteBuffer(bytes: Frame.preface), at: now) == .pass)
        return inbound.received(bytes(frames), at: now)
    }

    @Test func `are found wherever the bytes are cut`() {
        let frames: [Frame] = [
            .emptySettings, .request(1, "POST", endStream: false),
            Frame.data(1, [1, 2, 3], endStream: false).padded(3),
            .windowUpdate(1, 2000), .data(1, []), .request(5), .ping(), .request(3),
        ]
        let whole = Frame.preface + bytes(frames).readableBytesView
        let last = bytes([frames[7]]).readableBytes
        for cut in 0...whole.count {
            var inbound = InboundFrames(limits: ServerLimits())
            let first = inbound.received(ByteBuffer(bytes: whole[..<cut]), at: now)
            let position = whole.count - last
            if cut >= position + 9 {
                #expect(first == .end(after: position, .streamWasPassedOver))
            } else {
                #expect(first == .pass)
                let second = inbound.received(ByteBuffer(bytes: whole[cut...]), at: now)
                #expect(second == .end(after: max(0, position - cut), .streamWasPassedOver))
            }
        }
    }

    @Test func `are found byte by byte`() {
        var inbound = InboundFrames(limits: ServerLimits())
        let whole =
            Frame.preface
            + bytes([.emptySettings, .request(5), .windowUpdate(5, 7), .request(3)])
            .readableBytesView
        var verdict = InboundFrames.Verdict.pass
        for byte in whole where verdict == .pass { verdict = inbound.received(ByteBuffer(bytes: [byte]), at: now) }
        #expect(verdict == .end(after: 0, .streamWasPassedOver))
    }

    @Test func `tell since when a header list is under way`() {
        var inbound = InboundFrames(limits: ServerLimits())
        let head = Frame.block(1, requestBlock(), flags: Frame.endStream)
        let whole = Frame.preface + (head.bytes + Frame.continuation(1, [1, 2]).bytes)
        for (index, byte) in whole.enumerated() {
            #expect(inbound.received(ByteBuffer(bytes: [byte]), at: now + .seconds(Int64(index))) == .pass)
            let isUnderWay = index >= 24 + 8 && index < whole.count - 1
            #expect(inbound.headerListBegan == (isUnderWay ? now + .seconds(24 + 8) : nil))
        }
        #expect(inbound.received(bytes([.request(3), .request(5)]), at: now) == .pass)
        #expect(inbound.headerListBegan == nil)
    }

    @Test(arguments: [
        (Frame.ping(), 100, ServerLimit.answers), (.emptySettings, 100, .answers), (.reset(1), 100, .resets),
        (.data(1, [], endStream: false), 1000, .idleFrames),
        (Frame.data(1, [], endStream: false).padded(200), 1000, .idleFrames),
        (.windowUpdate(0, 1), 1000, .idleFrames), (.windowUpdate(1, 1023), 1000, .idleFrames),
        (.priority(1, on: 0), 1000, .idleFrames), (Frame(kind: .init(rawValue: 0x10)), 1000, .idleFrames),
        (.goAway(), 1000, .idleFrames), (Frame.ping().with(flags: 1), 1000, .idleFrames),
    ])
    func `pass a limit of their own`(frame: Frame, allowed: Int, limit: ServerLimit) {
        let frames = [Frame](repeating: frame, count: allowed)
        #expect(verdict(frames) == .pass)
        #expect(verdict(frames + [frame]) == .end(after: bytes(frames).readableBytes, .limit(limit)))
    }

    @Test(arguments: [
        Frame.data(1, [1], endStream: false), Frame.data(1, [1], endStream: false).padded(20), .data(1, []),
        .windowUpdate(0, 1024),
    ])
    func `are free where they bring something`(frame: Frame) {
        #expect(verdict([Frame](repeating: frame, count: 10_000)) == .pass)
    }

    @Test func `may follow each request, its windows and trailers`() {
        let frames = stride(from: UInt32(1), to: 4001, by: 2).flatMap { stream -> [Frame] in
            [
                .request(stream, endStream: false), .priority(stream, on: 0), .windowUpdate(stream, 100),
                .windowUpdate(0, 100), .data(stream, [], endStream: false), .block(stream, Frame.field("a", "1")),
            ]
        }
        #expect(verdict(frames) == .pass)
    }

    @Test func `may acknowledge each small DATA frame`() {
        var inbound = InboundFrames(limits: ServerLimits())
        _ = inbound.received(ByteBuffer(bytes: Frame.preface), at: now)
        let updates = bytes([.windowUpdate(0, 20), .windowUpdate(1, 20)])
        for _ in 0..<10_000 {
            var outbound = OutboundFrames()
            outbound.data(20, limit: 16_384)
            let fault = inbound.sent(outbound, isAll: true, at: now)
            #expect(fault == nil)
            #expect(inbound.received(updates, at: now) == .pass)
        }
    }

    @Test func `may not open windows byte by byte`() {
        var inbound = InboundFrames(limits: ServerLimits())
        _ = inbound.received(ByteBuffer(bytes: Frame.preface), at: now)
        var count = 0
        while inbound.received(bytes([.windowUpdate(1, 1)]), at: now) == .pass, count < 10_000 {
            count += 1
            var outbound = OutboundFrames()
            outbound.data(1, limit: 1)
            let fault = inbound.sent(outbound, isAll: true, at: now)
            #expect(fault == nil)
        }
        #expect(count == 1000)
    }

    @Test(arguments: [[UInt8](), [1, 2, 3]])
    func `continue a header list at most eight times`(piece: [UInt8]) {
        let head = Frame.block(1, requestBlock(), flags: Frame.endStream)
        let pieces = [Frame](repeating: .continuation(1, piece, isLast: false), count: 8)
        #expect(verdict([head] + pieces) == .pass)
        #expect(verdict([head] + pieces.dropLast() + [.continuation(1, piece), .request(3)]) == .pass)
        let frames = [head] + pieces
        #expect(
            verdict(frames + [.continuation(1, piece)])
                == .end(after: bytes(frames).readableBytes, .limit(.continuations)))
    }

    @Test func `may provoke few resets, and fewer as time goes by`() {
        var inbound = InboundFrames(limits: ServerLimits())
        var outbound = OutboundFrames()
        for _ in 0..<50 { outbound.reset(HTTP2ErrorCode.protocolError.rawValue) }
        for code in [HTTP2ErrorCode.noError, .cancel, .refusedStream, .internalError] { outbound.reset(code.rawValue) }
        #expect(outbound.provokedResets == 50)
        let first = inbound.sent(outbound, isAll: true, at: now)
        #expect(first == nil)
        var one = OutboundFrames()
        one.reset(HTTP2ErrorCode.flowControlError.rawValue)
        let second = inbound.sent(one, isAll: true, at: now)
        #expect(second == .limit(.provokedResets))
        let later = inbound.sent(one, isAll: true, at: now + .seconds(1))
        #expect(later == nil)
    }

    @Test func `that set a window too large are told from those that open one`() {
        var overflow = OutboundFrames()
        overflow.reset(HTTP2ErrorCode.flowControlError.rawValue)
        var inbound = InboundFrames(limits: ServerLimits())
        _ = inbound.received(ByteBuffer(bytes: Frame.preface), at: now)
        #expect(inbound.received(bytes([.emptySettings]), at: now) == .pass)
        let first = inbound.sent(overflow, isAll: true, at: now)
        #expect(first == .windowOverflow)
        let second = inbound.sent(overflow, isAll: true, at: now)
        #expect(second == nil)
    }
}
