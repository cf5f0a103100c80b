public import HTTPTypes
public import Logging
package import Metrics
public import ServiceLifecycle
import Synchronization

/// The sessions of one node.
///
/// ```
/// request → cookie → lock → local copy → store → handler → complete → cookie
///    1         2       3         4          5        6          7         8
/// ```
///
/// ``withSession(_:_:_:)`` reads like that line; everything else hangs off it. How the copies in the memories of many nodes
/// stay one session is told in the article Coherence.
public final class SessionManager: Service {
    private static let made = Atomic<Int>(0)

    /// The managers of a process are made one after the other, and their sessions entered in that order.
    let order = made.add(1, ordering: .relaxed).newValue
    private let cookie: SessionCookie
    let locks: SessionLocks
    let coherence: SessionCoherence
    let counters: SessionStatistics
    private let metrics: SessionMetrics
    private let clock: any NodeClock
    private let rules: [SessionAccessRule]
    let logger: Logger

    /// Makes the sessions of this node. Nothing is started and no connection made; a manager that does not run (``run()``)
    /// serves requests all the same, but ends no expired session by itself.
    ///
    /// - Throws: ``ConfigurationError`` for a configuration that cannot be.
    public convenience init(
        store: any SharedStore, configuration: SessionConfiguration, events: SessionEvents = SessionEvents(),
        clock: any NodeClock = SystemClock(), logger: Logger
    ) throws(ConfigurationError) {
        try self.init(
            store: store, configuration: configuration, events: events, clock: clock, logger: logger, breaking: nil)
    }

    /// - Parameters:
    ///   - breaking: a rule that this node does not keep, to prove that somebody notices.
    ///   - metrics: where the counters go.
    package init(
        store: any SharedStore, configuration: SessionConfiguration, events: SessionEvents, clock: any NodeClock,
        logger: Logger, breaking: Rule?, metrics: any MetricsFactory = MetricsSystem.factory
    ) throws(ConfigurationError) {
        try configuration.validate()
        let counters = SessionStatistics()
        cookie = SessionCookie(configuration)
        self.metrics = SessionMetrics(counters, factory: metrics)
        rules = configuration.lock.rules
        locks = SessionLocks(
            configuration.lock, clock: clock, statistics: counters, waits: self.metrics.lockWait,
            excludesOthers: breaking != .r23)
        coherence = SessionCoherence(
            store: store, configuration: configuration, locks: locks, clock: clock, events: events,
            statistics: counters,
            logger: logger, broken: breaking)
        self.counters = counters
        self.clock = clock
        self.logger = logger
    }

    /// This node's name in cookies: `session.node`.
    public var node: String { coherence.node.name }

    /// Runs a handler with the request's session, which it may write: no other request of this node is in it meanwhile.
    ///
    /// A request without a session's cookie takes no lock, makes no store call and gets no cookie, until the handler writes a
    /// value. What the handler wrote is acknowledged by the store before this returns, or, while the store is down, kept by
    /// this node until it is back (`store.whenUnavailable`: `local`); a handler that throws changes nothing.
    ///
    /// Within the handler, and its child tasks, the same request may ask for its session again: it gets the same `Session`, which
    /// is stored when the outer handler has returned.
    ///
    /// - Parameters:
    ///   - requestFields: the request's header.
    ///   - responseFields: where the response has its header, so that an adapter for another server is one line.
    ///   - handler: what uses the session. Runs where this was called, without a hop.
    /// - Throws: what the handler throws; ``SessionError`` if the session could not be had or stored; `CancellationError` if
    ///   the request was cancelled while it waited.
    public nonisolated(nonsending) func withSession<Response>(
        _ requestFields: HTTPFields,
        _ responseFields: WritableKeyPath<Response, HTTPFields>,
        _ handler: (Session) async throws -> Response
    ) async throws -> Response {
        try await withSession(AccessIntent(.write), requestFields, responseFields, handler)
    }

    /// Runs a handler with the request's session, as the rules of `lock.rules` say: a session that the request may only read, or not
    /// even that, refuses writes (``Session/access``).
    ///
    /// - Parameters:
    ///   - request: the request's head.
    ///   - responseFields: where the response has its header.
    ///   - handler: what uses the session.
    /// - Throws: as ``withSession(_:_:_:)-(HTTPFields,_,_)``; ``SessionError`` (`writeNotAllowed`) for a handler that wrote where it
    ///   may not.
    public nonisolated(nonsending) func withSession<Response>(
        _ request: HTTPRequest,
        _ responseFields: WritableKeyPath<Response, HTTPFields>,
        _ handler: (Session) async throws -> Response
    ) async throws -> Response {
        let intent =
            rules.isEmpty
            ? AccessIntent(.write)
            : AccessIntent(rules, method: request.method.rawValue, target: request.path ?? "")
        return try await withSession(intent, request.headerFields, responseFields, handler)
    }

