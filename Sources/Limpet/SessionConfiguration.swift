public import Configuration

/// Every knob of the sessions: the sections `session`, `lock` and `store` of the configuration.
///
/// A default stands here, once, with its reason; a test holds this file, `Config/limpet.json` and the documentation
/// together.
public struct SessionConfiguration: ConfigurationSection, Hashable {
    /// This node's route: the part of the cookie that a balancer finds the node by. Unique in the cluster; 1 to 32 of
    /// `A-Z a-z 0-9 _ -`.
    public var node = "a"
    /// How the balancer sends requests. `sticky`: a client stays with the node that its cookie names, as long as it lives.
    public var mode = Mode.sticky
    /// How long a session lives without a request. Half an hour is what servlet containers have taught users to expect.
    public var maxInactive = Duration.seconds(1800)
    /// How long a copy in memory is trusted without asking the store, and how far the access time in the store may lag.
    /// 0 asks at every request. A minute costs an active session four small operations a minute.
    public var saveInterval = Duration.seconds(60)
    /// How often a node asks whether another one has changed a session that it has in memory. A quarter of a second is what a
    /// client that strays may be behind at most, and costs one small read a server.
    public var peerPoll = Duration.milliseconds(250)
    /// How long a request may take until its session is stored: one that takes longer is answered with 503, and changes
    /// nothing. Five minutes are longer than balancers wait.
    public var maxRequest = Duration.seconds(300)
    /// Applications with different context paths do not share sessions, also where they share a store and a cookie.
    public var contextPath = "/"
    /// Applications with different virtual hosts do not share sessions either.
    public var virtualHost = ""
    /// The session's cookie.
    public var cookie = Cookie()
    /// Entering and leaving a session.
    public var lock = Lock()
    /// The store that the nodes share.
    public var store = Store()

    /// How the balancer sends requests.
    public enum Mode: String, Sendable, Hashable, CaseIterable {
        /// A client stays with the node that its cookie names, as long as that one lives.
        case sticky
        /// Any node may get any request: every read is verified with a small one of the store.
        case roaming
    }

    /// The session's cookie. It is always `HttpOnly`: no script needs a session's id.
    public struct Cookie: Sendable, Hashable {
        /// The cookie's name (a token of RFC 9110, section 5.6.2).
        public var name = "session"
        /// The path that the client sends it for.
        public var path = "/"
        /// The domain that the client sends it to; empty for the host that set it alone, the safest.
        public var domain = ""
        /// Send it over TLS alone. Off by default, since the bundled server speaks cleartext behind a balancer: turn it on
        /// wherever users come over TLS.
        public var secure = false
        /// Whether other sites' requests carry it. `lax` keeps links from elsewhere logged in and their forms not.
        public var sameSite = SameSite.lax

        /// Whether other sites' requests carry the cookie.
        public enum SameSite: String, Sendable, Hashable, CaseIterable {
            /// Only this site's own requests.
            case strict
            /// This site's requests, and links from others.
            case lax
            /// All requests; needs `secure`.
            case none
        }
    }

    /// Entering and leaving a session.
    public struct Lock: Sendable, Hashable {
        /// How long a request waits for the session's lock before it is answered with 503. Ten seconds are longer than
        /// a page should take, and shorter than a browser's patience.
        public var timeout = Duration.seconds(10)
        /// How many requests may wait for one session; more are answered with 503. A browser has some hundred requests open at
        /// most: so many are an attack, or a handler that hangs.
        public var maxWaiters = 1024
        /// What requests do with their sessions, by method and path; the first rule that covers a request counts, and without
        /// one it may write.
        public var rules: [SessionAccessRule] = []
        /// Whom a request keeps out of its session.
        public var scope = Scope.node
        /// `cluster`: how long a node counts as alive after its last sign of life; its locks end with it. Five seconds outlast a
        /// pause of the process, and are how long the sessions of a node that died wait for another one.
        public var lease = Duration.seconds(5)

        /// Whom a request keeps out of its session.
        public enum Scope: String, Sendable, Hashable, CaseIterable {
            /// Other requests on the same node: costs no store operation.
            case node
            /// Requests on all nodes.
            case cluster
        }
    }

    /// The store that the nodes share.
    public struct Store: Sendable, Hashable {
        /// Which store. `memory` needs nothing, serves one node, and ends with the process.
        public var kind = Kind.memory
        /// How all keys begin: applications that share a store have different ones.
        public var prefix = "limpet"
        /// How long the store may take for an operation. A healthy memcached needs less than a millisecond; this much leaves
        /// room for a lost packet (200 ms to the first retransmission on Linux).
        public var timeout = Duration.milliseconds(250)
        /// What a node does while the store cannot be asked. `local`: users stay logged in on the node that has them.
        public var whenUnavailable = WhenUnavailable.local

