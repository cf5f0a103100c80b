import DequeModule
import HTTPTypes
import NIOCore

/// The body of a response while its writer writes it: what has been written and not sent yet.
///
/// Confined to its connection's event loop.
final class OutgoingBody {
    let stream: StreamID
    private var chunks: Deque<ByteBuffer> = []
    private var waiters: Deque<Waiter<Void>> = []
    /// The fields that follow.
    var trailers: HTTPFields
    private var isEnded = false
    /// Bytes that wait to be sent.
    private(set) var waiting = 0
    /// Bytes that were written.
    private(set) var written = 0
    /// Bytes that may still be written, if their number was told.
    private var left: Int?
    /// The library has asked in vain: it has to be told when there is more.
    private var isStarved = false
    /// Whom to tell that there is more; `nil` once there will be none, or the stream is gone.
    private var connection: HTTP2ConnectionHandler?

    /// Bytes that may wait before the writer has to.
    static let highWater = 64 * 1024

    /// - Parameter length: the number of bytes, if the client was told.
    init(stream: StreamID, length: Int?, trailers: HTTPFields, connection: HTTP2ConnectionHandler?) {
        self.stream = stream
        self.trailers = trailers
        self.connection = connection
        left = length
    }

    // MARK: The writer's side

    /// - Returns: whether the writer has to wait before it writes on.
    func write(_ bytes: ByteBuffer) throws -> Bool {
        guard connection != nil else { throw CancellationError() }
        guard bytes.readableBytes > 0 else { return false }
        if let left {
            guard bytes.readableBytes <= left else {
                throw ServerError(.bodyLengthDiffers, "the response's body has more bytes than were told")
            }
            self.left = left - bytes.readableBytes
        }
        waiting += bytes.readableBytes
        written += bytes.readableBytes
        chunks.append(bytes)
        feed()
        return waiting >= Self.highWater
    }

    /// The writer has returned.
    func end() throws {
        if let left, left > 0 {
            throw ServerError(.bodyLengthDiffers, "the response's body has fewer bytes than were told")
        }
        isEnded = true
        feed()
        connection = nil
    }

    /// Tells the library, once, that what it asked for in vain is there.
    private func feed() {
        guard isStarved else { return }
        isStarved = false
        connection?.bodyHasMore(stream)
    }

    /// The writer waits until the client has read.
    func wait(_ waiter: Waiter<Void>) {
        guard connection != nil else { return waiter.continuation.resume(throwing: CancellationError()) }
        if waiting < Self.highWater { return waiter.continuation.resume() }
        waiters.append(waiter)
    }

    func cancelWait(_ name: WaiterName) { waiters.cancel(name) }

    /// Lets the writer go on.
    func wake() { waiters.resumeAll(with: .success(())) }

    /// The stream is gone, or the writer has failed.
    func close() {
        connection = nil
        chunks.removeAll()
        waiting = 0
        waiters.resumeAll(with: .failure(CancellationError()))
    }

    // MARK: The session's side

    func next(limit: Int) -> ResponseBodies.Next {
        isStarved = waiting == 0 && !isEnded
        if isStarved { return .nothingYet }
        guard isEnded, waiting <= limit else { return .bytes(min(waiting, limit), isLast: false) }
        if trailers.isEmpty { return .bytes(waiting, isLast: true) }
        return .lastBytes(waiting, trailers: FieldBlock(trailers: trailers))
    }

    /// Appends the next bytes to what is written.
    ///
    /// - Returns: whether the writer waits for it.
    func write(_ count: Int, to output: inout ByteBuffer) -> Bool {
        var left = count
        while left > 0, var chunk = chunks.popFirst() {
            if let part = chunk.readSlice(length: min(left, chunk.readableBytes)) {
                left -= part.readableBytes
                output.writeImmutableBuffer(part)
            }
            if chunk.readableBytes > 0 { chunks.prepend(chunk) }
        }
        waiting -= count
        return !waiters.isEmpty && waiting < Self.highWater / 2
    }
}
