import Configuration
import Foundation
import Testing

@testable import Limpet

/// The file is checked as a whole before anything is read; environment variables win over it and are checked as well.
struct ConfigurationFileTests {
    private func load(
        _ json: String, environment: [String: String] = [:]
    ) async throws(ConfigurationError) -> SessionConfiguration {
        let file = FileManager.default.temporaryDirectory.appending(path: "limpet-\(UUID().uuidString).json")
        do { try Data(json.utf8).write(to: file) } catch { Issue.record(error) }
        defer { do { try FileManager.default.removeItem(at: file) } catch { Issue.record(error) } }
        return try await ConfigurationFile.load(file.path, environment: environment, SessionConfiguration.self)
    }

    private func problem(_ json: String, environment: [String: String] = [:]) async -> String {
        do {
            _ = try await load(json, environment: environment)
            return "none"
        } catch {
            return error.description
        }
    }

    @Test func `what is not set keeps its default`() async throws {
        #expect(try await load("{}") == SessionConfiguration())
        #expect(
            try await ConfigurationFile.load(nil, environment: [:], SessionConfiguration.self)
                == SessionConfiguration())
    }

    @Test func `every value is read`() async throws {
        let configuration = try await load(
            """
            { "session": { "node": "n-1", "mode": "roaming", "maxInactiveSeconds": 5, "saveIntervalSeconds": 0,
                           "peerPollMilliseconds": 20, "maxRequestSeconds": 3,
                           "contextPath": "/shop", "virtualHost": "example.org",
                           "cookie": { "name": "sid", "path": "/shop", "domain": "example.org", "secure": true,
                                       "sameSite": "none" } },
              "lock": { "timeoutMilliseconds": 8100, "maxWaiters": 8, "rules": ["none GET /assets/**", "read * /cart"],
                        "scope": "cluster", "leaseSeconds": 8 },
              "store": { "kind": "memcached", "prefix": "p", "timeoutMilliseconds": 9, "whenUnavailable": "reject" } }
            """)
        var expected = SessionConfiguration()
        expected.node = "n-1"
        expected.mode = .roaming
        expected.maxInactive = .seconds(5)
        expected.peerPoll = .milliseconds(20)
        expected.maxRequest = .seconds(3)
        expected.saveInterval = .zero
        expected.contextPath = "/shop"
        expected.virtualHost = "example.org"
        expected.cookie.name = "sid"
        expected.cookie.path = "/shop"
        expected.cookie.domain = "example.org"
        expected.cookie.secure = true
        expected.cookie.sameSite = .none
        expected.lock.timeout = .milliseconds(8100)
        expected.lock.maxWaiters = 8
        expected.lock.rules = [try SessionAccessRule("none GET /assets/**"), try SessionAccessRule("read * /cart")]
        expected.lock.scope = .cluster
        expected.lock.lease = .seconds(8)
        expected.store.kind = .memcached
        expected.store.prefix = "p"
        expected.store.timeout = .milliseconds(9)
        expected.store.whenUnavailable = .reject
        #expect(configuration == expected)
    }

    @Test func `an environment variable wins over the file`() async throws {
        let configuration = try await load(
            #"{ "session": { "node": "a", "cookie": { "secure": false } } }"#,
            environment: ["SESSION_NODE": "b", "SESSION_COOKIE_SECURE": "true", "SESSION_SAVE_INTERVAL_SECONDS": "0"])
        #expect(configuration.node == "b")
        #expect(configuration.cookie.secure)
        #expect(configuration.saveInterval == .zero)
        let rules = try await load(
            #"{ "lock": { "rules": ["read GET /"] } }"#,
            environment: ["LOCK_RULES": "none GET /assets/**, read GET /cart"]
        ).lock.rules
        #expect(rules.map(\.description) == ["none GET /assets/**", "read GET /cart"])
    }

    @Test func `the name of each environment variable is the one that the library reads`() async throws {
        for key in SessionConfiguration.keys {
            let reader = ConfigReader(
                provider: EnvironmentVariablesProvider(environmentVariables: [key.environmentVariable: "x"]))
            #expect(reader.string(forKey: ConfigKey(key.name)) == "x", "\(key.name) is not \(key.environmentVariable)")
        }
    }

    @Test(arguments: [
        (#"{ "sesion": {} }"#, "sesion: there is no such key; the nearest is session"),
        (
            #"{ "session": { "cookies": { "name": "x" } } }"#,
            "session.cookies: there is no such key; the nearest is session.cookie"
        ),
        (
            #"{ "session": { "timeoutMilliseconds": 5 } }"#,
            "session.timeoutMilliseconds: there is no such key (5); the nearest is lock.timeoutMilliseconds"
        ),
        (
            #"{ "session": { "saveintervalseconds": 5 } }"#,
            "session.saveintervalseconds: there is no such key (5); the nearest is session.saveIntervalSeconds"
        ),
    ])
    func `an unknown key is refused with the nearest one`(json: String, expected: String) async {
        #expect(await problem(json) == expected)
    }

    @Test(arguments: [
        (#"{ "session": 5 }"#, "session: 5 cannot be"),
        (#"{ "session": { "cookie": [] } }"#, "session.cookie: [] cannot be; it must be an object"),
        (#"{ "session": { "node": 5 } }"#, "session.node: 5 cannot be; it must be a text in quotes"),
        (#"{ "session": { "node": null } }"#, "session.node: null cannot be"),
        (#"{ "session": { "node": "" } }"#, "session.node: \"\" cannot be; it must be 1 to 32 of"),
        (#"{ "session": { "node": "a.b" } }"#, "session.node: \"a.b\" cannot be"),
        (
            #"{ "session": { "saveIntervalSeconds": true } }"#,
            "session.saveIntervalSeconds: true cannot be; it must be a whole number from 0 to 86400"
        ),
        (#"{ "session": { "saveIntervalSeconds": 1.5 } }"#, "session.saveIntervalSeconds: 1.5 cannot be"),
        (#"{ "session": { "saveIntervalSeconds": "60" } }"#, "session.saveIntervalSeconds: \"60\" cannot be"),
        (#"{ "session": { "saveIntervalSeconds": -1 } }"#, "session.saveIntervalSeconds: -1 cannot be"),
        (#"{ "session": { "maxInactiveSeconds": 0 } }"#, "session.maxInactiveSeconds: 0 cannot be"),
        (#"{ "session": { "maxInactiveSeconds": 1e99 } }"#, "session.maxInactiveSeconds: 1e+99 cannot be"),
        (
            #"{ "session": { "mode": "roam" } }"#,
            "session.mode: \"roam\" cannot be; it must be \"sticky\" or \"roaming\""
        ),
        (
            #"{ "session": { "cookie": { "secure": 1 } } }"#,
            "session.cookie.secure: 1 cannot be; it must be true or false"
        ),
        (#"{ "session": { "cookie": { "name": "a b" } } }"#, "session.cookie.name: \"a b\" cannot be"),
        (#"{ "session": { "cookie": { "path": "x" } } }"#, "session.cookie.path: \"x\" cannot be"),
        (#"{ "session": { "cookie": { "path": "/;x" } } }"#, "session.cookie.path: \"/;x\" cannot be"),
        (#"{ "session": { "cookie": { "domain": "a;b" } } }"#, "session.cookie.domain: \"a;b\" cannot be"),
        (
            #"{ "lock": { "scope": "cluster", "timeoutMilliseconds": 5000 } }"#,
            "lock.timeoutMilliseconds: \"5000\" cannot be; it must be at least 6000 with lock.scope cluster: lock.leaseSeconds "
                + "and four times session.peerPollMilliseconds"
        ),
        (
            #"{ "session": { "cookie": { "sameSite": "none" } } }"#,
            "session.cookie.sameSite: \"none\" cannot be; it must be strict or lax, unless session.cookie.secure is true"
        ),
        (
            #"{ "store": { "kind": "redis" } }"#,
            "store.kind: \"redis\" cannot be; it must be \"memory\" or \"memcached\""
        ),
        (
            #"{ "lock": { "rules": ["read GET /", "read /x"] } }"#,
            "lock.rules: \"read /x\" cannot be; it must be none, read or write, then a method or *, then a path"
        ),
        (#"{ "lock": { "rules": "read GET /" } }"#, "lock.rules: \"read GET /\" cannot be; it must be a list of texts"),
        (#"{ "lock": { "rules": [5] } }"#, "lock.rules: [5] cannot be; it must be a list of texts"),
        (#"{ "lock": { "maxWaiters": -1 } }"#, "lock.maxWaiters: -1 cannot be; it must be a whole number from 0"),
        (#"{ "store": { "prefix": "a b" } }"#, "store.prefix: \"a b\" cannot be"),
        (#"[1]"#, "the file must hold one JSON object"),
        (#"{ "session": "#, "not a JSON file"),
    ])
    func `a value that cannot be is refused, with what would be right`(json: String, expected: String) async {
        let problem = await problem(json)
        #expect(problem.contains(expected), "\(problem)")
    }

    @Test func `all problems of a file are told at once`() async {
        let problem = await problem(#"{ "session": { "node": 5, "mode": 3 }, "stor": {} }"#)
        #expect(problem.split(separator: "\n").count == 3)
    }

    @Test func `a wrong environment variable is refused by its name, an empty one too`() async {
        #expect(
            await problem("{}", environment: ["SESSION_SAVE_INTERVAL_SECONDS": "soon"]).contains(
                "session.saveIntervalSeconds: SESSION_SAVE_INTERVAL_SECONDS=\"soon\" cannot be"))
        #expect(
            await problem("{}", environment: ["LOCK_TIMEOUT_MILLISECONDS": ""]).contains("lock.timeoutMilliseconds"))
        #expect(await problem("{}", environment: ["SESSION_MODE": "x"]).contains("session.mode: \"x\" cannot be"))
    }

    @Test func `a file that is not there is named`() async {
        await #expect {
            _ = try await ConfigurationFile.load("/nowhere/x.json", environment: [:], SessionConfiguration.self)
        } throws: { ($0 as? ConfigurationError)?.description == "/nowhere/x.json: there is no such file" }
    }
}
