public import Configuration
public import Limpet
import NIOSSL

/// Which memcached servers hold the sessions, and how they are reached.
///
/// - `memcached.servers` (list of texts, default: `["127.0.0.1:11211"]`): `host:port`, `[IPv6]:port` or the path of a
///   Unix socket, with `/?weight` behind it for a server that is to hold a larger share: `"10.0.0.7:11211/?3"`. All nodes
///   need the same list: keys are spread over it by consistent hashing (ketama), so that a server more or less moves as few
///   keys as can be.
/// - `memcached.transport` (`auto`, `pipelined` or `libmemcached`, default: `auto`): how they are reached. `auto` is
///   `pipelined`, until a server turns out not to speak meta commands (memcached before 1.6.10, most proxies): then all are
///   reached with libmemcached; not with TLS, which that does not know.
/// - `memcached.connections` (1 to 64, default: 4): connections to each server with libmemcached, each with a thread of its
///   own. All operations of a session use the same one. The pipelined transport has one for each event loop.
/// - `memcached.options` (text, default: empty): options for libmemcached, such as `--DISTRIBUTION=modula --HASH=crc`; the
///   placement of keys is its matter with both transports, all else with its own alone. Refused are those under which a session would not be safe: the
///   binary protocol, UDP, buffered requests, no replies, replicas, ejected servers, sorted or random placement, a namespace,
///   and servers.
/// - `memcached.user`, `memcached.password` (texts, default: empty): for memcached's text authentication (`-Y`). Without TLS
///   they cross the network as they are.
/// - `memcached.tls` (default: `false`): the servers speak TLS (`-Z`); with the pipelined transport only.
/// - `memcached.caFile` (text, default: empty): PEM file with the certificates of the authorities that the servers'
///   certificates may come from; empty: those of the system. A server has to be known by the name or address in
///   `memcached.servers`.
/// - `memcached.certificateFile`, `memcached.privateKeyFile` (texts, default: empty): PEM files with the certificate chain
///   and the key that the servers know this node by; empty: none.
public struct MemcachedConfiguration: ConfigurationSection, Hashable {
    /// How servers are reached.
    public enum Transport: String, Sendable, Hashable, CaseIterable {
        /// Pipelined where every server can, otherwise libmemcached.
        case auto
        /// Meta commands over one connection for each event loop and server; needs memcached 1.6.10.
        case pipelined
        /// libmemcached's blocking connections, for servers and proxies without meta commands.
        case libmemcached
    }

    /// The servers. One, on this machine, is what a development machine has.
    public var servers = ["127.0.0.1:11211"]
    /// How they are reached.
    public var transport = Transport.auto
    /// Connections of libmemcached to each server. Four saturated two processor cores in a benchmark.
    public var connections = 4
    /// Options for libmemcached.
    public var options = ""
    /// Whom the servers know this node as; empty: they do not ask.
    public var user = ""
    /// The user's password.
    public var password = ""
    /// Whether the servers speak TLS.
    public var tls = false
    /// PEM file with the authorities of the servers' certificates; empty: those of the system.
    public var caFile = ""
    /// PEM file with this node's certificate chain; empty: none.
    public var certificateFile = ""
    /// PEM file with the key of this node's certificate.
    public var privateKeyFile = ""

    static let servers = ConfigurationKey("memcached.servers", .texts, "servers, host:port or host:port/?weight")
    static let transport = ConfigurationKey(
        "memcached.transport", .choice(Transport.allCases.map(\.rawValue)), "how servers are reached")
    static let connections = ConfigurationKey(
        "memcached.connections", .integer(1...64), "connections of libmemcached to each server")
    static let options = ConfigurationKey("memcached.options", .text, "options for libmemcached")
    static let user = ConfigurationKey("memcached.user", .text, "user for text authentication; empty: none")
    static let password = ConfigurationKey("memcached.password", .secret, "the user's password")
    static let tls = ConfigurationKey("memcached.tls", .flag, "whether the servers speak TLS")
    static let caFile = ConfigurationKey(
        "memcached.caFile", .text, "PEM file with the authorities of the servers' certificates; empty: the system's")
    static let certificateFile = ConfigurationKey(
        "memcached.certificateFile", .text, "PEM file with this node's certificate chain; empty: none")
    static let privateKeyFile = ConfigurationKey(
        "memcached.privateKeyFile", .text, "PEM file with the private key of that certificate")

    /// All keys of the section.
    public static let keys = [
        servers, transport, connections, options, user, password, tls, caFile, certificateFile, privateKeyFile,
    ]

    /// The defaults.
    public init() {}

