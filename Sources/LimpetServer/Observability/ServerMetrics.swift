import Limpet
import Metrics

/// Every metric of the server, by the name under which a backend of swift-metrics gets it.
///
/// What happens is counted in ``ServerCounts``, for each event loop apart, and handed over once a second: a request costs
/// a few additions.
final class ServerMetrics: Sendable {
    /// Connections that are open.
    private let connections: Meter
    /// Streams that are open.
    private let streams: Meter
    private let accepted: Counter
    /// By the first digit of the status; 0: the client went away before it was answered.
    private let requests: [Counter]
    private let receivedBytes: Counter
    private let sentBytes: Counter
    private let resetsByClient: Counter
    private let resetsByServer: Counter
    private let duration: Timer
    private let factory: any MetricsFactory
    /// By ``ServerLimit``, made when one is first hit.
    private let limitHits = Locked<[ServerLimit: Counter]>([:])

    init(_ factory: any MetricsFactory) {
        self.factory = factory
        connections = Meter(label: "limpet_server_connections", factory: factory)
        streams = Meter(label: "limpet_server_streams", factory: factory)
        accepted = Counter(label: "limpet_server_connections_total", factory: factory)
        requests = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"].map {
            Counter(label: "limpet_server_requests_total", dimensions: [("status", $0)], factory: factory)
        }
        receivedBytes = Counter(label: "limpet_server_received_bytes_total", factory: factory)
        sentBytes = Counter(label: "limpet_server_sent_bytes_total", factory: factory)
        let resets = { Counter(label: "limpet_server_resets_total", dimensions: [("by", $0)], factory: factory) }
        resetsByClient = resets("client")
        resetsByServer = resets("server")
        duration = Timer(label: "limpet_server_request_duration_seconds", factory: factory)
    }

    /// Whether anybody wants to know: without a backend no clock is read.
    var isWanted: Bool { !(factory is NOOPMetricsHandler) }

    func record(nanoseconds: Int64) {
        duration.recordNanoseconds(nanoseconds)
    }

    /// Hands over what was counted, and begins again.
    func take(_ counts: inout ServerCounts) {
        let new = counts
        counts = ServerCounts()
        move(connections, by: new.connections)
        move(streams, by: new.streams)
        add(new.accepted, to: accepted)
        for (counter, count) in zip(requests, new.requests) { add(count, to: counter) }
        add(new.receivedBytes, to: receivedBytes)
        add(new.sentBytes, to: sentBytes)
        add(new.resetsByClient, to: resetsByClient)
        add(new.resetsByServer, to: resetsByServer)
        for (limit, count) in new.limitHits { add(count, to: counter(limit)) }
    }

    /// A meter takes no negative numbers.
    private func move(_ meter: Meter, by change: Int) {
        if change > 0 { meter.increment(by: Double(change)) }
        if change < 0 { meter.decrement(by: Double(-change)) }
    }

    private func add(_ count: Int, to counter: Counter) {
        if count > 0 { counter.increment(by: count) }
    }

    private func counter(_ limit: ServerLimit) -> Counter {
        limitHits.withLock { counters in
            if let counter = counters[limit] { return counter }
            let counter = Counter(
                label: "limpet_server_limit_hits_total", dimensions: [("limit", limit.rawValue)], factory: factory)
            counters[limit] = counter
            return counter
        }
    }
}

/// What has happened on one event loop since it was last told. Confined to that loop.
struct ServerCounts {
    /// By how many there are more, or fewer.
    var connections = 0
    var streams = 0
    var accepted = 0
    private(set) var requests = [0, 0, 0, 0, 0, 0]
    var receivedBytes = 0
    private(set) var sentBytes = 0
    var resetsByClient = 0
    private(set) var resetsByServer = 0
    private(set) var limitHits: [ServerLimit: Int] = [:]

    /// A request is done.
    ///
    /// - Parameter status: what it was answered; `nil`: the client went away before.
    mutating func answered(_ status: Int?) {
        requests[(status ?? 0) / 100] += 1
    }

    /// So much was sent.
    mutating func sent(_ bytes: Int, resets: Int) {
        sentBytes += bytes
        resetsByServer += resets
    }

    mutating func hit(_ limit: ServerLimit) {
        limitHits[limit, default: 0] += 1
    }
}
