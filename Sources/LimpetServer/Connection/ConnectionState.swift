import NIOCore

/// Where a connection stands, and what follows from what happens to it.
///
/// ```
///            preface complete            drain                 PING answered
///  preface ───────────────────▶ active ─────────▶ noticeSent ───────────────▶ lastStreamSent
///     │                           │                   │                             │
///     │ other bytes               │ session finished, protocol violated, or closed by either side
///     ▼                           ▼                   ▼                             ▼
///  refused ────────────────────────────────────▶ closed
/// ```
///
/// A drain sends GOAWAY twice (RFC 9113, section 6.8): the first names no stream, so that requests which are on their
/// way are still served; the second, a round trip and ``ServerLimits/drainGrace`` later, names the last stream that was.
struct ConnectionState: ~Copyable {
    private enum Phase {
        case preface(received: ByteBuffer, isDraining: Bool)
        case active
        case noticeSent
        case lastStreamSent
        case refused
        case ending
        case closed
    }

    enum Input {
        /// The bytes belong to HTTP/2, the preface included.
        case feed(ByteBuffer)
        /// Too few bytes to tell what the client speaks.
        case wait
        /// The client speaks something else: answer, if there is an answer that it understands, and close.
        case refuse(ByteBuffer?)
        /// Nobody needs the bytes any more.
        case ignore
    }

    enum Drain {
        /// Requests may be on their way behind the preface: wait a moment for it.
        case awaitPreface
        /// Send the first GOAWAY, and a PING behind it.
        case sendNotice
        case nothing
    }

    private var phase = Phase.preface(received: ByteBuffer(), isDraining: false)
    /// What a client is told that speaks HTTP/1.
    private let advice: ClientPreface.Advice

    init(advice: ClientPreface.Advice = .priorKnowledge) {
        self.advice = advice
    }

    /// Whether the session may still be read from and written to.
    var isServing: Bool {
        switch phase {
        case .active, .noticeSent, .lastStreamSent: true
        case .preface, .refused, .ending, .closed: false
        }
    }

    /// Whether the connection serves without being told to stop.
    var isUndisturbed: Bool {
        if case .active = phase { true } else { false }
    }

    /// Whether the client has been told that the server stops, and not yet which stream was the last.
    var isNoticeSent: Bool {
        if case .noticeSent = phase { true } else { false }
    }

    /// Whether anything is still to be expected of the client.
    var isOpen: Bool {
        switch phase {
        case .preface, .active, .noticeSent, .lastStreamSent: true
        case .refused, .ending, .closed: false
        }
    }

    /// Whether everything was given to the client, and it has to close.
    var isEnding: Bool {
        if case .ending = phase { true } else { false }
    }

    mutating func received(_ bytes: ByteBuffer) -> Input {
        switch phase {
        case .active, .noticeSent, .lastStreamSent:
            return .feed(bytes)
        case .refused, .ending, .closed:
            return .ignore
        case .preface(var received, let isDraining):
            if received.readableBytes == 0 { received = bytes } else { received.writeImmutableBuffer(bytes) }
            switch ClientPreface(received.readableBytesView) {
            case .complete:
                phase = .active
                isDrainDue = isDraining
                return .feed(received)
            case .incomplete:
                phase = .preface(received: received, isDraining: isDraining)
                return .wait
            case .http1(let isHead):
                phase = .refused
                return .refuse(ClientPreface.http1Answer(isAnswerToHead: isHead, advice: advice))
            case .other:
                phase = .refused
                return .refuse(nil)
            }
        }
    }

    /// The server stops.
    mutating func drain() -> Drain {
        switch phase {
        case .preface(let received, isDraining: false):
            phase = .preface(received: received, isDraining: true)
            return .awaitPreface
        case .active:
            isDrainDue = false
            phase = .noticeSent
            return .sendNotice
        case .preface, .noticeSent, .lastStreamSent, .refused, .ending, .closed:
            return .nothing
        }
    }

    /// The client's preface came while the server stops: what came with it was read, the notice is due.
    private(set) var isDrainDue = false

    /// - Returns: whether the preface of a connection that drains has still not come.
    mutating func prefaceIsLate() -> Bool {
        guard case .preface(_, isDraining: true) = phase else { return false }
        phase = .closed
        return true
    }

    /// The session is finished: what was written has to reach the client.
    ///
    /// - Returns: whether it was not before.
    mutating func finish() -> Bool {
        guard isServing else { return false }
        phase = .ending
        return true
    }

    /// The client has answered a PING, and with it everything before: whatever it sends from now on, it sends knowing
    /// of the first GOAWAY. It has also had the time to send what it had begun; or it has had its time to answer.
    ///
    /// - Returns: whether to send the GOAWAY that names the last stream.
    mutating func pingAnswered() -> Bool {
        guard case .noticeSent = phase else { return false }
        phase = .lastStreamSent
        return true
    }

    /// - Returns: whether the connection was open until now.
    mutating func close() -> Bool {
        if case .closed = phase { return false }
        phase = .closed
        return true
    }
}