        /// What a node does while the store cannot be asked.
        public enum WhenUnavailable: String, Sendable, Hashable, CaseIterable {
            /// It goes on with the sessions that are at home in its memory, and delivers what they write when the store is back.
            /// Not with ``SessionConfiguration/Mode/roaming``, which promises that nothing stale is ever read.
            case local
            /// It answers 503.
            case reject
        }

        /// Which store.
        public enum Kind: String, Sendable, Hashable, CaseIterable {
            /// This process's memory: one node, sessions end with it.
            case memory
            /// memcached, shared by all nodes.
            case memcached
        }
    }

    /// The defaults.
    public init() {}
}

extension SessionConfiguration {
    static let nodeKey = ConfigurationKey(
        "session.node", .text, "this node's name in the cookie, unique in the cluster")
    static let modeKey = ConfigurationKey(
        "session.mode", .choice(Mode.allCases.map(\.rawValue)), "how the balancer sends requests")
    static let maxInactiveKey = ConfigurationKey(
        "session.maxInactiveSeconds", .integer(1...31_536_000), "how long a session lives without a request")
    static let saveIntervalKey = ConfigurationKey(
        "session.saveIntervalSeconds", .integer(0...86_400),
        "how long memory is trusted without asking the store; 0: never")
    static let peerPollKey = ConfigurationKey(
        "session.peerPollMilliseconds", .integer(10...60_000), "how often a node asks what others have changed")
    static let maxRequestKey = ConfigurationKey(
        "session.maxRequestSeconds", .integer(1...86_400), "how long a request may have its session")
    static let contextPathKey = ConfigurationKey(
        "session.contextPath", .text, "applications with different paths do not share sessions")
    static let virtualHostKey = ConfigurationKey(
        "session.virtualHost", .text, "nor do applications with different virtual hosts")
    static let cookieNameKey = ConfigurationKey("session.cookie.name", .text, "the cookie's name")
    static let cookiePathKey = ConfigurationKey("session.cookie.path", .text, "the path it is sent for")
    static let cookieDomainKey = ConfigurationKey(
        "session.cookie.domain", .text, "the domain it is sent to; empty: the host that set it")
    static let cookieSecureKey = ConfigurationKey("session.cookie.secure", .flag, "send it over TLS alone")
    static let cookieSameSiteKey = ConfigurationKey(
        "session.cookie.sameSite", .choice(Cookie.SameSite.allCases.map(\.rawValue)),
        "whether other sites' requests carry it")
    static let lockTimeoutKey = ConfigurationKey(
        "lock.timeoutMilliseconds", .integer(1...3_600_000), "how long a request waits for its session")
    static let lockMaxWaitersKey = ConfigurationKey(
        "lock.maxWaiters", .integer(0...1_000_000), "how many requests may wait for one session; more get 503")
    static let lockRulesKey = ConfigurationKey(
        "lock.rules", .texts, "which requests only read their session, or leave it alone; the first that fits counts")
    static let lockScopeKey = ConfigurationKey(
        "lock.scope", .choice(Lock.Scope.allCases.map(\.rawValue)), "whom a request keeps out of its session")
    static let lockLeaseKey = ConfigurationKey(
        "lock.leaseSeconds", .integer(3...10),
        "scope cluster: how long a node that gives no sign of life keeps its locks")
    static let storeKindKey = ConfigurationKey(
        "store.kind", .choice(Store.Kind.allCases.map(\.rawValue)), "where sessions are kept for the other nodes")
    static let storePrefixKey = ConfigurationKey("store.prefix", .text, "how all keys in the store begin")
    static let storeTimeoutKey = ConfigurationKey(
        "store.timeoutMilliseconds", .integer(1...60_000), "how long the store may take for an operation")

    static let whenUnavailableKey = ConfigurationKey(
        "store.whenUnavailable", .choice(Store.WhenUnavailable.allCases.map(\.rawValue)),
        "while the store is down: sessions that are at home here go on, or 503")

    /// The keys of `session`, `lock` and `store`.
    public static let keys = [
        nodeKey, modeKey, maxInactiveKey, saveIntervalKey, peerPollKey, maxRequestKey, contextPathKey, virtualHostKey,
        cookieNameKey, cookiePathKey, cookieDomainKey, cookieSecureKey, cookieSameSiteKey, lockTimeoutKey,
        lockMaxWaitersKey, lockRulesKey, lockScopeKey, lockLeaseKey, storeKindKey, storePrefixKey, storeTimeoutKey,
        whenUnavailableKey,
    ]

