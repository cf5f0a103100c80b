import NIOCore

/// What the connections of one event loop share. Confined to that loop.
final class LoopContext {
    let eventLoop: any EventLoop
    let executor: EventLoopTaskExecutor
    var dates = DateCache()
    /// The header fields of the response that is being submitted.
    var fields = FieldBlock()
    /// The bytes that are being written: one buffer for all connections, so that an idle one keeps none. A write that
    /// the kernel does not take at once keeps it, and the next one gets a new one.
    var output = ByteBuffer()

    init(_ eventLoop: any EventLoop) {
        self.eventLoop = eventLoop
        executor = EventLoopTaskExecutor(eventLoop)
    }
}
