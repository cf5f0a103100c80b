import CNghttp2
import HTTPTypes
import NIOCore

/// The server's end of an HTTP/2 connection, in libnghttp2: bytes in, events out; responses in, bytes out.
///
/// This is the only file that calls C. The library calls back while it reads or writes; a callback notes what happened
/// in the ``ConnectionRecord`` and returns, it never runs other code.
///
/// Not thread-safe: a session belongs to its connection's event loop.
struct NGHTTP2Session: ~Copyable {
    /// Made by `init`, freed by `deinit`, never handed out.
    private let session: OpaquePointer
    /// The memory behind the `user_data` of every callback. It lives exactly as long as the session: callbacks come only
    /// from within calls to the session. It is a pointer and not a class because callbacks come in the middle of such a
    /// call; no method holds an access to `record.pointee` across one that does.
    private let record: UnsafeMutablePointer<ConnectionRecord>
    private let memory: SessionMemory

    init(limits: ServerLimits) throws(NGHTTP2Error) {
        let memory = SessionMemory(ConnectionRecord(limits: limits))
        record = memory.record
        session = try Self.makeSession(limits: limits, memory)
        self.memory = memory
    }

    deinit {
        // Before its memory goes, with the properties.
        nghttp2_session_del(session)
    }

    private static func makeSession(
        limits: ServerLimits, _ memory: borrowing SessionMemory
    ) throws(NGHTTP2Error) -> OpaquePointer {
        var options: OpaquePointer?
        try NGHTTP2Error.check(nghttp2_option_new(&options))
        defer { nghttp2_option_del(options) }
        // The connection tells what was read: flow control holds back a client whose body nobody takes.
        nghttp2_option_set_no_auto_window_update(options, 1)
        // Behind the connection's own limits, which are exact. The library counts a CONTINUATION frame again for each piece
        // that its header of nine bytes comes in, up to 1.69.
        nghttp2_option_set_stream_reset_rate_limit(
            options, UInt64(limits.resets.burst * 2), UInt64(limits.resets.perSecond * 2))
        nghttp2_option_set_max_continuations(options, limits.maxContinuations * 10)
        limpet_option_set_glitch_rate_limit(
            options, UInt64(limits.idleFrames.burst * 2), UInt64(limits.idleFrames.perSecond * 2))
        // Closed streams are kept for RFC 7540's priority tree only, which is not used.
        nghttp2_option_set_no_closed_streams(options, 1)

        var callbacks: OpaquePointer?
        try NGHTTP2Error.check(nghttp2_session_callbacks_new(&callbacks))
        defer { nghttp2_session_callbacks_del(callbacks) }
        nghttp2_session_callbacks_set_on_begin_headers_callback(callbacks, onBeginHeaders)
        nghttp2_session_callbacks_set_on_header_callback(callbacks, onHeader)
        nghttp2_session_callbacks_set_on_invalid_header_callback(callbacks, onInvalidHeader)
        nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, onFrameReceived)
        nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, onDataReceived)
        nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, onStreamClosed)
        nghttp2_session_callbacks_set_on_frame_send_callback(callbacks, onFrameSent)
        nghttp2_session_callbacks_set_on_frame_not_send_callback(callbacks, onFrameNotSent)
        nghttp2_session_callbacks_set_send_data_callback(callbacks, sendBody)

        // The session copies the callbacks, the options and the allocator.
        var session: OpaquePointer?
        var allocator = nghttp2_mem(
            mem_user_data: memory.userData, malloc: allocateForSession, free: freeForSession,
            calloc: allocateZeroesForSession, realloc: reallocateForSession)
        try NGHTTP2Error.check(nghttp2_session_server_new3(&session, callbacks, memory.record, options, &allocator))
        guard let session else { preconditionFailure("the library makes a session or fails") }
        do {
            try announce(limits, session)
        } catch {
            nghttp2_session_del(session)
            throw error
        }
        return session
    }

    /// Queues the server's SETTINGS, its part of the connection preface.
    private static func announce(_ limits: ServerLimits, _ session: OpaquePointer) throws(NGHTTP2Error) {
        let settings = [
            (NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, limits.maxConcurrentStreams),
            (NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, Int(limits.streamWindow)),
            (NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, limits.maxHeaderListBytes),
            (NGHTTP2_SETTINGS_NO_RFC7540_PRIORITIES, 1),
        ].map { nghttp2_settings_entry(settings_id: Int32(bitPattern: $0.rawValue), value: UInt32($1)) }
        try NGHTTP2Error.check(nghttp2_submit_settings(session, noFlags, settings, settings.count))
        try NGHTTP2Error.check(
            nghttp2_session_set_local_window_size(session, noFlags, 0, limits.connectionWindow))
    }

    // MARK: Input

    /// Reads what the client has sent. Take the events afterwards, also if it throws.
    mutating func receive(_ input: ByteBuffer) throws(NGHTTP2Error) {
        record.pointee.input = input
        defer { record.pointee.input = ByteBuffer() }
        let read = input.withUnsafeReadableBytes { bytes in
            // The bytes stay in place during the call: `record.pointee.input` holds them as well.
            nghttp2_session_mem_recv(session, bytes.baseAddress?.assumingMemoryBound(to: UInt8.self), bytes.count)
        }
        try NGHTTP2Error.check(Int32(clamping: read))
    }

    /// Hands out what has happened, and takes an empty array to note on.
    mutating func takeEvents(_ events: inout [HTTP2Event]) {
        swap(&record.pointee.events, &events)
    }

    /// The handler has taken bytes of a body: the client may send as many more on the stream.
    mutating func consume(_ count: Int, on id: StreamID) throws(NGHTTP2Error) {
        try NGHTTP2Error.check(nghttp2_session_consume_stream(session, id, count))
    }

    /// The client may send as many bytes more on the connection.
    mutating func consume(_ count: Int) throws(NGHTTP2Error) {
        try NGHTTP2Error.check(nghttp2_session_consume_connection(session, count))
    }

    // MARK: Output

    /// Queues a response. A stream that is closed already is left alone.
    ///
    /// A response that ends before its request is followed by RST_STREAM NO_ERROR (RFC 9113, section 8.1).
    mutating func respond(to id: StreamID, _ fields: borrowing FieldBlock, body: [UInt8]) throws(NGHTTP2Error) {
        if body.isEmpty {
            try submit(fields, on: id, nil)
        } else {
            try submit(fields, on: id, slot: record.pointee.bodies.insert(body, on: id))
        }
    }

    /// Queues the head of a response whose body is being written.
    mutating func respond(to id: StreamID, _ fields: borrowing FieldBlock, body: OutgoingBody) throws(NGHTTP2Error) {
        try submit(fields, on: id, slot: record.pointee.bodies.insert(body))
    }

    private func submit(_ fields: borrowing FieldBlock, on id: StreamID, slot: Int) throws(NGHTTP2Error) {
        // The number of the slot + 1 in place of a pointer: it is never dereferenced, and a stream without has `nil`.
        let mark = UnsafeMutableRawPointer(bitPattern: slot + 1)
        guard nghttp2_session_set_stream_user_data(session, id, mark) == 0 else {
            return record.pointee.bodies.remove(slot)
        }
        var provider = nghttp2_data_provider(
            source: nghttp2_data_source(fd: Int32(slot)), read_callback: readBody)
        try submit(fields, on: id, &provider)
    }

    private func submit(
        _ fields: borrowing FieldBlock, on id: StreamID, _ provider: UnsafePointer<nghttp2_data_provider>?
    ) throws(NGHTTP2Error) {
        try NGHTTP2Error.check(fields.withEntries { nghttp2_submit_response(session, id, $0, $1, provider) })
    }

    /// Queues an interim response (RFC 9110, section 15.2).
    mutating func inform(_ id: StreamID, _ fields: borrowing FieldBlock) throws(NGHTTP2Error) {
        try NGHTTP2Error.check(fields.withEntries { nghttp2_submit_headers(session, noFlags, id, nil, $0, $1, nil) })
    }

    /// A body that had nothing to send has now.
    mutating func resume(_ id: StreamID) throws(NGHTTP2Error) {
        let status = nghttp2_session_resume_data(session, id)
        // The stream was closed meanwhile.
        if status != NGHTTP2_ERR_INVALID_ARGUMENT.rawValue { try NGHTTP2Error.check(status) }
    }

    /// Resets a stream.
    func reset(_ id: StreamID, _ code: HTTP2ErrorCode) throws(NGHTTP2Error) {
        try NGHTTP2Error.check(nghttp2_submit_rst_stream(session, noFlags, id, code.rawValue))
    }

    /// Queues the first GOAWAY of a drain, and a PING behind it.
    mutating func noticeShutdown() throws(NGHTTP2Error) {
        try NGHTTP2Error.check(nghttp2_submit_shutdown_notice(session))
        // Not submitted yet: the library would send it first.
        record.pointee.isPingDue = true
    }

    /// Queues the GOAWAY that names the last stream which was served; streams after it are ignored.
    mutating func refuseNewStreams() {
        // Not submitted yet: streams that are served until it is sent count.
        record.pointee.isGoAwayDue = true
    }

    /// Queues a GOAWAY after which the session is finished.
    mutating func terminate(_ code: HTTP2ErrorCode) throws(NGHTTP2Error) {
        try NGHTTP2Error.check(nghttp2_session_terminate_session(session, code.rawValue))
    }

    /// Appends what is to be sent next, until there are `outputChunk` bytes or nothing is left.
    mutating func write(to output: inout ByteBuffer) throws(NGHTTP2Error) -> Written {
        let isMoreLeft = try writeFrames(to: &output)
        return record.pointee.takeWritten(isMoreLeft: isMoreLeft)
    }

    private func writeFrames(to output: inout ByteBuffer) throws(NGHTTP2Error) -> Bool {
        swap(&record.pointee.output, &output)
        defer { swap(&record.pointee.output, &output) }
        repeat {
            var bytes: UnsafePointer<UInt8>?
            let count = nghttp2_session_mem_send(session, &bytes)
            try NGHTTP2Error.check(Int32(clamping: count))
            if count > 0 {
                // Valid until the next call.
                record.pointee.output.writeBytes(UnsafeRawBufferPointer(start: bytes, count: count))
            } else if !record.pointee.isOutputFull, try !submitFollower() {
                return false
            }
        } while !record.pointee.isOutputFull
        return true
    }

    /// Queues what had to wait until everything before it was written.
    ///
    /// - Returns: whether there was anything.
    private func submitFollower() throws(NGHTTP2Error) -> Bool {
        switch record.pointee.takeFollower() {
        case .ping: try NGHTTP2Error.check(nghttp2_submit_ping(session, noFlags, nil))
        case .goAway:
            let last = nghttp2_session_get_last_proc_stream_id(session)
            try NGHTTP2Error.check(
                nghttp2_submit_goaway(session, noFlags, last, HTTP2ErrorCode.noError.rawValue, nil, 0))
        case .reset(let id): try reset(id, .noError)
        case nil: return false
        }
        return true
    }

    /// Whether nothing will be read or written any more: close the connection.
    var isFinished: Bool { nghttp2_session_want_read(session) == 0 && !hasOutput }

    /// Whether the session has anything to send that the client's windows permit.
    var hasOutput: Bool { nghttp2_session_want_write(session) != 0 }

    /// The number of frames that wait to be sent, bodies not counted.
    var queuedFrames: Int { nghttp2_session_get_outbound_queue_size(session) }

    /// The number of streams that are open or half-closed, and of those that were opened in all.
    var openStreams: Int { record.pointee.openStreams }
    var openedStreams: Int { record.pointee.openedStreams }

    /// Gives back the memory that requests have left which are done. To be called while there are none.
    mutating func trim() { record.pointee.trim() }

    /// Whether bodies are being sent.
    var isSendingBodies: Bool { !record.pointee.bodies.isEmpty }

    /// Whether the client has sent its SETTINGS, its part of the connection preface (RFC 9113, section 3.4).
    var isGreeted: Bool { record.pointee.isGreeted }

    /// Whether bytes wait for the client to open the connection's window.
    var isHeldBack: Bool { isSendingBodies && nghttp2_session_get_remote_window_size(session) <= 0 }

    /// The streams whose windows the client has kept shut for too long.
    mutating func streamsHeldBack(at now: NIODeadline, _ limits: ServerLimits) -> [StreamID] {
        record.pointee.bodies.streamsHeldBack(at: now, limits) { [session] id in
            nghttp2_session_get_stream_remote_window_size(session, id) <= 0
        }
    }
}

