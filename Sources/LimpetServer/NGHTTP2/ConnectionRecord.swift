import HTTPTypes
import NIOCore

/// What the library's callbacks note while it reads and writes: the memory that a ``NGHTTP2Session`` shares with them.
///
/// Nothing here calls back into the library, and nothing runs other code than its own.
struct ConnectionRecord {
    /// What was read, in order.
    var events: [HTTP2Event] = []
    /// The client has sent its SETTINGS.
    private(set) var isGreeted = false
    /// What is being read.
    var input = ByteBuffer()
    /// What is being written.
    var output = ByteBuffer()
    var head: RequestHeadBuilder
    var bodies = ResponseBodies()
    /// What was written since ``takeWritten(isMoreLeft:)``.
    var sentFrames = OutboundFrames()
    /// A PING has to follow what is queued.
    var isPingDue = false
    /// A GOAWAY that names the last stream has to.
    var isGoAwayDue = false
    /// The streams that are open or half-closed (RFC 9113, section 5.1).
    private(set) var openStreams = 0
    /// The streams that were opened, in all.
    private(set) var openedStreams = 0
    /// Those of them whose request is not complete.
    private var incompleteRequests: Set<StreamID> = []
    /// Those whose response has been sent whole before that.
    private var answeredRequests: [StreamID] = []
    private let outputLimit: Int

    init(limits: ServerLimits) {
        head = RequestHeadBuilder(limits: limits)
        outputLimit = limits.outputChunk
    }

    /// Gives back the memory that requests have left which are done. To be called while there are none, and no events.
    mutating func trim() {
        head.forget()
        bodies.trim()
        events = []
        incompleteRequests = []
        answeredRequests = []
    }

    var isOutputFull: Bool { output.readableBytes >= outputLimit }

    // MARK: Input

    /// The fields of a header list begin.
    mutating func beganHeaders(isRequest: Bool) {
        if isRequest {
            openStreams += 1
            openedStreams += 1
        }
        head.begin(isTrailers: !isRequest)
    }

    /// A frame has come whole, its CONTINUATION frames included.
    ///
    /// - Parameter isRequest: HEADERS that open a stream.
    /// - Returns: whether it can be; if not, there is no request where the library saw one.
    mutating func received(_ frame: FrameHeader, isRequest: Bool) -> Bool {
        switch frame.kind {
        case .headers where isRequest:
            guard let request = head.finish() else { return false }
            if !frame.endsStream { incompleteRequests.insert(frame.stream) }
            if head.isOversized {
                events.append(.oversizedRequest(frame.stream, request))
            } else {
                events.append(.request(frame.stream, request, isComplete: frame.endsStream))
            }
        case .headers where frame.endsStream:
            incompleteRequests.remove(frame.stream)
            events.append(.endOfRequest(frame.stream, trailers: head.finishTrailers()))
        case .data where frame.endsStream:
            incompleteRequests.remove(frame.stream)
            events.append(.endOfRequest(frame.stream, trailers: nil))
        case .ping where frame.isAcknowledgement:
            events.append(.pingAnswered)
        case .settings:
            isGreeted = true
        default:
            break
        }
        return true
    }

    /// A piece of a body has come, at an address that may lie within what is being read.
    mutating func received(_ piece: UnsafeRawBufferPointer, on stream: StreamID) {
        // The library hands out a part of what it was given to read: share it instead of copying it.
        let offset = input.withUnsafeReadableBytes { input -> Int? in
            guard let start = input.baseAddress, let address = piece.baseAddress else { return nil }
            let offset = address - start
            return offset >= 0 && offset + piece.count <= input.count ? offset : nil
        }
        let slice = offset.flatMap { input.getSlice(at: input.readerIndex + $0, length: piece.count) }
        events.append(.body(stream, slice ?? ByteBuffer(bytes: piece)))
    }

    /// A stream is closed.
    ///
    /// - Parameter slot: its response's body, if it had one.
    mutating func closed(_ stream: StreamID, body slot: Int?) {
        openStreams -= 1
        if let slot { bodies.remove(slot) }
        if !incompleteRequests.isEmpty { incompleteRequests.remove(stream) }
        events.append(.closed(stream))
    }

    // MARK: Output

    /// What a call of the session's `write` has done.
    mutating func takeWritten(isMoreLeft: Bool) -> Written {
        defer { sentFrames = OutboundFrames() }
        return Written(
            isMoreLeft: isMoreLeft, frames: sentFrames, drainedBodies: bodies.takeDrained(), hasEvents: !events.isEmpty)
    }

    /// A frame has been handed out to be sent.
    mutating func sent(_ frame: FrameHeader) {
        guard frame.kind == .headers || frame.kind == .data, frame.endsStream else { return }
        sentFrames.answers += 1
        if !incompleteRequests.isEmpty, incompleteRequests.contains(frame.stream) {
            answeredRequests.append(frame.stream)
        }
    }

    /// A frame that follows all that is queued.
    enum Follower {
        /// Behind the first GOAWAY of a drain.
        case ping
        /// Names the last stream that was served.
        case goAway
        /// For a stream whose response has been sent before its request was complete: what is left of the request is
        /// called off with NO_ERROR (RFC 9113, section 8.1).
        case reset(StreamID)
    }

    /// The next frame that can follow, now that nothing is queued.
    mutating func takeFollower() -> Follower? {
        if isPingDue {
            isPingDue = false
            return .ping
        }
        if isGoAwayDue {
            isGoAwayDue = false
            return .goAway
        }
        while let stream = answeredRequests.popLast() {
            if incompleteRequests.contains(stream) { return .reset(stream) }
        }
        return nil
    }
}

/// What was written, and what came of it.
struct Written {
    /// Whether more may be left to be written.
    let isMoreLeft: Bool
    let frames: OutboundFrames
    /// The bodies whose writers can go on.
    let drainedBodies: [OutgoingBody]
    /// Whether something has happened that was not handed out.
    let hasEvents: Bool
}
