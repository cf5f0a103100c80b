public import Configuration
public import Limpet

/// Which memcached servers hold the sessions, and how they are reached.
///
/// - `memcached.servers` (list of texts, default: `["127.0.0.1:11211"]`): `host:port`, `[IPv6]:port` or the path of a
///   Unix socket, with `/?weight` behind it for a server that is to hold a larger share: `"10.0.0.7:11211/?3"`. All nodes
///   need the same list: keys are spread over it by consistent hashing (ketama), so that a server more or less moves as few
///   keys as can be.
/// - `memcached.connections` (1 to 64, default: 4): connections to each server, each with a thread of its own. All
///   operations of a session use the same one.
/// - `memcached.options` (text, default: empty): options for libmemcached, such as `--TCP-KEEPALIVE` or
///   `--DISTRIBUTION=modula --HASH=crc`. Refused are those under which a session would not be safe: the binary protocol,
///   UDP, buffered requests, no replies, replicas, ejected servers, sorted or random placement, a namespace, and servers.
public struct MemcachedConfiguration: ConfigurationSection, Hashable {
    /// The servers. One, on this machine, is what a development machine has.
    public var servers = ["127.0.0.1:11211"]
    /// Connections to each server. Four saturated two processor cores in a benchmark.
    public var connections = 4
    /// Options for libmemcached.
    public var options = ""

    static let servers = ConfigurationKey("memcached.servers", .texts, "servers, host:port or host:port/?weight")
    static let connections = ConfigurationKey("memcached.connections", .integer(1...64), "connections to each server")
    static let options = ConfigurationKey("memcached.options", .text, "options for libmemcached")

    /// All keys of the section.
    public static let keys = [servers, connections, options]

    /// The defaults.
    public init() {}

    /// Reads and checks the section.
    ///
    /// - Throws: `ConfigurationError` that names the key, the value and what would be right.
    public init(config: ConfigReader) async throws(ConfigurationError) {
        servers = try await config.texts(Self.servers) ?? servers
        connections = try await config.integer(Self.connections) ?? connections
        options = try await config.text(Self.options) ?? options
        _ = try checked()
    }

    /// Checks all values.
    ///
    /// - Returns: the servers, in order.
    func checked() throws(ConfigurationError) -> [MemcachedAddress] {
        guard (1...64).contains(connections) else { throw Self.connections.error("\(connections)") }
        var addresses: [MemcachedAddress] = []
        for server in servers {
            let address = try MemcachedAddress(server)
            guard !addresses.contains(where: { $0.endpoint == address.endpoint }) else {
                throw Self.servers.error("\"\(server)\" twice", mustBe: "a list of different servers")
            }
            addresses.append(address)
        }
        guard !addresses.isEmpty else { throw Self.servers.error("[]", mustBe: "a list of at least one server") }
        if let problem = MemcachedHandle.problem(ofOptions: options) {
            throw Self.options.error("\"\(options)\" (\(problem))", mustBe: "options as libmemcached takes them")
        }
        return addresses
    }
}
