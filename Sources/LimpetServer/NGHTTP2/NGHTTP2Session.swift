import CNghttp2
import HTTPTypes
import NIOCore

/// The server's end of an HTTP/2 connection, in libnghttp2: bytes in, events out; responses in, bytes out.
///
/// This is the only file that calls C. The library calls back while it reads or writes; a callback notes what happened
/// in the ``Record`` and returns, it never runs other code.
///
/// Not thread-safe: a session belongs to its connection's event loop.
struct NGHTTP2Session: ~Copyable {
    /// Made by `init`, freed by `deinit`, never handed out.
    private let session: OpaquePointer
    /// The memory behind the `user_data` of every callback. It lives exactly as long as the session: callbacks come only
    /// from within calls to the session. It is a pointer and not a class because callbacks come in the middle of such a
    /// call; no method holds an access to `record.pointee` across one.
    private let record: UnsafeMutablePointer<Record>

    init(limits: ServerLimits) throws(NGHTTP2Error) {
        let record = UnsafeMutablePointer<Record>.allocate(capacity: 1)
        record.initialize(to: Record(head: RequestHeadBuilder(limits: limits), outputLimit: limits.outputChunk))
        let session: OpaquePointer
        do {
            session = try Self.makeSession(limits: limits, record: record)
        } catch {
            record.deinitialize(count: 1)
            record.deallocate()
            throw error
        }
        self.session = session
        self.record = record
    }

    deinit {
        nghttp2_session_del(session)
        record.deinitialize(count: 1)
        record.deallocate()
    }

