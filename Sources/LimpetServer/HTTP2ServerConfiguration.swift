public import Configuration
public import Limpet

/// Where the server listens, with which certificate, and how much it takes on.
public struct HTTP2ServerConfiguration: ConfigurationSection, Hashable {
    /// The address or name to listen on. The default is reachable from this machine only.
    public var host = "127.0.0.1"
    /// The TCP port; 0 for any free one, which ``HTTP2Server/boundPort`` tells.
    public var port = 8080
    /// The path of a Unix socket to listen on instead of host and port; empty for none. Who may connect is decided by the
    /// directory's permissions and the process's umask. A socket that a dead process left there is replaced.
    public var unixSocket = ""
    /// The PEM file with the server's certificate and those between it and the root, in this order; empty for HTTP/2
    /// without TLS. A change of the file is noticed, and used for new connections.
    public var certificateFile = ""
    /// The PEM file with the certificate's private key, without a passphrase.
    public var privateKeyFile = ""
    /// The number of event loops, each a thread; 0 for one a core.
    public var threads = 0
    /// Connections that may be open at once; more are closed as soon as they are accepted. The default is twice the
    /// 10,000 idle ones that the benchmarks hold: at 14 KiB each 280 MiB, over TLS at 32 KiB twice that. One that has moved
    /// large bodies keeps up to 45 KiB more, over TLS up to 100 KiB. The process's limit of open files is raised as far as
    /// the number needs.
    public var maxConnections = 20_000
    /// Seconds that requests under way may take to finish after the server was told to stop. The default is a third of
    /// the 30 s after which Kubernetes kills.
    public var drainTimeoutSeconds = 10
    /// Bytes that the body of a request may have; more is answered 413. The default is that of nginx's `client_max_body_size`.
    public var maxRequestBodyBytes = 1_048_576
    /// Bytes a second that a client has to move where the server waits for it: a body that a handler reads, over 10 s, and what
    /// the server has to send, over 30 s. A body that is too slow is answered 408, a client that does not read is cut off.
    /// The default is that of Kestrel's `MinRequestBodyDataRate`; 0 lets clients take their time, as handlers need it that
    /// converse with the client over one request.
    public var minBytesPerSecond = 240
    /// Seconds after which a connection without requests is closed. The default is twice what balancers keep theirs for.
    public var idleTimeoutSeconds = 120
    /// Seconds after which a connection takes no more requests, and closes when those under way are done, so that
    /// clients come back to where a balancer wants them; up to a tenth less, so that not all come back at once. 0: never.
    public var maxConnectionAgeSeconds = 3600
    /// One line in the log for each request, at level `info`, with the path and without the query.
    public var accessLog = false

    static let host = ConfigurationKey("server.host", .text, "address or name to listen on")
    static let port = ConfigurationKey("server.port", .integer(0...65535), "TCP port; 0 for any free one")
    static let unixSocket = ConfigurationKey(
        "server.unixSocket", .text, "path of a Unix socket to listen on instead; empty: none")
    static let certificateFile = ConfigurationKey(
        "server.certificateFile", .text, "PEM file with the certificate chain; empty: no TLS")
    static let privateKeyFile = ConfigurationKey(
        "server.privateKeyFile", .text, "PEM file with the certificate's private key")
    static let threads = ConfigurationKey("server.threads", .integer(0...1024), "event loops; 0 for one a core")
    static let maxConnections = ConfigurationKey(
        "server.maxConnections", .integer(1...10_000_000), "connections at once; more are closed")
    static let drainTimeoutSeconds = ConfigurationKey(
        "server.drainTimeoutSeconds", .integer(0...86_400), "how long requests may take to finish when the server stops"
    )

    static let maxRequestBodyBytes = ConfigurationKey(
        "server.maxRequestBodyBytes", .integer(0...1 << 40), "bytes of a request's body; more is answered 413")
    static let minBytesPerSecond = ConfigurationKey(
        "server.minBytesPerSecond", .integer(0...1_000_000),
        "how fast a client has to send and to read; 0: as slowly as it likes"
    )
    static let idleTimeoutSeconds = ConfigurationKey(
        "server.idleTimeoutSeconds", .integer(1...86_400), "how long a connection may be without requests")
    static let maxConnectionAgeSeconds = ConfigurationKey(
        "server.maxConnectionAgeSeconds", .integer(0...31_536_000),
        "how old a connection may get; 0: as old as it likes")
    static let accessLog = ConfigurationKey("server.accessLog", .flag, "a line in the log for each request")

    /// Every key that the section reads.
    public static let keys = [
        host, port, unixSocket, certificateFile, privateKeyFile, threads, maxConnections, drainTimeoutSeconds,
        maxRequestBodyBytes, minBytesPerSecond, idleTimeoutSeconds, maxConnectionAgeSeconds, accessLog,
    ]

    /// The defaults.
    public init() {}

    /// Reads the section `server`; a key that is not there keeps its default.
    public init(config: ConfigReader) async throws(ConfigurationError) {
        host = try await config.text(Self.host) ?? host
        port = try await config.integer(Self.port) ?? port
        unixSocket = try await config.text(Self.unixSocket) ?? unixSocket
        certificateFile = try await config.text(Self.certificateFile) ?? certificateFile
        privateKeyFile = try await config.text(Self.privateKeyFile) ?? privateKeyFile
        threads = try await config.integer(Self.threads) ?? threads
        maxConnections = try await config.integer(Self.maxConnections) ?? maxConnections
        drainTimeoutSeconds = try await config.integer(Self.drainTimeoutSeconds) ?? drainTimeoutSeconds
        maxRequestBodyBytes = try await config.integer(Self.maxRequestBodyBytes) ?? maxRequestBodyBytes
        minBytesPerSecond = try await config.integer(Self.minBytesPerSecond) ?? minBytesPerSecond
        idleTimeoutSeconds = try await config.integer(Self.idleTimeoutSeconds) ?? idleTimeoutSeconds
        maxConnectionAgeSeconds = try await config.integer(Self.maxConnectionAgeSeconds) ?? maxConnectionAgeSeconds
        accessLog = try await config.flag(Self.accessLog) ?? accessLog
        try check()
    }

    /// What no single value shows.
    func check() throws(ConfigurationError) {
        if host.isEmpty { throw Self.host.error("\"\"", mustBe: "an address or a host name") }
        if unixSocket.utf8.count > UnixSocketFile.maxPathBytes {
            throw Self.unixSocket.error(
                "\"\(unixSocket)\"", mustBe: "a path of at most \(UnixSocketFile.maxPathBytes) bytes")
        }
        if certificateFile.isEmpty, !privateKeyFile.isEmpty {
            throw Self.certificateFile.error("\"\"", mustBe: "set together with \(Self.privateKeyFile.name)")
        }
        if privateKeyFile.isEmpty, !certificateFile.isEmpty {
            throw Self.privateKeyFile.error("\"\"", mustBe: "set together with \(Self.certificateFile.name)")
        }
    }
}
