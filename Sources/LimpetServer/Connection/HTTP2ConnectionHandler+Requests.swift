import HTTPTypes
import Logging
import NIOCore
import _NIOFileSystem

/// The life of a request on its connection: opened, handled, answered, its body written.
extension HTTP2ConnectionHandler {
    private static let bodyTooLarge = ServerResponse.text("The body is too large.\n", status: .contentTooLarge)
    private static let bodyTooSlow = ServerResponse.text("The body comes too slowly.\n", status: .requestTimeout)
    /// RFC 9110, section 9.3.6: success would turn the stream into a tunnel.
    static let noTunnel = ServerResponse.text("This server is no proxy.\n", status: .notImplemented)
    static let headTooLarge = ServerResponse.text(
        "The header fields are too large.\n", status: .requestHeaderFieldsTooLarge)
    private static let unmetExpectation = ServerResponse.text(
        "The server knows no expectation but 100-continue.\n", status: .expectationFailed)
    fileprivate static let notFound = ServerResponse.text("Not found.\n", status: .notFound)
    private static let failed = ServerResponse.text("The server has failed.\n", status: .internalServerError)

    // MARK: Requests

    /// A request has begun whose body follows.
    func open(_ id: StreamID, _ head: HTTPRequest) throws(NGHTTP2Error) {
        let limit = server.limits.maxRequestBodyBytes
        // The number was checked before; one that does not fit in an Int is certainly too large.
        if let length = head.headerFields[.contentLength], Int(length) ?? .max > limit {
            loop.counts.hit(.requestBody)
            return try refuse(id, head, Self.bodyTooLarge)
        }
        let expectation = head.headerFields[.expect]
        if let expectation, expectation.lowercased() != "100-continue" {
            return try refuse(id, head, Self.unmetExpectation)
        }
        let body = IncomingBody(stream: id, limit: limit, awaitsContinue: expectation != nil, connection: self)
        streams.open(id, head, body, at: loop.now)
    }

    /// Answers a request that no handler gets.
    func refuse(_ id: StreamID, _ head: HTTPRequest, _ answer: ServerResponse) throws(NGHTTP2Error) {
        let exchange = exchange(id, head, RequestBody())
        let bytes = try respond(answer, to: id, isAnswerToHead: exchange.isAnswerToHead)
        server.ended(exchange, status: answer.status.code, bytes: bytes, counts: &loop.counts)
    }

    private func exchange(_ id: StreamID, _ head: HTTPRequest, _ body: RequestBody) -> Exchange {
        let request = ServerRequest(head: head, body: body, number: loop.numbers.next(), logger: server.logger)
        return Exchange(
            id: id, request: request, isAnswerToHead: head.method == .head, began: server.beginning)
    }

    /// The handler has read bytes of a body: the client may send as many more.
    func bodyWasRead(_ count: Int, on id: StreamID) {
        attempt { () throws(NGHTTP2Error) in
            try session.consume(count, on: id)
            try giveBack(unread.taken(count, ofLoop: &loop.unreadBytes))
        }
        scheduleFlush()
    }

    /// Nobody will read bytes of a body: the client may send as many more on other streams.
    func bodyWasDropped(_ count: Int) {
        attempt { () throws(NGHTTP2Error) in try giveBack(unread.taken(count, ofLoop: &loop.unreadBytes)) }
    }

    func giveBack(_ count: Int) throws(NGHTTP2Error) {
        if count > 0 { try session.consume(count) }
    }

    /// The handler waits for a body that the client keeps until it is asked for.
    func askForBody(on id: StreamID) {
        attempt { () throws(NGHTTP2Error) in
            loop.fields.write(interim: HTTPResponse.Status.continue.code)
            try session.inform(id, loop.fields)
        }
        scheduleFlush()
    }

    // MARK: Handlers

    /// A request is to be served.
    ///
    /// - Returns: `nil` if too many are.
    func start(_ request: StreamTable.Request) throws(NGHTTP2Error) -> Exchange? {
        let body = request.body.map { RequestBody($0, loop.eventLoop) } ?? RequestBody()
        let exchange = exchange(request.id, request.head, body)
        let isAdmitted = openRequests.admit(ofLoop: &loop.openRequests, limit: loop.maxOpenRequests)
        if isAdmitted, streams.start(request.id) { return exchange }
        loop.counts.hit(isAdmitted ? .liveHandlers : .openRequests)
        server.ended(exchange, status: nil, bytes: 0, counts: &loop.counts)
        try session.reset(request.id, .refusedStream)
        return nil
    }

