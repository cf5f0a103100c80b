import HTTPTypes
import LimpetTesting
import Logging

@testable import Limpet

/// Nodes over one store, on one clock that stands still.
///
/// Each node has a scripted store of its own, so that a test can make one node's network fail, and a common one beneath,
/// for what befalls the store itself.
struct Cluster: Sendable {
    let clock = ManualClock()
    let store: ScriptedStore

    init(tellsTokens: Bool = false) {
        store = ScriptedStore(MemoryStore(clock: clock), tellsTokens: tellsTokens)
    }

    /// - Parameter make: makes what is beneath.
    init(over make: (ManualClock) -> any SharedStore) {
        store = ScriptedStore(make(clock))
    }

    /// A node; made again under the same name it is a restart.
    func node(
        _ name: String, saveInterval: Duration = .seconds(60), breaking: Rule? = nil, log: LogLines = LogLines(),
        _ change: (inout SessionConfiguration) -> Void = { _ in }
    ) throws -> Node {
        var configuration = SessionConfiguration()
        configuration.node = name
        configuration.saveInterval = saveInterval
        change(&configuration)
        let store = ScriptedStore(self.store, tellsTokens: true)
        let ends = EventLog()
        return Node(
            store: store, events: ends,
            sessions: try SessionManager(
                store: store, configuration: configuration,
                events: SessionEvents(
                    created: { ends.add("created", $0) }, destroyed: { ends.add("\($1)", $0) },
                    cleared: { ends.add("cleared") }),
                clock: clock, logger: Logger(label: "test", factory: { _ in log }), breaking: breaking))
    }
}

extension Cluster {
    /// Lets polls pass, while somebody waits for them.
    func whilePolling<Value: Sendable>(
        _ nodes: [Node], _ body: @escaping @Sendable () async throws -> Value
    ) async throws -> Value {
        let isOver = Locked(false)
        async let polls: Void = {
            while !isOver.withLock({ $0 }) {
                if clock.sleeperCount > 0 {
                    for node in nodes { await node.poll() }
                    clock.advance(by: .milliseconds(250))
                }
                await Task.yield()
            }
        }()
        defer { isOver.withLock { $0 = true } }
        let value = try await body()
        isOver.withLock { $0 = true }
        await polls
        return value
    }
}

/// One process of the cluster.
///
/// Its watch stands still, like the clock: it polls before the first request, and when a test says so.
final class Node: Sendable {
    let store: ScriptedStore
    let events: EventLog
    let sessions: SessionManager
    private let hasPolled = Locked(false)

    init(store: ScriptedStore, events: EventLog, sessions: SessionManager) {
        self.store = store
        self.events = events
        self.sessions = sessions
    }

    /// Asks once what the others have changed.
    func poll() async { await sessions.poll() }

    /// Sends a client's request here.
    @discardableResult
    func request<Value>(
        _ client: Client, _ body: (Session) async throws -> Value
    ) async throws -> Value {
        try await self.request(client, cookie: client.cookie, body)
    }

    /// Sends a request with some cookie here; the client takes the cookie of the answer.
    @discardableResult
    func request<Value>(
        _ client: Client, cookie: String?, _ body: (Session) async throws -> Value
    ) async throws -> Value {
        let isFirst = hasPolled.withLock { hasPolled in
            defer { hasPolled = true }
            return !hasPolled
        }
        if isFirst {
            await sessions.poll()
            store.forgetCalls()
        }
        var fields: HTTPFields = [:]
        if let cookie { fields[.cookie] = cookie }
        // It comes from outside, also where a test sends it while a handler runs.
        let answer = try await Session.$current.withValue(nil) {
            try await sessions.withSession(fields, \Answer<Value>.fields) { session in
                Answer(value: try await body(session))
            }
        }
        client.take(answer.fields[values: .setCookie])
        return answer.value
    }
}

private struct Answer<Value> {
    var fields: HTTPFields = [:]
    var value: Value
}

/// A browser: keeps the newest cookie.
final class Client: Sendable {
    private let state = Locked<(cookie: String?, setCookies: [String])>((nil, []))

    /// What is sent: `session=…`.
    var cookie: String? { state.withLock { $0.cookie } }
    /// All `Set-Cookie` values so far.
    var setCookies: [String] { state.withLock { $0.setCookies } }
    /// The node that the cookie names.
    var route: String? { cookie?.split(separator: ".").last.map(String.init) }

    func take(_ values: [String]) {
        state.withLock { state in
            for value in values {
                state.setCookies.append(value)
                state.cookie = value.contains("Max-Age=0") ? nil : value.split(separator: ";").first.map(String.init)
            }
        }
    }
}

/// What the nodes told the application.
final class EventLog: Sendable {
    private let events = Locked<[(name: String, session: SessionFingerprint?)]>([])
    var all: [String] { events.withLock { $0.map(\.name) } }
    /// The sessions that were told of, in order.
    var sessions: [SessionFingerprint] { events.withLock { $0.compactMap(\.session) } }
    func add(_ name: String, _ session: SessionFingerprint? = nil) { events.withLock { $0.append((name, session)) } }
}

extension SessionKey<Int> {
    static var count: Self { Self("count") }
    static var other: Self { Self("other") }
}

extension SessionKey<String> {
    static var user: Self { Self("user") }
}

extension ScriptedStore {
    /// The calls in short, with the session's hash left out: `get d v a`, `put d unchanged`.
    var shortCalls: [String] {
        calls.map { call in
            call.description.split(separator: " ").map { $0.split(separator: "/")[0] }.joined(separator: " ")
        }
    }
}