    /// Reads `session`, `lock` and `store`; a key that is not there keeps its default.
    public init(config: ConfigReader) async throws(ConfigurationError) {
        node = try await config.text(Self.nodeKey) ?? node
        mode = try await config.text(Self.modeKey).flatMap(Mode.init) ?? mode
        maxInactive = try await config.integer(Self.maxInactiveKey).map { .seconds($0) } ?? maxInactive
        saveInterval = try await config.integer(Self.saveIntervalKey).map { .seconds($0) } ?? saveInterval
        peerPoll = try await config.integer(Self.peerPollKey).map { .milliseconds($0) } ?? peerPoll
        maxRequest = try await config.integer(Self.maxRequestKey).map { .seconds($0) } ?? maxRequest
        contextPath = try await config.text(Self.contextPathKey) ?? contextPath
        virtualHost = try await config.text(Self.virtualHostKey) ?? virtualHost
        cookie.name = try await config.text(Self.cookieNameKey) ?? cookie.name
        cookie.path = try await config.text(Self.cookiePathKey) ?? cookie.path
        cookie.domain = try await config.text(Self.cookieDomainKey) ?? cookie.domain
        cookie.secure = try await config.flag(Self.cookieSecureKey) ?? cookie.secure
        cookie.sameSite =
            try await config.text(Self.cookieSameSiteKey).flatMap(Cookie.SameSite.init) ?? cookie.sameSite
        lock.timeout = try await config.integer(Self.lockTimeoutKey).map { .milliseconds($0) } ?? lock.timeout
        lock.maxWaiters = try await config.integer(Self.lockMaxWaitersKey) ?? lock.maxWaiters
        if let rules = try await config.texts(Self.lockRulesKey) {
            lock.rules = try rules.map { rule throws(ConfigurationError) in try SessionAccessRule(rule) }
        }
        lock.scope = try await config.text(Self.lockScopeKey).flatMap(Lock.Scope.init) ?? lock.scope
        lock.lease = try await config.integer(Self.lockLeaseKey).map { .seconds($0) } ?? lock.lease
        store.kind = try await config.text(Self.storeKindKey).flatMap(Store.Kind.init) ?? store.kind
        store.prefix = try await config.text(Self.storePrefixKey) ?? store.prefix
        store.timeout = try await config.integer(Self.storeTimeoutKey).map { .milliseconds($0) } ?? store.timeout
        store.whenUnavailable =
            try await config.text(Self.whenUnavailableKey).flatMap(Store.WhenUnavailable.init) ?? store.whenUnavailable
        try validate()
    }

    /// Refuses what no key's kind can: texts that would break a cookie or a store key, and knobs that exclude each other.
    func validate() throws(ConfigurationError) {
        func require(
            _ key: ConfigurationKey, _ text: String, _ isRight: Bool, _ expectation: String
        ) throws(ConfigurationError) {
            guard isRight else { throw key.error("\"\(text)\"", mustBe: expectation) }
        }
        try require(Self.nodeKey, node, SessionCookie.isRoute(node.utf8), "1 to 32 of A-Z a-z 0-9 _ -")
        try require(
            Self.cookieNameKey, cookie.name,
            !cookie.name.isEmpty && cookie.name.utf8.allSatisfy(SessionCookie.isTokenCharacter),
            "a cookie's name: letters, digits and !#$%&'*+-.^_`|~")
        try require(
            Self.cookiePathKey, cookie.path,
            cookie.path.hasPrefix("/") && cookie.path.utf8.allSatisfy(SessionCookie.isAttributeCharacter),
            "a path that begins with / and has no ; and no control character")
        try require(
            Self.cookieDomainKey, cookie.domain,
            cookie.domain.utf8.allSatisfy { SessionCookie.isTokenCharacter($0) },
            "a domain name, or empty")
        try require(
            Self.contextPathKey, contextPath, contextPath.hasPrefix("/"), "a path that begins with /")
        try require(
            Self.storePrefixKey, store.prefix,
            (1...64).contains(store.prefix.utf8.count)
                && store.prefix.utf8.allSatisfy { (0x21...0x7E).contains($0) },
            "1 to 64 characters of printable ASCII without a space")
        // Who waits has to see the end of a dead holder's lease, and of the two polls after a lost lock.
        try require(
            Self.lockTimeoutKey, "\(lock.timeout.milliseconds)",
            lock.scope == .node || lock.timeout >= lock.lease + peerPoll * 4,
            "at least \((lock.lease + peerPoll * 4).milliseconds) with lock.scope cluster: lock.leaseSeconds and four times "
                + "session.peerPollMilliseconds")
        // RFC 6265bis, section 5.6.7.1: browsers refuse SameSite=None without Secure.
        try require(
            Self.cookieSameSiteKey, cookie.sameSite.rawValue, cookie.sameSite != .none || cookie.secure,
            "strict or lax, unless session.cookie.secure is true")
    }
}
