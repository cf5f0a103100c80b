public import HTTPTypes
public import NIOCore

/// The content of a response: bytes, a file, or what a writer writes.
public struct ResponseBody: Sendable {
    /// Writes the content of a response.
    public typealias Write = @Sendable (ResponseWriter) async throws -> Void

    enum Content: Sendable {
        case bytes([UInt8])
        case file(path: String)
        case writer(length: Int?, Write)
    }

    let content: Content

    /// A body of these bytes; no bytes: no content.
    public init(_ bytes: [UInt8] = []) {
        content = .bytes(bytes)
    }

    /// A body of this text in UTF-8.
    public init(_ text: String) {
        content = .bytes(Array(text.utf8))
    }

    /// The file at this path, as it is when the handler has returned.
    ///
    /// A file that does not exist, and what is no regular file, is answered 404. The handler sets `content-type`, and
    /// answers for the path: one that a client has a say in must not lead out of where it should.
    public static func file(_ path: String) -> ResponseBody {
        ResponseBody(.file(path: path))
    }

    /// A body that is written after the response's head has been sent, while the client reads it.
    ///
    /// The writer runs in the handler's task: it is cancelled when the client goes away. If it throws, or does not write as many
    /// bytes as were told, the stream is reset, so that the client does not take a part for the whole.
    ///
    /// - Parameters:
    ///   - length: the number of bytes, if it is known: the client gets it as `content-length`.
    ///   - write: writes the body. Not called for `HEAD`.
    public static func written(length: Int? = nil, by write: @escaping Write) -> ResponseBody {
        ResponseBody(.writer(length: length, write))
    }

    private init(_ content: Content) {
        self.content = content
    }

    /// The number of bytes, as far as it is known without looking.
    var length: Int? {
        switch content {
        case .bytes(let bytes): bytes.count
        case .file: nil
        case .writer(let length, _): length
        }
    }
}

/// Writes the body of a response to the client.
public struct ResponseWriter: Sendable {
    private let body: LoopReference<OutgoingBody>

    init(_ body: LoopReference<OutgoingBody>) {
        self.body = body
    }

    /// Writes bytes, and waits while the client has to read first: about 64 KiB are kept for it.
    ///
    /// - Throws: ``ServerError`` with the code `bodyLengthDiffers` if that is more than was told; `CancellationError` if the client
    ///   has gone away.
    public func write(_ bytes: ByteBuffer) async throws {
        if let body = body.ifOnLoop {
            if try !body.write(bytes) { return }
            return try await self.body.suspend({ $0.wait($1) }, cancel: { $0.cancelWait($1) })
        }
        try await body.suspend(
            { body, waiter in
                do {
                    if try body.write(bytes) { body.wait(waiter) } else { waiter.continuation.resume() }
                } catch {
                    waiter.continuation.resume(throwing: error)
                }
            }, cancel: { $0.cancelWait($1) })
    }

    /// Writes bytes, as ``write(_:)-(ByteBuffer)`` does.
    public func write(_ bytes: [UInt8]) async throws {
        try await write(ByteBuffer(bytes: bytes))
    }

    /// Writes text in UTF-8, as ``write(_:)-(ByteBuffer)`` does.
    public func write(_ text: String) async throws {
        try await write(ByteBuffer(string: text))
    }

    /// Sets the fields that follow the body (RFC 9110, section 6.5). The last call counts.
    public func setTrailers(_ trailers: HTTPFields) {
        body.run { $0.trailers = trailers }
    }
}
