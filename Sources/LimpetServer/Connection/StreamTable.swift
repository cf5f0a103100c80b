import HTTPTypes
import NIOCore

/// The number of a stream.
typealias StreamID = Int32

/// The streams of a connection between the head of their request and the end of their handler.
///
/// ```
///  (none) ──open──▶ arriving ──complete, or end of the burst──▶ start
///    │                  │ closed                                  │
///    │ a request        ▼                                         ▼
///    │ without body   (none)          ┌─── finished ─── running ──── started ──▶ suspended
///    └───────────── start ──▶         ▼                                           │  │ closed: cancel
///                                   (none): respond  ◀──────── finished ──────────┘  ▼
///                                                                            (none); finished later: drop
/// ```
///
/// A request whose body follows waits for the rest of what was read in one go: often the body is there as well, and is read without
/// waiting. A request without body is not in the table until its handler has suspended: most never do.
struct StreamTable: ~Copyable {
    /// A request for its handler.
    struct Request {
        let id: StreamID
        let head: HTTPRequest
        let body: IncomingBody?
    }

    /// What belongs to a stream. Whoever takes it out of the table closes it.
    struct Stream {
        fileprivate var incoming: IncomingBody?
        fileprivate var outgoing: OutgoingBody?
        fileprivate var task: Task<Void, Never>?
        /// When its handler suspended, or its body began to come.
        fileprivate(set) var began = NIODeadline.distantFuture

        /// Nobody is to go on with the stream: neither its handler, if that is still running, nor who waits for bytes.
        func close() {
            task?.cancel()
            incoming?.close()
            outgoing?.close()
        }
    }

    private var streams: [StreamID: Stream] = [:]
    private var arriving: [Request] = []
    private let maxLiveHandlers: Int
    /// The stream whose handler is being started, until it suspends or returns.
    private var starting: StreamID?
    /// Handlers that have not returned yet, those of closed streams included.
    private(set) var liveHandlers = 0
    /// Those of closed streams alone.
    private(set) var abandonedHandlers = 0

    init(limits: ServerLimits) {
        maxLiveHandlers = limits.maxLiveHandlers
    }

    /// Gives back the memory of streams that are gone, if none is left.
    mutating func trim() {
        if streams.isEmpty { streams = [:] }
    }

    // MARK: Requests

    /// A request has begun whose body follows.
    mutating func open(_ id: StreamID, _ head: HTTPRequest, _ body: IncomingBody, at now: NIODeadline) {
        streams[id] = Stream(incoming: body, began: now)
        arriving.append(Request(id: id, head: head, body: body))
    }

    /// The body of a request that is read, or will be; `nil`: nobody wants what comes.
    func body(_ id: StreamID) -> IncomingBody? {
        streams[id]?.incoming
    }

    /// The request is complete.
    ///
    /// - Returns: the request, if its handler has not been started yet.
    mutating func complete(_ id: StreamID) -> Request? {
        guard let index = arriving.firstIndex(where: { $0.id == id }) else { return nil }
        return arriving.remove(at: index)
    }

    /// What was read in one go has been handled.
    ///
    /// - Returns: the requests that begin without their whole body.
    mutating func takeArriving() -> [Request] {
        if arriving.isEmpty { return [] }
        defer { arriving.removeAll() }
        return arriving
    }

    // MARK: Handlers

    /// - Returns: whether a handler may be started for the stream.
    mutating func start(_ id: StreamID) -> Bool {
        guard liveHandlers < maxLiveHandlers else { return false }
        liveHandlers += 1
        starting = id
        return true
    }

    /// The handler that was started last has suspended or returned.
    mutating func started(_ task: Task<Void, Never>, at now: NIODeadline) {
        guard let id = starting else { return }
        starting = nil
        streams[id, default: Stream(began: now)].task = task
    }

    /// A handler has returned, and writes the body of its response.
    ///
    /// - Returns: whether the stream waits for its response.
    mutating func writes(_ body: OutgoingBody) -> Bool {
        guard starting == body.stream || streams[body.stream] != nil else { return false }
        streams[body.stream, default: Stream()].outgoing = body
        return true
    }

    /// A handler is done.
    ///
    /// - Returns: what is left of the stream; `nil` if nobody waits for the response.
    mutating func finished(_ id: StreamID) -> Stream? {
        liveHandlers -= 1
        let isStarting = starting == id
        if isStarting { starting = nil }
        var left = streams.isEmpty ? nil : streams.removeValue(forKey: id)
        // It has returned: there is nothing to cancel, and what it has written is on its way.
        left?.task = nil
        left?.outgoing = nil
        if left == nil, !isStarting { abandonedHandlers -= 1 }
        return left ?? (isStarting ? Stream() : nil)
    }

    // MARK: The end of streams

    /// A stream was reset or has ended.
    mutating func closed(_ id: StreamID) -> Stream? {
        guard !streams.isEmpty, let stream = streams.removeValue(forKey: id) else { return nil }
        arriving.removeAll { $0.id == id }
        if stream.task != nil { abandonedHandlers += 1 }
        return stream
    }

    /// The connection was closed.
    mutating func closeAll() -> [Stream] {
        arriving.removeAll()
        abandonedHandlers = liveHandlers
        starting = nil
        defer { streams.removeAll() }
        return Array(streams.values)
    }

    // MARK: Time

    /// The requests whose handlers wait too long for their bodies.
    func slowBodies(at now: NIODeadline, _ limits: ServerLimits) -> [IncomingBody] {
        streams.values.compactMap { stream in
            guard let body = stream.incoming, body.isTooSlow(at: now, limits) else { return nil }
            return body
        }
    }
}
