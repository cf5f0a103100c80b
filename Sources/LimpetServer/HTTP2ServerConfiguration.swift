public import Configuration
public import Limpet

/// Where the server listens, and on how many threads.
public struct HTTP2ServerConfiguration: ConfigurationSection, Hashable {
    /// The address or name to listen on. The default is reachable from this machine only.
    public var host = "127.0.0.1"
    /// The TCP port; 0 for any free one, which ``HTTP2Server/boundPort`` tells.
    public var port = 8080
    /// The number of event loops, each a thread; 0 for one a core.
    public var threads = 0

    static let host = ConfigurationKey("server.host", .text, "address or name to listen on")
    static let port = ConfigurationKey("server.port", .integer(0...65535), "TCP port; 0 for any free one")
    static let threads = ConfigurationKey("server.threads", .integer(0...1024), "event loops; 0 for one a core")

    /// Every key that the section reads.
    public static let keys = [host, port, threads]

    /// The defaults.
    public init() {}

    /// Reads the section `server`; a key that is not there keeps its default.
    public init(config: ConfigReader) async throws(ConfigurationError) {
        host = try await config.text(Self.host) ?? host
        port = try await config.integer(Self.port) ?? port
        threads = try await config.integer(Self.threads) ?? threads
        if host.isEmpty { throw Self.host.error("\"\"", mustBe: "an address or a host name") }
    }
}