    /// Runs a handler with the request's session, which it cannot write, beside other requests that only read.
    ///
    /// - Parameters:
    ///   - requestFields: the request's header.
    ///   - responseFields: where the response has its header.
    ///   - handler: what reads the session.
    /// - Throws: as ``withSession(_:_:_:)-(HTTPFields,_,_)``.
    public nonisolated(nonsending) func withReadOnlySession<Response>(
        _ requestFields: HTTPFields,
        _ responseFields: WritableKeyPath<Response, HTTPFields>,
        _ handler: (ReadOnlySession) async throws -> Response
    ) async throws -> Response {
        try await withSession(AccessIntent(.read), requestFields, responseFields) { session in
            try await handler(ReadOnlySession(session))
        }
    }

    // Inlined, as what is below: each function on a request's way that may suspend costs it a frame.
    @inline(__always)
    private nonisolated(nonsending) func withSession<Response>(
        _ intent: AccessIntent, _ requestFields: HTTPFields, _ responseFields: WritableKeyPath<Response, HTTPFields>,
        _ handler: (Session) async throws -> Response
    ) async throws -> Response {
        do {
            // 1, 2  Request, cookie: an id that is well-formed; whether it exists, only the store knows.
            let presented = intent.access == .none ? nil : cookie.read(requestFields)
            let outer = Session.current
            if intent.access != .none, let entered = try Session.entered(of: self, outer) {
                return try await handler(try entered.nested(presented, intent))
            }
            guard let presented else {
                let session = Session(
                    coherence.newCheckout(), nil, nil, isInCluster: false, intent, manager: self, outer: outer)
                return try await run(handler, session, responseFields)
            }
            // 3  Lock: writers are alone in the session, readers together. The lease's end leaves it, on every path.
            var lease: SessionLease
            if let entered = locks.tryEnter(presented.id, intent.access) {
                lease = entered
            } else {
                lease = try await locks.enter(presented.id, intent.access)
            }
            var isInCluster = false
            if coherence.isClusterLocked {
                let entrance = try await coherence.enterCluster(presented.id, waited: lease.waited)
                lease.waited += entrance.waited
                isInCluster = entrance.isLocked
            }
            // 4, 5  Local copy, store: this node's memory if it can be trusted, the store if not.
            let checkout: Checkout?
            do {
                checkout =
                    intent.access == .read
                    ? try await coherence.checkout(presented, &lease)
                    : try await coherence.checkout(presented, at: lease.enteredAt)
            } catch {
                if isInCluster { await coherence.leaveCluster(presented.id, isOver: false) }
                throw error
            }
            let session = Session(
                checkout ?? coherence.newCheckout(), presented, lease, isInCluster: isInCluster, intent, manager: self,
                outer: outer)
            return try await run(handler, session, responseFields)
        } catch let error as SessionError {
            // An outage is said once, when it begins; a full line is an attack's to fill the log with.
            let isKnown = (error.cause as? StoreError)?.wasRefused ?? (error.code == .tooManyWaiting)
            logger.log(
                level: isKnown ? .debug : .warning, "A request could not have its session",
                metadata: [LogKey.error: "\(error)", LogKey.node: "\(node)"])
            throw error
        }
    }

    @inline(__always)
    private nonisolated(nonsending) func run<Response>(
        _ handler: (Session) async throws -> Response, _ session: Session,
        _ responseFields: WritableKeyPath<Response, HTTPFields>
    ) async throws -> Response {
        // 6  Handler: all that it does with the session is synchronous and in memory.
        var response: Response
        do {
            response =
                session.access == .none
                ? try await handler(session)
                : try await Session.$current.withValue(session) { try await handler(session) }
        } catch {
            await session.abandon()
            throw error
        }
        // 7  Complete: the store has acknowledged what the client is about to be told.
        var answer = session.completeUnchanged()
        if answer == nil { answer = try await session.complete() }
        // 8  Cookie: the id if it is new, the route if the session came home.
        switch answer {
        case .keepCookie, nil: break
        case .setCookie(let id): response[keyPath: responseFields].append(cookie.set(id))
        case .expireCookie: response[keyPath: responseFields].append(cookie.expire())
        }
        return response
    }

    /// This node and the others, and what concerns all their sessions.
    public var cluster: SessionCluster { SessionCluster(coherence) }

