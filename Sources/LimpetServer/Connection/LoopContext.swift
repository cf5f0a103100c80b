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
    /// What has happened since the last tick.
    var counts = ServerCounts()
    var numbers = RequestNumbers()
    /// Bytes of requests' bodies that were not read.
    var unreadBytes = 0
    /// Open requests, and how many there may be.
    var openRequests = 0
    let maxOpenRequests: Int
    /// The time as of the last tick: exact enough for time-outs, and free.
    private(set) var now: NIODeadline

    private let tick: TimeAmount
    private var connections: [ObjectIdentifier: HTTP2ConnectionHandler] = [:]
    private var timer: RepeatedTask?

    private let metrics: ServerMetrics

    /// - Parameter loops: how many event loops the server has.
    init(_ eventLoop: any EventLoop, server: ServerContext, loops: Int = 1) {
        self.eventLoop = eventLoop
        executor = EventLoopTaskExecutor(eventLoop)
        tick = server.limits.tick
        metrics = server.metrics
        maxOpenRequests = server.limits.maxOpenRequests / loops
        now = eventLoop.now
    }

    /// A connection wants to be told the time, until it is removed.
    func add(_ connection: HTTP2ConnectionHandler) {
        connections[ObjectIdentifier(connection)] = connection
        counts.accepted += 1
        counts.connections += 1
        guard timer == nil else { return }
        now = eventLoop.now
        let context = NIOLoopBound(self, eventLoop: eventLoop)
        timer = eventLoop.scheduleRepeatedTask(initialDelay: tick, delay: tick) { _ in context.value.passTime() }
    }

    /// Tells what has been counted where no tick will: without connections.
    func settle() {
        if connections.isEmpty { metrics.take(&counts) }
    }

    private func passTime() {
        now = eventLoop.now
        // A copy: a connection that ends leaves while the others are told.
        for connection in Array(connections.values) { connection.tick() }
        metrics.take(&counts)
    }

    func remove(_ connection: HTTP2ConnectionHandler) {
        guard connections.removeValue(forKey: ObjectIdentifier(connection)) != nil else { return }
        counts.connections -= 1
        guard connections.isEmpty else { return }
        timer?.cancel()
        timer = nil
        settle()
    }
}