extension NGHTTP2Error {
    fileprivate static func check(_ status: Int32) throws(NGHTTP2Error) {
        // A static text of the library for every number.
        if status < 0 { throw NGHTTP2Error(code: status, message: String(cString: nghttp2_strerror(status))) }
    }
}

private let noFlags = UInt8(NGHTTP2_FLAG_NONE.rawValue)

// MARK: Callbacks. Each translates what it is told for the record, and nothing more.

/// The record behind `user_data`: `makeSession` has put it there, and it lives as long as the session that calls.
private func record(_ userData: UnsafeMutableRawPointer?) -> UnsafeMutablePointer<ConnectionRecord> {
    guard let userData else { preconditionFailure("the session was made without a record") }
    return userData.assumingMemoryBound(to: ConnectionRecord.self)
}

extension FrameHeader {
    fileprivate init(_ frame: UnsafePointer<nghttp2_frame>?) {
        guard let frame else { preconditionFailure("the library calls with a frame") }
        // Every member of the union `nghttp2_frame` begins with the header.
        let header = UnsafeRawPointer(frame).assumingMemoryBound(to: nghttp2_frame_hd.self).pointee
        self.init(
            kind: FrameKind(rawValue: header.type), flags: header.flags, stream: header.stream_id,
            length: header.length)
    }
}