    /// Runs handlers on this thread until one suspends, or all that is to be served is.
    ///
    /// Most handlers of a burst return without suspending: they share one task, whose making would cost more than
    /// they do. A task that has suspended serves no other request, so that it can be cancelled with its stream.
    func serve() {
        let handler = server.handler
        let connection = LoopReference(self, loop.eventLoop)
        let task = Task.immediate(executorPreference: loop.executor) {
            // A handler may have cancelled its own task.
            while !Task.isCancelled, let exchange = connection.ifOnLoop?.nextExchange() {
                await connection.serve(exchange, by: handler)
            }
        }
        streams.started(task, at: loop.now)
        // The connection was closed below the handler: nobody else would.
        if context == nil { task.cancel() }
    }

    /// A handler has returned, with all that there is to send.
    func finished(_ exchange: Exchange, _ response: ServerResponse) {
        guard isFinal(response, exchange) else { return finished(exchange, Self.failed) }
        let stream = streams.finished(exchange.id)
        stream?.close()
        var status: Int?
        var bytes = 0
        if stream != nil, state.isServing {
            status = response.status.code
            attempt { () throws(NGHTTP2Error) in
                bytes = try respond(response, to: exchange.id, isAnswerToHead: exchange.isAnswerToHead)
            }
            scheduleFlush()
        }
        server.ended(exchange, status: status, bytes: bytes, counts: &loop.counts)
        if stream == nil { abandonedHandlerReturned() }
    }

    /// A handler of a closed stream has returned.
    private func abandonedHandlerReturned() {
        countRequests()
        if context == nil { leaveIfDone() }
    }

    /// - Returns: the number of bytes in the body.
    @discardableResult
    func respond(_ response: ServerResponse, to id: StreamID, isAnswerToHead: Bool) throws(NGHTTP2Error) -> Int {
        guard case .bytes(let bytes) = response.body.content else {
            preconditionFailure("a body that is written begins with its head: see `begin`")
        }
        let hasBody = loop.fields.write(
            response, bodyLength: bytes.count, isAnswerToHead: isAnswerToHead, date: loop.dates.now())
        try session.respond(to: id, loop.fields, body: hasBody ? bytes : [])
        return hasBody ? bytes.count : 0
    }

    /// Whether the status can be the last.
    private func isFinal(_ response: ServerResponse, _ exchange: Exchange) -> Bool {
        if (200...599).contains(response.status.code) { return true }
        exchange.request.logger.error(
            "request handler answered with a status that is not final", metadata: ["status": "\(response.status)"])
        return false
    }

    fileprivate func answer(to error: any Error, _ exchange: Exchange) -> ServerResponse {
        switch error {
        case let error as ServerError where error.code == .bodyTooLarge:
            loop.counts.hit(.requestBody)
            return Self.bodyTooLarge
        case let error as ServerError where error.code == .bodyTooSlow: return Self.bodyTooSlow
        case let error as FileSystemError where error.code == .notFound: return Self.notFound
        case is CancellationError:
            exchange.request.logger.debug("request handler was cancelled")
        default:
            exchange.request.logger.error(
                "request handler failed", metadata: ["error.type": "\(type(of: error))", "error": "\(error)"])
        }
        return Self.failed
    }

    // MARK: Bodies that are written

    /// Sends the head of a response whose body follows.
    ///
    /// - Returns: where to write the body; `nil` if there is none to write: the stream is closed, or answered whole.
    fileprivate func begin(_ response: ServerResponse, for exchange: Exchange, length: Int?) -> OutgoingBody? {
        let id = exchange.id
        let body = OutgoingBody(stream: id, length: length, trailers: response.trailers, connection: self)
        guard state.isServing, streams.writes(body) else {
            finishedWriting(exchange, status: nil, bytes: 0)
            return nil
        }
        let hasBody = loop.fields.write(
            response, bodyLength: length, isAnswerToHead: exchange.isAnswerToHead, date: loop.dates.now())
        attempt { () throws(NGHTTP2Error) in
            if hasBody {
                try session.respond(to: id, loop.fields, body: body)
            } else {
                try session.respond(to: id, loop.fields, body: [])
            }
        }
        if !hasBody { finishedWriting(exchange, status: response.status.code, bytes: 0) }
        scheduleFlush()
        return hasBody ? body : nil
    }

