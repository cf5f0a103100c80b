import Foundation
import Limpet
import Testing

@testable import LimpetMemcached

struct MemcachedConfigurationTests {
    @Test func `environment variables set all keys`() async throws {
        let configuration = try await ConfigurationFile.load(
            nil,
            environment: [
                "MEMCACHED_SERVERS": "10.0.0.1:11211/?3,[::1]:11212,/run/memcached.sock",
                "MEMCACHED_CONNECTIONS": "8", "MEMCACHED_OPTIONS": "--TCP-KEEPALIVE",
            ], MemcachedConfiguration.self)
        #expect(configuration.servers == ["10.0.0.1:11211/?3", "[::1]:11212", "/run/memcached.sock"])
        #expect(configuration.connections == 8)
        #expect(configuration.options == "--TCP-KEEPALIVE")
    }

    @Test func `without a file the defaults are one server on this machine, over four connections`() async throws {
        let configuration = try await ConfigurationFile.load(nil, environment: [:], MemcachedConfiguration.self)
        #expect(configuration.servers == ["127.0.0.1:11211"])
        #expect(configuration.connections == 4)
        #expect(configuration.options == "")
    }

    @Test(arguments: [
        ("cache.example:11211", MemcachedAddress.Endpoint.host("cache.example", port: 11211), 1),
        ("my_cache:1/?65535", .host("my_cache", port: 1), 65535),
        ("[2001:db8::7]:65535/?2", .host("2001:db8::7", port: 65535), 2),
        ("/run/memcached/a.sock", .socket("/run/memcached/a.sock"), 1),
        ("/run/a/?9", .socket("/run/a"), 9),
    ])
    func `a server is a host with a port, or a socket, with a weight or without`(
        text: String, endpoint: MemcachedAddress.Endpoint, weight: UInt16
    ) throws {
        let address = try MemcachedAddress(text)
        #expect(address.endpoint == endpoint)
        #expect(address.weight == weight)
    }

    @Test(arguments: [
        "", "host", "host:", ":11211", "host:0", "host:65536", "host:+1", "host:11211/?0", "host:11211/?", "/?3",
        "host:11211/?65536", "host:11211/?-1", "ho st:1", "host:1 --USE-UDP", "[::1]", "[:::1]:11211", "::1:11211",
        "[::1:11211", "/", "/run/a\u{0}", "host:1,host:2", "hóst:1",
        "/" + String(repeating: "x", count: 110), String(repeating: "x", count: 256) + ":1",
    ])
    func `a server that cannot be is refused by name`(text: String) throws {
        let error = #expect(throws: ConfigurationError.self) { try MemcachedAddress(text) }
        let problem = try #require(error?.problems.first)
        #expect(problem.hasPrefix("memcached.servers: \"\(text)\" cannot be; it must be"))
    }

    @Test(arguments: [
        "--TCP-KEEPALIVE", "--DISTRIBUTION=modula --HASH=crc", "--SOCKET-SEND-SIZE=100000", "--POLL-TIMEOUT=100",
        "--BINARY-PROTOCOL", "--USE-UDP", "--NOREPLY", "--BUFFER-REQUESTS", "--NUMBER-OF-REPLICAS=1",
        "--REMOVE-FAILED-SERVERS=1", "--SORT-HOSTS", "--DISTRIBUTION=random", "--SERVER=10.0.0.1",
        "--NAMESPACE=\"x\"", "--HASH-WITH-NAMESPACE", "--NO-SUCH-OPTION", "nonsense", "--POLL-TIMEOUT=soon", "\"",
    ])
    func `options are passed on, and refused if they are wrong or not safe`(options: String) throws {
        var configuration = MemcachedConfiguration()
        configuration.options = options
        let good = ["--TCP-KEEPALIVE", "--DISTRIBUTION=modula", "--SOCKET-SEND-SIZE", "--POLL-TIMEOUT=1"]
        if good.contains(where: { options.hasPrefix($0) }) {
            _ = try configuration.checked()
        } else {
            let error = #expect(throws: ConfigurationError.self) { try configuration.checked() }
            let problem = try #require(error?.problems.first)
            #expect(problem.hasPrefix("memcached.options: \"\(options)\" ("))
        }
    }