/// Whether a frame of type HEADERS opens a stream.
private func isRequest(_ frame: UnsafePointer<nghttp2_frame>?) -> Bool {
    frame?.pointee.headers.cat == NGHTTP2_HCAT_REQUEST
}

private func onBeginHeaders(
    _: OpaquePointer?, frame: UnsafePointer<nghttp2_frame>?, userData: UnsafeMutableRawPointer?
) -> Int32 {
    record(userData).pointee.beganHeaders(isRequest: isRequest(frame))
    return 0
}

private func onHeader(
    session: OpaquePointer?, frame: UnsafePointer<nghttp2_frame>?, name: UnsafePointer<UInt8>?, nameLength: Int,
    value: UnsafePointer<UInt8>?, valueLength: Int, flags: UInt8, userData: UnsafeMutableRawPointer?
) -> Int32 {
    // Name and value are valid during the call.
    let outcome = record(userData).pointee.head.add(
        UnsafeBufferPointer(start: name, count: nameLength), UnsafeBufferPointer(start: value, count: valueLength),
        isNeverIndexed: flags & UInt8(NGHTTP2_NV_FLAG_NO_INDEX.rawValue) != 0)
    switch outcome {
    case .proceed: return 0
    case .malformed: return refuseHeaders(of: frame, session, .protocolError)
    case .excessive: return refuseHeaders(of: frame, session, .enhanceYourCalm)
    }
}

