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
    /// 10,000 idle ones that the benchmarks hold: at 16 KiB each 320 MiB, over TLS twice that. The process's limit of
    /// open files is raised as far as that needs.
    public var maxConnections = 20_000
    /// Seconds that requests under way may take to finish after the server was told to stop. The default is a third of
    /// the 30 s after which Kubernetes kills.
    public var drainTimeoutSeconds = 10

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

    /// Every key that the section reads.
    public static let keys = [
        host, port, unixSocket, certificateFile, privateKeyFile, threads, maxConnections, drainTimeoutSeconds,
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