    private static func makeSession(
        limits: ServerLimits, record: UnsafeMutablePointer<Record>
    ) throws(NGHTTP2Error) -> OpaquePointer {
        var options: OpaquePointer?
        try NGHTTP2Error.check(nghttp2_option_new(&options))
        defer { nghttp2_option_del(options) }
        // The connection tells what was read: flow control holds back a client whose body nobody takes.
        nghttp2_option_set_no_auto_window_update(options, 1)
        nghttp2_option_set_stream_reset_rate_limit(options, limits.resetBurst, limits.resetsPerSecond)
        nghttp2_option_set_max_continuations(options, limits.maxContinuations)
        // Closed streams are kept for RFC 7540's priority tree only, which is not used.
        nghttp2_option_set_no_closed_streams(options, 1)

        var callbacks: OpaquePointer?
        try NGHTTP2Error.check(nghttp2_session_callbacks_new(&callbacks))
        defer { nghttp2_session_callbacks_del(callbacks) }
        nghttp2_session_callbacks_set_on_begin_headers_callback(callbacks, onBeginHeaders)
        nghttp2_session_callbacks_set_on_header_callback(callbacks, onHeader)
        nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, onFrameReceived)
        nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, onDataReceived)
        nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, onStreamClosed)
        nghttp2_session_callbacks_set_on_frame_send_callback(callbacks, onFrameSent)
        nghttp2_session_callbacks_set_send_data_callback(callbacks, sendBody)

        // The session copies the callbacks and the options.
        var session: OpaquePointer?
        try NGHTTP2Error.check(nghttp2_session_server_new2(&session, callbacks, record, options))
        guard let session else { throw NGHTTP2Error(code: NGHTTP2_ERR_NOMEM.rawValue) }
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
        let entry = { (id: nghttp2_settings_id, value: Int) in
            nghttp2_settings_entry(settings_id: Int32(bitPattern: id.rawValue), value: UInt32(value))
        }
        let settings = [
            entry(NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, limits.maxConcurrentStreams),
            entry(NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, Int(limits.streamWindow)),
            entry(NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, limits.maxHeaderListBytes),
            entry(NGHTTP2_SETTINGS_NO_RFC7540_PRIORITIES, 1),
        ]
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

    /// The server has taken bytes of a body: the client may send as many more.
    mutating func consume(_ count: Int, on id: StreamID) throws(NGHTTP2Error) {
        try NGHTTP2Error.check(nghttp2_session_consume(session, id, count))
    }

    /// The server does not want bytes of a body: the client may send as many more on other streams.
    mutating func discard(_ count: Int) throws(NGHTTP2Error) {
        try NGHTTP2Error.check(nghttp2_session_consume_connection(session, count))
    }

    // MARK: Output

    /// Queues a response. A stream that is closed already is left alone.
    ///
    /// - Parameters:
    ///   - isEarly: the request is not complete yet: what is left of it is called off behind the response with
    ///     RST_STREAM NO_ERROR (RFC 9113, section 8.1).
    mutating func respond(
        to id: StreamID, _ fields: borrowing FieldBlock, body: [UInt8], isEarly: Bool
    ) throws(NGHTTP2Error) {
        if isEarly { record.pointee.earlyResponses.append(id) }
        guard !body.isEmpty else {
            return try submit(fields, on: id, nil)
        }
        let slot = record.pointee.bodies.insert(body)
        // The number of the slot + 1 in place of a pointer: it is never dereferenced, and a stream without has `nil`.
        let mark = UnsafeMutableRawPointer(bitPattern: slot + 1)
        guard nghttp2_session_set_stream_user_data(session, id, mark) == 0 else {
            record.pointee.bodies.remove(slot)
            return
        }
        var provider = nghttp2_data_provider(
            source: nghttp2_data_source(fd: Int32(slot)), read_callback: readBody)
        try submit(fields, on: id, &provider)
    }

    private func submit(
        _ fields: borrowing FieldBlock, on id: StreamID, _ provider: UnsafePointer<nghttp2_data_provider>?
    ) throws(NGHTTP2Error) {
        let entries = fields.entries
        let status = fields.bytes.withUnsafeBufferPointer { bytes in
            withUnsafeTemporaryAllocation(of: nghttp2_nv.self, capacity: entries.count) { list in
                // The block holds its entries' bytes one after the other, and at least a status.
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
                // Copies the fields; it does not write to them, whatever the type of the pointers says.
                return nghttp2_submit_response(session, id, list.baseAddress, entries.count, provider)
            }
        }
        try NGHTTP2Error.check(status)
    }

    /// Resets a stream.
    mutating func reset(_ id: StreamID, _ code: HTTP2ErrorCode) throws(NGHTTP2Error) {
        try NGHTTP2Error.check(nghttp2_submit_rst_stream(session, noFlags, id, code.rawValue))
    }

    /// Queues the first GOAWAY of a drain, and a PING behind it.
    mutating func noticeShutdown() throws(NGHTTP2Error) {
        try NGHTTP2Error.check(nghttp2_submit_shutdown_notice(session))
        // Not submitted yet: the library would send it first.
        record.pointee.isPingDue = true
    }

    /// Queues the GOAWAY that names the last stream which was served; streams after it are ignored.
    mutating func refuseNewStreams() throws(NGHTTP2Error) {
        let last = nghttp2_session_get_last_proc_stream_id(session)
        try NGHTTP2Error.check(
            nghttp2_submit_goaway(session, noFlags, last, HTTP2ErrorCode.noError.rawValue, nil, 0))
    }

    /// Queues a GOAWAY after which the session is finished.
    mutating func terminate(_ code: HTTP2ErrorCode) throws(NGHTTP2Error) {
        try NGHTTP2Error.check(nghttp2_session_terminate_session(session, code.rawValue))
    }

    /// Appends what is to be sent next, until there are `outputChunk` bytes or nothing is left.
    ///
    /// - Returns: whether more may be left.
    mutating func write(to output: inout ByteBuffer) throws(NGHTTP2Error) -> Bool {
        swap(&record.pointee.output, &output)
        defer { swap(&record.pointee.output, &output) }
        repeat {
            var bytes: UnsafePointer<UInt8>?
            let count = nghttp2_session_mem_send(session, &bytes)
            try NGHTTP2Error.check(Int32(clamping: count))
            if count > 0 {
                // Valid until the next call.
                record.pointee.output.writeBytes(UnsafeRawBufferPointer(start: bytes, count: count))
            } else if !record.pointee.isOutputFull, try !submitFollowers() {
                return false
            }
        } while !record.pointee.isOutputFull
        return true
    }

    /// Queues what had to wait until everything before it was written.
    ///
    /// - Returns: whether there was anything.
    private func submitFollowers() throws(NGHTTP2Error) -> Bool {
        if record.pointee.isPingDue {
            record.pointee.isPingDue = false
            try NGHTTP2Error.check(nghttp2_submit_ping(session, noFlags, nil))
            return true
        }
        guard let id = record.pointee.answeredRequests.popLast() else { return false }
        try NGHTTP2Error.check(
            nghttp2_submit_rst_stream(session, noFlags, id, HTTP2ErrorCode.noError.rawValue))
        return true
    }

    /// Whether nothing will be read or written any more: close the connection.
    var isFinished: Bool {
        nghttp2_session_want_read(session) == 0 && nghttp2_session_want_write(session) == 0
    }

    /// The number of frames that wait to be sent, bodies not counted.
    var queuedFrames: Int { nghttp2_session_get_outbound_queue_size(session) }
}

