import HTTPTypes
import Limpet
import LimpetMemcached
import Logging

extension SessionKey<Int> {
    static var visits: Self { Self("visits") }
}

struct Answer {
    var fields: HTTPFields = [:]
}

/// One node of a cluster in this process, with connections of its own.
final class Node: Sendable {
    let store: RecordingStore
    let sessions: SessionManager

    init(
        _ name: String, memcached: String, mode: SessionConfiguration.Mode = .sticky,
        lock: SessionConfiguration.Lock.Scope = .node
    ) throws {
        var addresses = MemcachedConfiguration()
        addresses.servers = [memcached]
        var logger = Logger(label: "benchmark")
        logger.logLevel = .warning
        var configuration = SessionConfiguration()
        configuration.node = name
        configuration.mode = mode
        configuration.lock.scope = lock
        configuration.store.kind = .memcached
        store = RecordingStore(
            try MemcachedStore(configuration: addresses, timeout: configuration.store.timeout, logger: logger))
        sessions = try SessionManager(store: store, configuration: configuration, logger: logger)
    }

    /// Sends a request; what it asked the store.
    @discardableResult
    func request(
        _ client: inout Client,
        _ handler: (Session) throws -> Void = { session in
            guard session[.visits] != nil else { throw Lost() }
        }
    ) async throws -> Calls {
        var fields: HTTPFields = [:]
        if let cookie = client.cookie { fields[.cookie] = cookie }
        let calls = Calls()
        let answer = try await Calls.$ofRequest.withValue(calls) {
            try await sessions.withSession(fields, \Answer.fields) { session in
                try handler(session)
                return Answer()
            }
        }
        if let cookie = answer.fields[.setCookie]?.split(separator: ";").first { client.cookie = String(cookie) }
        return calls
    }

    @discardableResult
    func write(_ client: inout Client) async throws -> Calls {
        try await request(&client) { $0[.visits, default: 0] += 1 }
    }

    /// Writes again and again; how long each time took.
    @concurrent func keepWriting(_ client: Client, until end: ContinuousClock.Instant) async throws -> [Duration] {
        var client = client
        var times: [Duration] = []
        while ContinuousClock.now < end {
            let start = ContinuousClock.now
            try await write(&client)
            times.append(ContinuousClock.now - start)
        }
        return times
    }

    /// Waits until all records that were written are read behind the answers.
    func waitForTokens(_ count: Int) async throws {
        while store.readBehind.withLock({ $0.records }) < count { try await Task.sleep(for: .microseconds(100)) }
    }
}

/// A client's cookie.
struct Client: Sendable {
    var cookie: String?
}

/// A session is not what it was: nothing that was measured is worth anything.
struct Lost: Error {}
