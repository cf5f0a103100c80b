public import HTTPTypes
public import NIOCore

/// The content of a request, as it comes.
///
/// ```swift
/// for try await piece in request.body { hash.update(data: piece.readableBytesView) }
/// ```
///
/// A handler that does not read holds back the client: it may send as much as the stream's window holds, and no more until
/// something is read. A body is read once; tasks that read it at the same time share its pieces.
///
/// Reading throws ``ServerError`` with the code `bodyTooLarge` if there is more than `server.maxRequestBodyBytes`, with
/// `bodyTooSlow` if the client stops sending, and `CancellationError` if the stream or the connection has ended.
/// A handler that lets the first two pass answers 413 and 408.
public struct RequestBody: AsyncSequence, Sendable {
    fileprivate enum Source {
        case bytes([UInt8])
        case incoming(LoopReference<IncomingBody>)
    }

    private let source: Source

    /// Makes a body, for the tests of a handler.
    public init(_ bytes: [UInt8] = []) {
        source = .bytes(bytes)
    }

    init(_ incoming: IncomingBody, _ eventLoop: any EventLoop) {
        source = .incoming(LoopReference(incoming, eventLoop))
    }

    /// All bytes of the body that have not been read yet.
    ///
    /// - Parameter maxBytes: how many bytes the handler accepts.
    /// - Throws: ``ServerError`` with the code `bodyTooLarge` if there are more; what reading throws.
    public func collect(upTo maxBytes: Int) async throws -> [UInt8] {
        var collected: [UInt8] = []
        for try await piece in self {
            guard collected.count + piece.readableBytes <= maxBytes else { throw ServerError.bodyTooLarge(maxBytes) }
            collected.append(contentsOf: piece.readableBytesView)
        }
        return collected
    }

    /// The fields behind the body (RFC 9110, section 6.5), once its end has been read; `nil` if there are none.
    public var trailers: HTTPFields? {
        get async throws {
            guard case .incoming(let body) = source else { return nil }
            if let body = body.ifOnLoop { return body.trailers }
            return try await body.suspend({ $1.continuation.resume(returning: $0.trailers) }, cancel: { _, _ in })
        }
    }

    /// Reads the body from where the last reader left off.
    public func makeAsyncIterator() -> AsyncIterator {
        AsyncIterator(source: source)
    }

    /// Reads the pieces of a body as they come.
    public struct AsyncIterator: AsyncIteratorProtocol {
        private var source: Source

        fileprivate init(source: Source) {
            self.source = source
        }

        /// The next piece, as large as it came; `nil` at the end.
        public mutating func next(isolation: isolated (any Actor)? = #isolation) async throws -> ByteBuffer? {
            switch source {
            case .bytes(let bytes):
                source = .bytes([])
                return bytes.isEmpty ? nil : ByteBuffer(bytes: bytes)
            case .incoming(let body):
                switch try body.ifOnLoop?.next() {
                case .bytes(let bytes): return bytes
                case .end: return nil
                case .nothingYet, nil:
                    return try await body.suspend({ $0.wait($1) }, cancel: { $0.cancelWait($1) })
                }
            }
        }
    }
}