/// A field with characters that none has (RFC 9113, section 8.2.1). Without this callback, 1.52 resets the stream; later
/// versions drop the field and serve the rest.
private func onInvalidHeader(
    session: OpaquePointer?, frame: UnsafePointer<nghttp2_frame>?, _: UnsafePointer<UInt8>?, _: Int,
    _: UnsafePointer<UInt8>?, _: Int, _: UInt8, _: UnsafeMutableRawPointer?
) -> Int32 {
    refuseHeaders(of: frame, session, .protocolError)
}

/// Resets a stream in the middle of its header list. The rest is decoded, as the compression table demands, without calls.
private func refuseHeaders(
    of frame: UnsafePointer<nghttp2_frame>?, _ session: OpaquePointer?, _ code: HTTP2ErrorCode
) -> Int32 {
    // Queueing fails only without memory; the stream is then reset by what is returned.
    _ = nghttp2_submit_rst_stream(session, noFlags, FrameHeader(frame).stream, code.rawValue)
    return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE.rawValue
}

private func onFrameReceived(
    session: OpaquePointer?, frame: UnsafePointer<nghttp2_frame>?, userData: UnsafeMutableRawPointer?
) -> Int32 {
    let header = FrameHeader(frame)
    let canBe = record(userData).pointee.received(header, isRequest: header.kind == .headers && isRequest(frame))
    guard !canBe else { return 0 }
    return nghttp2_submit_rst_stream(session, noFlags, header.stream, HTTP2ErrorCode.protocolError.rawValue)
}

private func onDataReceived(
    _: OpaquePointer?, _: UInt8, stream: Int32, bytes: UnsafePointer<UInt8>?, count: Int,
    userData: UnsafeMutableRawPointer?
) -> Int32 {
    // The bytes are valid during the call.
    record(userData).pointee.received(UnsafeRawBufferPointer(start: bytes, count: count), on: stream)
    return 0
}

private func onStreamClosed(
    session: OpaquePointer?, stream: Int32, _: UInt32, userData: UnsafeMutableRawPointer?
) -> Int32 {
    // See `respond`: a number, no pointer.
    let mark = Int(bitPattern: nghttp2_session_get_stream_user_data(session, stream))
    record(userData).pointee.closed(stream, body: mark == 0 ? nil : mark - 1)
    return 0
}

