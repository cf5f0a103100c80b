import DequeModule
import HTTPTypes
import NIOCore

/// The body of a request while it comes: what has been received and not been read yet.
///
/// The client may send as much as the stream's window holds; reading opens it again. Confined to its connection's event
/// loop.
final class IncomingBody {
    private enum End {
        case open
        case complete
        case failed(any Error)
    }

    enum Next {
        case bytes(ByteBuffer)
        case end
        case nothingYet
    }

    let stream: StreamID
    private var chunks: Deque<ByteBuffer> = []
    private var waiters: Deque<Waiter<ByteBuffer?>> = []
    private var end = End.open
    private let limit: Int
    /// The client waits for an interim response before it sends the body (RFC 9110, section 10.1.1).
    private var awaitsContinue: Bool
    /// Whom to tell what was read; `nil` once the stream is gone.
    private var connection: HTTP2ConnectionHandler?
    /// Bytes that have come.
    private(set) var received = 0
    /// Bytes that have come and were not read.
    private(set) var unread = 0
    private(set) var trailers: HTTPFields?
    private var pace = TransferPace()

    /// - Parameter limit: how many bytes the server accepts.
    init(stream: StreamID, limit: Int, awaitsContinue: Bool, connection: HTTP2ConnectionHandler?) {
        self.stream = stream
        self.limit = limit
        self.awaitsContinue = awaitsContinue
        self.connection = connection
    }

    /// Whether the client sends too slowly what the handler waits for.
    func isTooSlow(at now: NIODeadline, _ limits: ServerLimits) -> Bool {
        guard !waiters.isEmpty, limits.minBytesPerSecond > 0 else {
            pace.pause()
            return false
        }
        return pace.isTooSlow(
            moved: received, at: now, interval: limits.bodyTimeout, rate: limits.minBytesPerSecond)
    }

    // MARK: The connection's side

    /// - Returns: whether the bytes are kept; if not, nobody will read them.
    func append(_ bytes: ByteBuffer) -> Bool {
        guard case .open = end else { return false }
        awaitsContinue = false
        received += bytes.readableBytes
        guard received <= limit else {
            fail(ServerError.bodyTooLarge(limit))
            return false
        }
        if let waiter = waiters.popFirst() {
            waiter.continuation.resume(returning: bytes)
            connection?.bodyWasRead(bytes.readableBytes, on: stream)
        } else {
            unread += bytes.readableBytes
            keep(bytes)
        }
        return true
    }

    /// Bytes share what was read from the socket in one go, up to 64 KiB: a client that sends a few at a time must not make all of that
    /// stay.
    private func keep(_ bytes: ByteBuffer) {
        guard bytes.readableBytes < bytes.storageCapacity / 2 else { return chunks.append(bytes) }
        if let last = chunks.indices.last, chunks[last].readableBytes + bytes.readableBytes <= Self.joinedChunk {
            chunks[last].writeImmutableBuffer(bytes)
        } else {
            chunks.append(ByteBuffer(bytes: bytes.readableBytesView))
        }
    }

    /// Small pieces are joined up to this size.
    private static let joinedChunk = 16 * 1024

    func complete(trailers: HTTPFields?) {
        guard case .open = end else { return }
        self.trailers = trailers
        end = .complete
        waiters.resumeAll(with: .success(nil))
    }

    /// What has not come will not come, and what was not read is gone.
    func fail(_ error: any Error) {
        guard case .open = end else { return }
        end = .failed(error)
        drop()
        waiters.resumeAll(with: .failure(error))
    }

    /// The stream is gone, or its handler has returned. A part that was not read is gone with it: nobody is to take the rest for
    /// the whole.
    func close() {
        if unread > 0 { end = .open }
        fail(CancellationError())
        connection = nil
    }

    private func drop() {
        if unread > 0 { connection?.bodyWasDropped(unread) }
        unread = 0
        chunks.removeAll()
    }

    // MARK: The reader's side

    func next() throws -> Next {
        if let bytes = chunks.popFirst() {
            unread -= bytes.readableBytes
            connection?.bodyWasRead(bytes.readableBytes, on: stream)
            return .bytes(bytes)
        }
        switch end {
        case .open: return .nothingYet
        case .complete: return .end
        case .failed(let error): throw error
        }
    }

    /// Waits for bytes or the end.
    func wait(_ waiter: Waiter<ByteBuffer?>) {
        do {
            switch try next() {
            case .bytes(let bytes): waiter.continuation.resume(returning: bytes)
            case .end: waiter.continuation.resume(returning: nil)
            case .nothingYet:
                waiters.append(waiter)
                if awaitsContinue {
                    awaitsContinue = false
                    connection?.askForBody(on: stream)
                }
            }
        } catch {
            waiter.continuation.resume(throwing: error)
        }
    }

    func cancelWait(_ name: WaiterName) { waiters.cancel(name) }
}