    /// A writer has something to send that the library has asked for.
    func bodyHasMore(_ id: StreamID) {
        attempt { () throws(NGHTTP2Error) in try session.resume(id) }
        scheduleFlush()
    }

    /// The writer of a body has returned.
    fileprivate func ended(_ body: OutgoingBody, of exchange: Exchange, _ status: Int, _ failure: (any Error)?) {
        var isWritten = false
        do {
            if let failure { throw failure }
            try body.end()
            isWritten = true
        } catch {
            body.close()
            if !(error is CancellationError) {
                exchange.request.logger.error(
                    "the body of a response could not be written",
                    metadata: ["error.type": "\(type(of: error))", "error": "\(error)"])
            }
        }
        let isAwaited = finishedWriting(exchange, status: isWritten ? status : nil, bytes: body.written)
        // A stream that the client has reset is not reset in answer (RFC 9113, section 5.4.2).
        if !isWritten, isAwaited, state.isServing {
            attempt { () throws(NGHTTP2Error) in try session.reset(body.stream, .internalError) }
        }
        scheduleFlush()
    }

    /// - Returns: whether the stream was open until now.
    @discardableResult
    private func finishedWriting(_ exchange: Exchange, status: Int?, bytes: Int) -> Bool {
        let stream = streams.finished(exchange.id)
        stream?.close()
        server.ended(exchange, status: status, bytes: bytes, counts: &loop.counts)
        if stream == nil { abandonedHandlerReturned() }
        return stream != nil
    }
}

extension LoopReference<HTTP2ConnectionHandler> {
    /// Calls the handler, and answers with what it returns.
    fileprivate func serve(_ exchange: Exchange, by handler: HTTP2Server.Handler) async {
        let response: ServerResponse
        do {
            response = try await handler(exchange.request)
        } catch {
            // The task prefers this loop, but a handler may have its own idea of where it ends: here and below.
            return run { $0.finished(exchange, $0.answer(to: error, exchange)) }
        }
        if response.isWhole {
            // Not by `run` in any case: its closure would copy the response.
            guard let connection = ifOnLoop else { return run { $0.finished(exchange, response) } }
            return connection.finished(exchange, response)
        }
        switch response.body.content {
        case .bytes(let bytes):
            await write(response, for: exchange, length: bytes.count) { try await $0.write(bytes) }
        case .writer(let length, let write):
            await self.write(response, for: exchange, length: length, by: write)
        case .file(let path):
            await write(response, for: exchange, file: path)
        }
    }

    /// Answers with a body that is written while the client reads it.
    fileprivate func write(
        _ response: ServerResponse, for exchange: Exchange, length: Int?, by write: ResponseBody.Write
    ) async {
        guard (200...599).contains(response.status.code) else {
            return run { $0.finished(exchange, response) }
        }
        guard let body = await begin(response, for: exchange, length: length) else { return }
        var failure: (any Error)?
        do {
            try await write(ResponseWriter(body))
        } catch {
            failure = error
        }
        run { [failure] in $0.ended(body.value, of: exchange, response.status.code, failure) }
    }

    /// Answers with a file.
    fileprivate func write(_ response: ServerResponse, for exchange: Exchange, file path: String) async {
        var isAnswered = false
        do {
            try await FileSystem.shared.withFileHandle(forReadingAt: FilePath(path)) { file in
                let info = try await file.info()
                isAnswered = true
                guard info.type == .regular else {
                    return run { $0.finished(exchange, HTTP2ConnectionHandler.notFound) }
                }
                await write(response, for: exchange, length: Int(info.size)) { writer in
                    // As many bytes as were told, whatever becomes of the file.
                    for try await chunk in file.readChunks(in: 0..<info.size, chunkLength: .kibibytes(64)) {
                        try await writer.write(chunk)
                    }
                }
            }
        } catch {
            run { [isAnswered] connection in
                // What is left to fail is that the file is closed.
                let answer = connection.answer(to: error, exchange)
                if !isAnswered { connection.finished(exchange, answer) }
            }
        }
    }

    private func begin(
        _ response: ServerResponse, for exchange: Exchange, length: Int?
    ) async -> LoopReference<OutgoingBody>? {
        await withCheckedContinuation { begun in
            run { connection in
                let body = connection.begin(response, for: exchange, length: length)
                begun.resume(returning: body.map { LoopReference<OutgoingBody>($0, connection.loop.eventLoop) })
            }
        }
    }
}
