import NIOCore

/// Why the server ends a connection that the library would go on with.
enum ConnectionFault: Equatable {
    /// HEADERS for a stream that was passed over (RFC 9113, section 5.1.1).
    case streamWasPassedOver
    /// PRIORITY on stream 0 (RFC 9113, section 6.3).
    case priorityOfConnection
    /// A CONTINUATION frame of more than 16,384 bytes (RFC 9113, section 4.2).
    case frameTooLarge
    /// SETTINGS that take a window over 2^31-1 (RFC 9113, section 6.9.2).
    case windowOverflow
    /// More of something than the server puts up with (RFC 9113, section 10.5).
    case limit(ServerLimit)

    var code: HTTP2ErrorCode {
        switch self {
        case .streamWasPassedOver, .priorityOfConnection: .protocolError
        case .frameTooLarge: .frameSizeError
        case .windowOverflow: .flowControlError
        case .limit: .enhanceYourCalm
        }
    }

    /// For the log.
    var reason: String {
        switch self {
        case .streamWasPassedOver: "HEADERS for a stream that was passed over"
        case .priorityOfConnection: "PRIORITY on stream 0"
        case .frameTooLarge: "CONTINUATION over the maximum frame size"
        case .windowOverflow: "SETTINGS take a window over its maximum"
        case .limit(let limit): "limit: \(limit.rawValue)"
        }
    }
}

/// The frames that a client sends, looked at before the library reads them: what has to be counted, and the few errors
/// that the library does not see.
///
/// They are read here and not noted by the library's callbacks, because it calls none for the frames that it drops: of
/// unknown types, DATA and CONTINUATION of streams that are closed. Only where a frame begins is read: nine bytes, and a few
/// of some payloads.
struct InboundFrames: ~Copyable {
    enum Verdict: Equatable {
        /// The library may read everything.
        case pass
        /// The library may read as many bytes; then the connection ends.
        case end(after: Int, ConnectionFault)

        /// The bytes that the library may read.
        func readable(_ bytes: ByteBuffer) -> ByteBuffer {
            guard case .end(let count, _) = self else { return bytes }
            var bytes = bytes
            bytes.moveWriterIndex(to: bytes.readerIndex + count)
            return bytes
        }
    }

    /// SETTINGS_MAX_FRAME_SIZE, which the server leaves at its initial value (RFC 9113, section 6.5.2).
    private static let maxFrameBytes = 16_384
    /// An increment of a window below which WINDOW_UPDATE is no progress.
    private static let minIncrement = 1024

    private var opened = OpenedStreams()
    private var budget: FrameBudget
    private let maxContinuations: Int
    /// Bytes that are not looked at: the connection preface, then what is left of a payload.
    private var unread = ClientPreface.length
    /// The beginning of a frame that has not come whole.
    private var beginning = ByteBuffer()
    /// The CONTINUATION frames of the header list that is being received.
    private var continuations: Int?
    /// When the header list that is being received began; `nil` if none is.
    private(set) var headerListBegan: NIODeadline?
    /// The frame that is being received is the last one of a header list.
    private var endsHeaderList = false
    /// RST_STREAM frames that have come.
    private(set) var resets = 0
    /// SETTINGS have come whose effects have not been sent.
    private var isSettingsDue = false

    init(limits: ServerLimits) {
        budget = FrameBudget(limits: limits)
        maxContinuations = limits.maxContinuations
    }

    /// Bytes have come, the connection preface included.
    mutating func received(_ bytes: ByteBuffer, at now: NIODeadline) -> Verdict {
        var index = bytes.readerIndex
        while true {
            let passed = min(unread, bytes.writerIndex - index)
            index += passed
            unread -= passed
            if unread == 0, endsHeaderList {
                headerListBegan = nil
                endsHeaderList = false
            }
            guard unread == 0, index < bytes.writerIndex else { return .pass }
            let start = index
            guard let frame = nextFrame(bytes, &index) else { return .pass }
            if let fault = check(frame, at: now) { return .end(after: start - bytes.readerIndex, fault) }
        }
    }

    /// What the library has sent in answer.
    ///
    /// - Parameter isAll: nothing is left to be sent.
    /// - Returns: why the connection has to end.
    mutating func sent(_ frames: OutboundFrames, isAll: Bool, at now: NIODeadline) -> ConnectionFault? {
        defer { if isAll { isSettingsDue = false } }
        if frames.data > 0 { budget.sentData(frames: frames.data) }
        if frames.answers > 0 { budget.answered(frames.answers) }
        guard frames.provokedResets > 0 else { return nil }
        if isSettingsDue, frames.hasFlowControlError { return .windowOverflow }
        return budget.provoked(resets: frames.provokedResets, at: now).map { .limit($0) }
    }

