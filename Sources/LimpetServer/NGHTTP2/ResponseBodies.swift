import NIOCore

/// The bodies that are being sent on one connection, by a number that the session keeps with the stream.
struct ResponseBodies {
    private enum Content {
        case none
        case bytes([UInt8])
        case written(OutgoingBody)
    }

    private struct Body {
        var stream: StreamID
        var content: Content
        var sent = 0
        /// How fast the client takes it.
        var pace = TransferPace()
    }

    /// What goes into the next DATA frame.
    enum Next {
        case bytes(Int, isLast: Bool)
        /// The last bytes, and the fields that follow them.
        case lastBytes(Int, trailers: FieldBlock)
        /// The writer has to write first.
        case nothingYet
    }

    private var bodies: [Body] = []
    private var free: [Int] = []
    /// Bodies that have taken bytes from a writer which waits for that.
    private var drained: [OutgoingBody] = []

    mutating func insert(_ bytes: [UInt8], on stream: StreamID) -> Int {
        insert(Body(stream: stream, content: .bytes(bytes)))
    }

    mutating func insert(_ body: OutgoingBody) -> Int {
        insert(Body(stream: body.stream, content: .written(body)))
    }

    private mutating func insert(_ body: Body) -> Int {
        guard let slot = free.popLast() else {
            bodies.append(body)
            return bodies.count - 1
        }
        bodies[slot] = body
        return slot
    }

    mutating func remove(_ slot: Int) {
        bodies[slot].content = .none
        free.append(slot)
    }

    /// Whether no body is being sent.
    var isEmpty: Bool { free.count == bodies.count }

    /// Gives back the memory of bodies that were sent, if none is left.
    mutating func trim() {
        if isEmpty { self = ResponseBodies() }
    }

    // MARK: Sending

    /// How much of a body goes into a frame of at most this size.
    mutating func next(_ slot: Int, limit: Int) -> Next {
        switch bodies[slot].content {
        case .none: return .bytes(0, isLast: true)
        case .bytes(let bytes):
            let left = bytes.count - bodies[slot].sent
            return .bytes(min(left, limit), isLast: left <= limit)
        case .written(let body):
            return body.next(limit: limit)
        }
    }

    /// Appends the next bytes of a body to what is written.
    mutating func write(_ count: Int, of slot: Int, to output: inout ByteBuffer) {
        let start = bodies[slot].sent
        bodies[slot].sent = start + count
        switch bodies[slot].content {
        case .none: break
        case .bytes(let bytes):
            bytes.withUnsafeBytes { bytes in
                _ = output.writeBytes(UnsafeRawBufferPointer(rebasing: bytes[start..<start + count]))
            }
        case .written(let body):
            if body.write(count, to: &output) { drained.append(body) }
        }
    }

    /// The bodies whose writers can go on.
    mutating func takeDrained() -> [OutgoingBody] {
        if drained.isEmpty { return [] }
        defer { drained.removeAll() }
        return drained
    }

    // MARK: Pace

    /// The streams of the bodies that the client takes too slowly.
    ///
    /// - Parameter isHeldBack: tells whether the client's window for a stream is empty.
    mutating func streamsHeldBack(
        at now: NIODeadline, _ limits: ServerLimits, isHeldBack: (StreamID) -> Bool
    ) -> [StreamID] {
        bodies.indices.compactMap { slot in
            guard let id = streamToSend(slot) else { return nil }
            return isTooSlow(slot, isHeldBack: isHeldBack(id), at: now, limits) ? id : nil
        }
    }

    /// The stream of a body that has bytes to send; `nil` for one that waits for its writer.
    private func streamToSend(_ slot: Int) -> StreamID? {
        switch bodies[slot].content {
        case .none: nil
        case .bytes: bodies[slot].stream
        case .written(let body): body.waiting > 0 ? body.stream : nil
        }
    }

    /// - Parameter isHeldBack: whether the client's window for the stream is empty.
    /// - Returns: whether the client takes the body too slowly.
    private mutating func isTooSlow(_ slot: Int, isHeldBack: Bool, at now: NIODeadline, _ limits: ServerLimits) -> Bool
    {
        guard isHeldBack, limits.minBytesPerSecond > 0 else {
            bodies[slot].pace.pause()
            return false
        }
        // What was sent may still be on its way: a client on a slow link opens a large window only after it has read half.
        let sent = bodies[slot].sent
        let onItsWay = TimeAmount.seconds(Int64(sent / max(limits.minBytesPerSecond, 1)))
        return bodies[slot].pace.isTooSlow(
            moved: sent, at: now, interval: limits.writeTimeout + min(onItsWay, limits.maxWriteGrace),
            rate: limits.minBytesPerSecond)
    }
}