/// An error of the library. Its description names no data of the client.
struct NGHTTP2Error: Error, CustomStringConvertible {
    let code: Int32

    static func check(_ status: Int32) throws(NGHTTP2Error) {
        if status < 0 { throw NGHTTP2Error(code: status) }
    }

    /// What the client is told.
    var http2Code: HTTP2ErrorCode {
        switch nghttp2_error(rawValue: code) {
        case NGHTTP2_ERR_BAD_CLIENT_MAGIC: .protocolError
        // -905: too many CONTINUATION frames; has a name only from 1.61 on.
        case NGHTTP2_ERR_FLOODED, nghttp2_error(rawValue: -905): .enhanceYourCalm
        default: .internalError
        }
    }

    // A static text of the library for every number.
    var description: String { String(cString: nghttp2_strerror(code)) }
}

/// What the callbacks of one session have noted.
private struct Record {
    var events: [HTTP2Event] = []
    /// What is being read.
    var input = ByteBuffer()
    /// What is being written.
    var output = ByteBuffer()
    var head: RequestHeadBuilder
    var bodies = ResponseBodies()
    /// Streams whose response was queued before their request was complete.
    var earlyResponses: [StreamID] = []
    /// Those of them whose response has been sent whole.
    var answeredRequests: [StreamID] = []
    /// A PING has to follow what is queued.
    var isPingDue = false
    let outputLimit: Int

    var isOutputFull: Bool { output.readableBytes >= outputLimit }
}

private let noFlags = UInt8(NGHTTP2_FLAG_NONE.rawValue)

/// The record behind `user_data`: `makeSession` has put it there, and it lives as long as the session that calls.
private func record(_ userData: UnsafeMutableRawPointer?) -> UnsafeMutablePointer<Record> {
    guard let userData else { preconditionFailure("the session was made without a record") }
    return userData.assumingMemoryBound(to: Record.self)
}

/// The header of a frame. Every member of the union `nghttp2_frame` begins with it.
private func header(_ frame: UnsafePointer<nghttp2_frame>?) -> nghttp2_frame_hd {
    guard let frame else { preconditionFailure("the library calls with a frame") }
    return UnsafeRawPointer(frame).assumingMemoryBound(to: nghttp2_frame_hd.self).pointee
}

/// Whether a frame of type HEADERS opens a stream.
private func isRequest(_ frame: UnsafePointer<nghttp2_frame>?) -> Bool {
    frame?.pointee.headers.cat == NGHTTP2_HCAT_REQUEST
}

private func onBeginHeaders(
    _: OpaquePointer?, frame: UnsafePointer<nghttp2_frame>?, userData: UnsafeMutableRawPointer?
) -> Int32 {
    record(userData).pointee.head.begin(isTrailers: !isRequest(frame))
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
    let code: HTTP2ErrorCode
    switch outcome {
    case .proceed: return 0
    case .malformed: code = .protocolError
    case .excessive: code = .enhanceYourCalm
    }
    // The rest of the list is decoded, as the compression table demands, without calls. Queueing the reset fails only
    // without memory; the stream is then reset by what is returned.
    _ = nghttp2_submit_rst_stream(session, noFlags, header(frame).stream_id, code.rawValue)
    return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE.rawValue
}