    /// What the sessions of this node did since it started, and how many are in memory.
    public var statistics: SessionStatisticsSnapshot {
        SessionStatisticsSnapshot(
            counters, sessionsInMemory: coherence.local.count, locks: locks.count,
            unsentSessions: coherence.unsent.count)
    }

    /// Tells what the store and this node know of a session, for people who look for the reason of something. Changes nothing,
    /// and waits for no request.
    ///
    /// - Throws: ``SessionError`` if the store cannot be asked.
    public func explain(_ id: SessionID) async throws(SessionError) -> SessionExplanation {
        try await explain(SessionFingerprint(id))
    }

    /// Tells what the store and this node know of a session, by its fingerprint.
    ///
    /// - Throws: ``SessionError`` if the store cannot be asked.
    public func explain(_ fingerprint: SessionFingerprint) async throws(SessionError) -> SessionExplanation {
        try await coherence.explain(fingerprint)
    }

    /// Watches the store, reads tokens behind the answers, ends what has expired, delivers what waits for the store, and hands the
    /// counters to swift-metrics, until graceful shutdown.
    public func run() async throws {
        logger.info("\(startLine)", metadata: [LogKey.node: "\(node)"])
        await cancelWhenGracefulShutdown { await self.work() }
        // Who is cancelled has no time left.
        if !Task.isCancelled { await drain() }
    }

    /// Saves what only this node knows, and leaves.
    package func drain() async { await coherence.drain() }

    /// What the node does beside its requests, until the task is cancelled.
    package func work() async {
        await withTaskGroup(of: Void.self) { group in
            group.addTask { await self.coherence.refresh.run() }
            group.addTask { await self.coherence.runDelivery() }
            group.addTask { await self.endExpired() }
            if metrics.isWanted { group.addTask { await self.tellMetrics() } }
            SessionStatistics.$isBackground.withValue(true) {
                group.addTask { await self.coherence.runWatch() }
                group.addTask { await self.coherence.membership.run() }
                group.addTask { await self.coherence.runRoster() }
                group.addTask { await self.coherence.runBurials() }
                if coherence.isClusterLocked { group.addTask { await self.coherence.runLooksForNews() } }
            }
        }
    }

    /// Hands the counters over until the task is cancelled, and then what is left.
    private func tellMetrics() async {
        defer { tellMetricsOnce() }
        while true {
            do { try await clock.sleep(for: SessionMetrics.interval) } catch { return }  // Cancelled: the node stops.
            tellMetricsOnce()
        }
    }

    private func tellMetricsOnce() {
        metrics.tell(inMemory: coherence.local.count, locks: locks.count)
    }

    private var startLine: String {
        switch coherence.configuration.store.kind {
        case .memory: "Sessions are kept in this process alone (store.kind is memory): they end with it"
        case .memcached: "Sessions are shared through memcached"
        }
    }

    /// Asks once what others have changed, as ``run()`` does all the time.
    package func poll() async { await coherence.pollAll() }

    /// Delivers what waits for the store, as ``run()`` does when the store is back.
    func deliver() async { await coherence.deliverUnsent() }

    /// How often expired sessions are looked for: they are not served in the meantime.
    static let scavengeInterval = Duration.seconds(10)

    private func endExpired() async {
        while true {
            do { try await clock.sleep(for: Self.scavengeInterval) } catch { return }  // Cancelled: the node stops.
            await scavenge()
        }
    }

    /// Ends the sessions that have expired in this node's memory and that no request is in, and settles the changes of ids that
    /// failed.
    func scavenge() async {
        do {
            try await coherence.settleRotations()
        } catch {
            logger.warning(
                "A failed change of a session's id could not be undone; it is tried again later",
                metadata: [LogKey.error: "\(error)", LogKey.node: "\(node)"])
        }
        if coherence.isClusterLocked { coherence.clusterLocks.forget(at: clock.monotonicNanoseconds()) }
        let expired = coherence.local.expired(
            at: clock.wallMilliseconds(), againAfter: Self.scavengeInterval.milliseconds)
        for copy in expired {
            guard let lease = locks.tryEnter(copy.id) else { continue }
            defer { extendLifetime(lease) }
            do {
                try await coherence.expireIfDue(copy)
            } catch {
                logger.warning(
                    "An expired session could not be ended; it is tried again later",
                    metadata: [LogKey.error: "\(error)", LogKey.node: "\(node)"])
                // A record that cannot be read is one session's trouble, a store that does not answer is everybody's.
                guard let cause = (error as? SessionError)?.cause as? StoreError, cause.code != .corrupt else {
                    continue
                }
                return
            }
        }
    }
}
