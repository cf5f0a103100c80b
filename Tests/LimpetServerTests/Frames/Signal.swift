/// Something that one task waits for and another does, once.
struct Signal: Sendable {
    private let stream: AsyncStream<Void>
    private let continuation: AsyncStream<Void>.Continuation

    init() {
        (stream, continuation) = AsyncStream.makeStream()
    }

    func send() { continuation.finish() }

    /// Returns when the signal was sent, or the task is cancelled.
    func wait() async {
        for await _ in stream {}
    }
}