    /// Reads and checks the section.
    ///
    /// - Throws: `ConfigurationError` that names the key, the value and what would be right.
    public init(config: ConfigReader) async throws(ConfigurationError) {
        servers = try await config.texts(Self.servers) ?? servers
        transport = try await config.text(Self.transport).flatMap(Transport.init) ?? transport
        connections = try await config.integer(Self.connections) ?? connections
        options = try await config.text(Self.options) ?? options
        user = try await config.text(Self.user) ?? user
        password = try await config.text(Self.password) ?? password
        tls = try await config.flag(Self.tls) ?? tls
        caFile = try await config.text(Self.caFile) ?? caFile
        certificateFile = try await config.text(Self.certificateFile) ?? certificateFile
        privateKeyFile = try await config.text(Self.privateKeyFile) ?? privateKeyFile
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
        try checkUser()
        try checkTLS(addresses)
        return addresses
    }

    /// memcached's file of users has a line `user:password` for each, and takes both with a space between.
    private func checkUser() throws(ConfigurationError) {
        func isText(_ text: String) -> Bool { text.utf8.allSatisfy { $0 > 0x20 && $0 != 0x7F } }
        guard isText(user), !user.contains(":"), user.isEmpty == password.isEmpty || !user.isEmpty else {
            // Not shown: it may be "user:password".
            throw Self.user.error(
                "what it holds", mustBe: "a name without spaces and colons, or empty without a password")
        }
        guard isText(password), user.isEmpty || !password.isEmpty else {
            throw Self.password.error("", mustBe: "a password without spaces, for a user")
        }
    }

    private func checkTLS(_ addresses: [MemcachedAddress]) throws(ConfigurationError) {
        guard tls else {
            for (key, file) in [
                (Self.caFile, caFile), (Self.certificateFile, certificateFile), (Self.privateKeyFile, privateKeyFile),
            ] where !file.isEmpty {
                throw key.error("\"\(file)\"", mustBe: "empty without memcached.tls")
            }
            return
        }
        guard transport != .libmemcached else {
            throw Self.tls.error("true", mustBe: "false with memcached.transport \"libmemcached\", which knows no TLS")
        }
        for address in addresses {
            if case .socket(let path) = address.endpoint {
                throw Self.servers.error(
                    "\"\(path)\"", mustBe: "hosts with memcached.tls: a socket has no name to be known by")
            }
        }
        guard certificateFile.isEmpty == privateKeyFile.isEmpty else {
            let missing = certificateFile.isEmpty ? Self.certificateFile : Self.privateKeyFile
            throw missing.error("\"\"", mustBe: "a PEM file: certificate and key belong together")
        }
    }

    /// Who this node is for the servers; `nil` if they do not ask.
    var credentials: MemcachedCredentials? {
        user.isEmpty ? nil : MemcachedCredentials(user: user, password: password)
    }

    /// What connections are made private with; `nil` without TLS.
    ///
    /// - Throws: `ConfigurationError` that names the key and the file that cannot be used.
    func tlsContext() throws(ConfigurationError) -> NIOSSLContext? {
        guard tls else { return nil }
        var configuration = TLSConfiguration.makeClientConfiguration()
        configuration.minimumTLSVersion = .tlsv12
        if !caFile.isEmpty {
            do {
                configuration.trustRoots = .certificates(try NIOSSLCertificate.fromPEMFile(caFile))
            } catch {
                throw Self.caFile.error("\"\(caFile)\" (\(error))", mustBe: "a PEM file with certificates")
            }
        }
        if !certificateFile.isEmpty {
            do {
                configuration.certificateChain = try NIOSSLCertificate.fromPEMFile(certificateFile)
                    .map { .certificate($0) }
            } catch {
                throw Self.certificateFile.error(
                    "\"\(certificateFile)\" (\(error))", mustBe: "a PEM file with a certificate chain")
            }
            do {
                configuration.privateKey = .privateKey(try NIOSSLPrivateKey(file: privateKeyFile, format: .pem))
            } catch {
                throw Self.privateKeyFile.error(
                    "\"\(privateKeyFile)\" (\(error))", mustBe: "a PEM file with a key that is free of a passphrase")
            }
        }
        do {
            return try NIOSSLContext(configuration: configuration)
        } catch {
            throw Self.certificateFile.error(
                "\"\(certificateFile)\" (\(error))",
                mustBe: "a certificate that the key in \"\(privateKeyFile)\" is for")
        }
    }
}

extension MemcachedConfiguration: CustomStringConvertible, CustomReflectable {
    /// The servers: a password has no place in a log.
    public var description: String { "memcached at \(servers.joined(separator: ", "))" }
    /// Nothing, for the same reason.
    public var customMirror: Mirror { Mirror(self, children: ["servers": servers]) }
}
