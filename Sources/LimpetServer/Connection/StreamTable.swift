import HTTPTypes
import NIOCore

/// The number of a stream.
typealias StreamID = Int32

/// The streams of a connection between the head of their request and the end of their handler.
///
/// ```
///  (none) ──open──▶ receiving ──complete──▶ (none) ──started──▶ running ──finished──▶ (none): respond
///                       │                                          │
///                       │ too large, closed                        │ closed: cancel
///                       ▼                                          ▼
///                     (none)                                     (none); finished later: drop
/// ```
///
/// A stream whose whole request has come is not in the table until its handler has suspended: most never do.
struct StreamTable: ~Copyable {
    private enum Stream {
        case receiving(HTTPRequest, body: [UInt8])
        case running(Task<Void, Never>)
    }

    enum Body {
        /// What has come is kept.
        case kept
        /// The body is too large, and the stream is forgotten: answer 413.
        case tooLarge
        /// Nobody waits for the bytes.
        case unwanted
    }

    private var streams: [StreamID: Stream] = [:]
    private let maxBodyBytes: Int
    private let maxLiveHandlers: Int
    /// The stream whose handler is being started, until it suspends or returns.
    private var starting: StreamID?
    /// Handlers that have not returned yet, those of closed streams included.
    private(set) var liveHandlers = 0

    init(limits: ServerLimits) {
        maxBodyBytes = limits.maxRequestBodyBytes
        maxLiveHandlers = limits.maxLiveHandlers
    }

    /// A request has begun whose body follows.
    mutating func open(_ id: StreamID, _ head: HTTPRequest) -> Body {
        // The number was checked before; one that does not fit in an Int is certainly too large.
        if let length = head.headerFields[.contentLength], Int(length) ?? .max > maxBodyBytes { return .tooLarge }
        streams[id] = .receiving(head, body: [])
        return .kept
    }

    mutating func received(_ bytes: ByteBuffer, on id: StreamID) -> Body {
        guard case .receiving(let head, var body) = streams.removeValue(forKey: id) else { return .unwanted }
        guard body.count + bytes.readableBytes <= maxBodyBytes else { return .tooLarge }
        bytes.withUnsafeReadableBytes { body.append(contentsOf: $0) }
        streams[id] = .receiving(head, body: body)
        return .kept
    }

    /// The request is complete.
    ///
    /// - Returns: the request for the handler; `nil` if it has been answered already.
    mutating func complete(_ id: StreamID) -> ServerRequest? {
        guard case .receiving(let head, let body) = streams.removeValue(forKey: id) else { return nil }
        return ServerRequest(head: head, body: RequestBody(body))
    }

    /// - Returns: whether a handler may be started for the stream.
    mutating func start(_ id: StreamID) -> Bool {
        guard liveHandlers < maxLiveHandlers else { return false }
        liveHandlers += 1
        starting = id
        return true
    }

    /// The handler that was started last has suspended or returned.
    mutating func started(_ task: Task<Void, Never>) {
        guard let id = starting else { return }
        starting = nil
        streams[id] = .running(task)
    }

    /// A handler has returned.
    ///
    /// - Returns: whether the stream waits for its response.
    mutating func finished(_ id: StreamID) -> Bool {
        liveHandlers -= 1
        if starting == id {
            starting = nil
            return true
        }
        return streams.removeValue(forKey: id) != nil
    }

    /// A stream was reset or has ended.
    ///
    /// - Returns: the task to cancel.
    mutating func closed(_ id: StreamID) -> Task<Void, Never>? {
        guard !streams.isEmpty, case .running(let task) = streams.removeValue(forKey: id) else { return nil }
        return task
    }

    /// The connection was closed.
    ///
    /// - Returns: the tasks to cancel.
    mutating func closeAll() -> [Task<Void, Never>] {
        defer { streams.removeAll() }
        return streams.values.compactMap { stream in
            if case .running(let task) = stream { task } else { nil }
        }
    }
}