    /// The client has reset a stream that had been open for a while.
    mutating func gaveUp() { budget.gaveUp() }

    // MARK: Frames

    private struct Beginning {
        let header: FrameHeader
        /// How many bytes of the frame were read, header included.
        let length: Int
        /// The increment of WINDOW_UPDATE, or the padding of DATA with the byte that tells its length.
        var number = 0

        /// - Returns: `nil` if there are too few bytes.
        init?(_ bytes: ByteBuffer, at index: Int) {
            guard let word = bytes.getInteger(at: index, as: UInt64.self),
                let last = bytes.getInteger(at: index + 8, as: UInt8.self)
            else { return nil }
            header = FrameHeader(
                kind: FrameKind(rawValue: UInt8(truncatingIfNeeded: word >> 32)),
                flags: UInt8(truncatingIfNeeded: word >> 24),
                stream: StreamID(truncatingIfNeeded: (word << 8 | UInt64(last)) & 0x7fff_ffff),
                length: Int(word >> 40))
            switch header.kind {
            case .windowUpdate where header.length == 4:
                guard let increment = bytes.getInteger(at: index + 9, as: UInt32.self) else { return nil }
                number = Int(increment & 0x7fff_ffff)
                length = 13
            case .data where header.isPadded && header.length > 0:
                guard let padding = bytes.getInteger(at: index + 9, as: UInt8.self) else { return nil }
                number = Int(padding) + 1
                length = 10
            default:
                length = 9
            }
        }
    }

    private mutating func nextFrame(_ bytes: ByteBuffer, _ index: inout Int) -> Beginning? {
        if beginning.readableBytes == 0, let frame = Beginning(bytes, at: index) {
            index += frame.length
            unread = frame.header.length + 9 - frame.length
            return frame
        }
        while let byte = bytes.getInteger(at: index, as: UInt8.self) {
            index += 1
            beginning.writeInteger(byte)
            if let frame = Beginning(beginning, at: 0) {
                beginning.clear()
                unread = frame.header.length + 9 - frame.length
                return frame
            }
        }
        return nil
    }

    private mutating func check(_ frame: Beginning, at now: NIODeadline) -> ConnectionFault? {
        let header = frame.header
        // Anything else in the middle of a header list is an error that the library finds.
        if let count = continuations, header.kind == .continuation {
            if header.length > Self.maxFrameBytes { return .frameTooLarge }
            if count == maxContinuations { return .limit(.continuations) }
            continuations = header.endsHeaders ? nil : count + 1
            endsHeaderList = header.endsHeaders
            return nil
        }
        let cost: FrameBudget.Cost
        switch header.kind {
        case .headers:
            continuations = header.endsHeaders ? nil : 0
            headerListBegan = now
            endsHeaderList = header.endsHeaders
            // Even numbers and 0 are an error that the library finds.
            guard header.stream % 2 == 1 else { return nil }
            switch opened.open(header.stream) {
            case .opened:
                budget.requested()
                return nil
            case .passedOver: return .streamWasPassedOver
            case .known: cost = .noProgress
            }
        case .data:
            if header.length > frame.number { budget.receivedData() }
            if header.endsStream || header.length > frame.number { return nil }
            cost = .noProgress
        case .windowUpdate:
            if frame.number >= Self.minIncrement { return nil }
            cost = .noProgress
        case .resetStream:
            resets += 1
            cost = .reset
        case .settings where !header.isAcknowledgement:
            isSettingsDue = true
            cost = .answer
        case .ping where !header.isAcknowledgement:
            cost = .answer
        case .priority where header.stream == 0:
            return .priorityOfConnection
        default:
            cost = .noProgress
        }
        return budget.spend(cost, at: now).map { .limit($0) }
    }
}

/// What the library has sent since it was asked last.
struct OutboundFrames {
    /// DATA frames that the client's windows had room for.
    var data = 0
    /// Responses whose end was sent.
    var answers = 0
    /// RST_STREAM frames.
    var resets = 0
    /// Those that blame the client.
    var provokedResets = 0
    /// One of them for FLOW_CONTROL_ERROR.
    var hasFlowControlError = false

    /// RST_STREAM was sent.
    mutating func reset(_ code: UInt32) {
        resets += 1
        switch HTTP2ErrorCode(rawValue: code) {
        case .noError, .internalError, .refusedStream, .cancel:
            // The handler's doing, or a limit that has its own answer.
            break
        case .flowControlError:
            provokedResets += 1
            hasFlowControlError = true
        default:
            provokedResets += 1
        }
    }

    /// A DATA frame was filled.
    ///
    /// - Parameter limit: what the windows and the frame had room for. A frame that is cut short by a window which the
    ///   client keeps small is no progress.
    mutating func data(_ count: Int, limit: Int) {
        if count < limit || count >= 1024 { data += 1 }
    }
}