private func onFrameSent(
    _: OpaquePointer?, frame: UnsafePointer<nghttp2_frame>?, userData: UnsafeMutableRawPointer?
) -> Int32 {
    let header = FrameHeader(frame)
    record(userData).pointee.sent(header)
    if header.kind == .resetStream, let frame {
        record(userData).pointee.sentFrames.reset(frame.pointee.rst_stream.error_code)
    }
    return 0
}

private func onFrameNotSent(
    _: OpaquePointer?, frame: UnsafePointer<nghttp2_frame>?, code: Int32, userData: UnsafeMutableRawPointer?
) -> Int32 {
    let header = FrameHeader(frame)
    // Other reasons are that the stream is closed or about to be.
    if header.kind == .headers, code == NGHTTP2_ERR_FRAME_SIZE_ERROR.rawValue {
        record(userData).pointee.events.append(.unsentHead(header.stream))
    }
    return 0
}

/// Tells how much of a body goes into the next frame.
private func readBody(
    session: OpaquePointer?, stream: Int32, _: UnsafeMutablePointer<UInt8>?, limit: Int,
    flags: UnsafeMutablePointer<UInt32>?, source: UnsafeMutablePointer<nghttp2_data_source>?,
    userData: UnsafeMutableRawPointer?
) -> Int {
    guard let source, let flags else { return Int(NGHTTP2_ERR_CALLBACK_FAILURE.rawValue) }
    flags.pointee |= NGHTTP2_DATA_FLAG_NO_COPY.rawValue
    switch record(userData).pointee.bodies.next(Int(source.pointee.fd), limit: limit) {
    case .bytes(let count, let isLast):
        if isLast { flags.pointee |= NGHTTP2_DATA_FLAG_EOF.rawValue }
        record(userData).pointee.sentFrames.data(count, limit: limit)
        return count
    case .lastBytes(let count, let trailers):
        flags.pointee |= NGHTTP2_DATA_FLAG_EOF.rawValue | NGHTTP2_DATA_FLAG_NO_END_STREAM.rawValue
        let status = trailers.withEntries { nghttp2_submit_trailer(session, stream, $0, $1) }
        return status == 0 ? count : Int(status)
    case .nothingYet:
        return Int(NGHTTP2_ERR_DEFERRED.rawValue)
    }
}

/// Writes a DATA frame: its header of 9 bytes, and what `readBody` has told. No callback asks for padding.
private func sendBody(
    _: OpaquePointer?, _: UnsafeMutablePointer<nghttp2_frame>?, header: UnsafePointer<UInt8>?, count: Int,
    source: UnsafeMutablePointer<nghttp2_data_source>?, userData: UnsafeMutableRawPointer?
) -> Int32 {
    guard let source else { return NGHTTP2_ERR_CALLBACK_FAILURE.rawValue }
    let record = record(userData)
    record.pointee.output.writeBytes(UnsafeRawBufferPointer(start: header, count: 9))
    record.pointee.bodies.write(count, of: Int(source.pointee.fd), to: &record.pointee.output)
    return record.pointee.isOutputFull ? NGHTTP2_ERR_PAUSE.rawValue : 0
}

extension FieldBlock {
    /// The fields as the library takes them, during the call: it copies them, and writes to none, whatever the type says.
    fileprivate borrowing func withEntries(_ body: (UnsafePointer<nghttp2_nv>?, Int) -> Int32) -> Int32 {
        bytes.withUnsafeBufferPointer { bytes in
            withUnsafeTemporaryAllocation(of: nghttp2_nv.self, capacity: entries.count) { list in
                // The block holds its entries' bytes one after the other. Without any there is nothing to point at.
                var position = UnsafeMutablePointer(mutating: bytes.baseAddress)
                for index in entries.indices {
                    let entry = entries[index]
                    let value = position?.advanced(by: entry.nameLength)
                    let flags = entry.isNeverIndexed ? NGHTTP2_NV_FLAG_NO_INDEX : NGHTTP2_NV_FLAG_NONE
                    list.initializeElement(
                        at: index,
                        to: nghttp2_nv(
                            name: position, value: value, namelen: entry.nameLength, valuelen: entry.valueLength,
                            flags: UInt8(flags.rawValue)))
                    position = value?.advanced(by: entry.valueLength)
                }
                return body(UnsafePointer(list.baseAddress), entries.count)
            }
        }
    }
}