private func onFrameReceived(
    _: OpaquePointer?, frame: UnsafePointer<nghttp2_frame>?, userData: UnsafeMutableRawPointer?
) -> Int32 {
    let record = record(userData)
    let header = header(frame)
    let endsStream = header.flags & UInt8(NGHTTP2_FLAG_END_STREAM.rawValue) != 0
    switch nghttp2_frame_type(rawValue: UInt32(header.type)) {
    case NGHTTP2_HEADERS where isRequest(frame):
        guard let head = record.pointee.head.finish() else { return NGHTTP2_ERR_CALLBACK_FAILURE.rawValue }
        if record.pointee.head.isOversized {
            record.pointee.events.append(.oversizedRequest(header.stream_id, head.method, isComplete: endsStream))
        } else {
            record.pointee.events.append(.request(header.stream_id, head, isComplete: endsStream))
        }
    case NGHTTP2_HEADERS where endsStream, NGHTTP2_DATA where endsStream:
        record.pointee.events.append(.endOfRequest(header.stream_id))
    case NGHTTP2_PING where header.flags & UInt8(NGHTTP2_FLAG_ACK.rawValue) != 0:
        record.pointee.events.append(.pingAnswered)
    default:
        break
    }
    return 0
}

private func onDataReceived(
    _: OpaquePointer?, _: UInt8, stream: Int32, bytes: UnsafePointer<UInt8>?, count: Int,
    userData: UnsafeMutableRawPointer?
) -> Int32 {
    let record = record(userData)
    let piece = UnsafeRawBufferPointer(start: bytes, count: count)
    // The library hands out a part of what it was given to read: share it instead of copying it.
    let offset = record.pointee.input.withUnsafeReadableBytes { input -> Int? in
        guard let start = input.baseAddress, let address = piece.baseAddress else { return nil }
        let offset = address - start
        return offset >= 0 && offset + count <= input.count ? offset : nil
    }
    let slice = offset.flatMap { offset in
        record.pointee.input.getSlice(at: record.pointee.input.readerIndex + offset, length: count)
    }
    record.pointee.events.append(.body(stream, slice ?? ByteBuffer(bytes: piece)))
    return 0
}

private func onStreamClosed(
    session: OpaquePointer?, stream: Int32, _: UInt32, userData: UnsafeMutableRawPointer?
) -> Int32 {
    let record = record(userData)
    // See `respond`: a number, no pointer.
    let mark = Int(bitPattern: nghttp2_session_get_stream_user_data(session, stream))
    if mark != 0 { record.pointee.bodies.remove(mark - 1) }
    if !record.pointee.earlyResponses.isEmpty { record.pointee.earlyResponses.removeAll { $0 == stream } }
    record.pointee.events.append(.closed(stream))
    return 0
}

private func onFrameSent(
    _: OpaquePointer?, frame: UnsafePointer<nghttp2_frame>?, userData: UnsafeMutableRawPointer?
) -> Int32 {
    let record = record(userData)
    guard !record.pointee.earlyResponses.isEmpty else { return 0 }
    let header = header(frame)
    let type = nghttp2_frame_type(rawValue: UInt32(header.type))
    guard type == NGHTTP2_HEADERS || type == NGHTTP2_DATA,
        header.flags & UInt8(NGHTTP2_FLAG_END_STREAM.rawValue) != 0,
        let index = record.pointee.earlyResponses.firstIndex(of: header.stream_id)
    else { return 0 }
    record.pointee.earlyResponses.remove(at: index)
    record.pointee.answeredRequests.append(header.stream_id)
    return 0
}

/// Tells how much of a body goes into the next frame.
private func readBody(
    _: OpaquePointer?, _: Int32, _: UnsafeMutablePointer<UInt8>?, limit: Int,
    flags: UnsafeMutablePointer<UInt32>?, source: UnsafeMutablePointer<nghttp2_data_source>?,
    userData: UnsafeMutableRawPointer?
) -> Int {
    guard let source, let flags else { return Int(NGHTTP2_ERR_CALLBACK_FAILURE.rawValue) }
    let left = record(userData).pointee.bodies.bytesLeft(Int(source.pointee.fd))
    flags.pointee |= NGHTTP2_DATA_FLAG_NO_COPY.rawValue
    if left <= limit { flags.pointee |= NGHTTP2_DATA_FLAG_EOF.rawValue }
    return min(left, limit)
}

/// Writes a DATA frame: its header of 9 bytes and as much of the body as `readBody` has told. There is no padding,
/// as no callback asks for any.
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