    @Test func `transport, user and TLS are set by the environment as well`() async throws {
        let configuration = try await ConfigurationFile.load(
            nil,
            environment: [
                "MEMCACHED_TRANSPORT": "pipelined", "MEMCACHED_USER": "web", "MEMCACHED_PASSWORD": "kept:secret",
                "MEMCACHED_TLS": "true", "MEMCACHED_CA_FILE": "/ca.pem",
            ], MemcachedConfiguration.self)
        #expect(configuration.transport == .pipelined)
        #expect(configuration.credentials?.text == "web kept:secret")
        #expect(configuration.tls)
        #expect(configuration.caFile == "/ca.pem")
    }

    @Test(arguments: [
        (#"{ "memcached": { "password": 84910233 } }"#, "memcached.password: what it holds cannot be"),
        (#"{ "memcached": { "pasword": "84910233" } }"#, "memcached.pasword: there is no such key; the nearest is"),
        (#"{ "memcached": { "user": "web:84910233", "password": "x" } }"#, "memcached.user: what it holds cannot be"),
        (
            #"{ "memcached": { "user": "web", "password": "8491 0233" } }"#,
            "memcached.password: what it holds cannot be"
        ),
        (#"{ "memcached": { "user": "web" } }"#, "memcached.password: what it holds cannot be"),
        (#"{ "memcached": { "password": "84910233" } }"#, "memcached.user: what it holds cannot be"),
        (
            #"{ "memcached": { "transport": "fast" } }"#,
            "memcached.transport: \"fast\" cannot be; it must be \"auto\" or"
        ),
        (
            #"{ "memcached": { "caFile": "ca.pem" } }"#,
            "memcached.caFile: \"ca.pem\" cannot be; it must be empty without"
        ),
        (
            #"{ "memcached": { "tls": true, "transport": "libmemcached" } }"#,
            "memcached.tls: true cannot be; it must be"
        ),
        (
            #"{ "memcached": { "tls": true, "servers": ["/run/m.sock"] } }"#,
            "memcached.servers: \"/run/m.sock\" cannot be; it must be hosts"
        ),
        (
            #"{ "memcached": { "tls": true, "certificateFile": "c.pem" } }"#,
            "memcached.privateKeyFile: \"\" cannot be; it must be a PEM file"
        ),
    ])
    func `what cannot be is refused by name, and no password is shown`(json: String, problem: String) async throws {
        let file = FileManager.default.temporaryDirectory.appending(path: "limpet-\(UUID().uuidString).json")
        try json.write(to: file, atomically: true, encoding: .utf8)
        let error = await #expect(throws: ConfigurationError.self) {
            try await ConfigurationFile.load(file.path, environment: [:], MemcachedConfiguration.self)
        }
        try FileManager.default.removeItem(at: file)
        #expect(error?.description.hasPrefix(problem) == true, "\(String(describing: error))")
        #expect(error?.description.contains("8491") == false)
    }

    @Test(arguments: ["caFile", "certificateFile"])
    func `a file that cannot be used for TLS is refused by name`(name: String) throws {
        var configuration = MemcachedConfiguration()
        configuration.tls = true
        if name == "caFile" {
            configuration.caFile = "/nowhere.pem"
        } else {
            configuration.certificateFile = "/nowhere.pem"
            configuration.privateKeyFile = "/nowhere.pem"
        }
        let error = #expect(throws: ConfigurationError.self) { try makeStore(configuration) }
        #expect(error?.problems.first?.hasPrefix("memcached.\(name): \"/nowhere.pem\" (") == true)
    }

    @Test func `no server, the same one twice, and a number of connections that cannot be are refused`() {
        for servers in [[], ["a:1", "b:1", "a:1/?2"]] {
            var configuration = MemcachedConfiguration()
            configuration.servers = servers
            #expect(throws: ConfigurationError.self) { try configuration.checked() }
        }
        for connections in [0, 65] {
            var configuration = MemcachedConfiguration()
            configuration.connections = connections
            #expect(throws: ConfigurationError.self) { try configuration.checked() }
        }
    }

    @Test func `a store refuses a configuration before it starts anything`() {
        #expect(throws: ConfigurationError.self) { try makeStore("nowhere") }
        #expect(throws: ConfigurationError.self) { try makeStore("127.0.0.1:11211", options: "--NOREPLY") }
    }
}
