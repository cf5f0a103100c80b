import Limpet
import LimpetMemcached
import LimpetTesting
import Logging
import Testing

/// One server for the tests that do it no harm; it ends with the process.
enum CommonServer {
    static let first = Task { try await MemcachedServer.start() }
    static let second = Task { try await MemcachedServer.start() }
}

/// Both ways to a server.
let transports = [MemcachedConfiguration.Transport.pipelined, .libmemcached]

func makeStore(
    _ servers: String..., transport: MemcachedConfiguration.Transport = .auto,
    timeout: Duration = .milliseconds(2000), connections: Int = 4, options: String = "",
    logger: Logger = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }
) throws -> MemcachedStore {
    var configuration = MemcachedConfiguration()
    configuration.servers = servers
    configuration.transport = transport
    configuration.connections = connections
    configuration.options = options
    return try makeStore(configuration, timeout: timeout, logger: logger)
}

func makeStore(
    _ configuration: MemcachedConfiguration, timeout: Duration = .milliseconds(2000),
    logger: Logger = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }
) throws -> MemcachedStore {
    try MemcachedStore(configuration: configuration, timeout: timeout, logger: logger)
}

func key(_ name: String, group: String = "g") -> StoreKey { StoreKey(name, placement: .group(group)) }

extension SharedStore {
    func read(_ key: StoreKey) async throws -> StoreEntry? { try await get([key])[0].get() }

    func text(_ key: StoreKey) async throws -> String? {
        try await read(key).map { String(decoding: $0.bytes, as: UTF8.self) }
    }

    @discardableResult
    func put(_ text: String, _ key: StoreKey, if condition: StoreCondition = .always) async throws -> StorePut {
        try await put(Array(text.utf8), for: key, timeToLive: .seconds(300), if: condition)
    }
}

/// Runs an operation that must fail, and tells how.
func failure(
    _ operation: () async throws -> Void, sourceLocation: SourceLocation = #_sourceLocation
) async -> StoreError? {
    await #expect(throws: StoreError.self, sourceLocation: sourceLocation) { try await operation() }
}

/// Tries again until something succeeds; for what a store does within a time, not at once.
func eventually(
    within limit: Duration, sourceLocation: SourceLocation = #_sourceLocation, _ operation: () async throws -> Void
) async throws {
    let deadline = ContinuousClock.now + limit
    while true {
        do {
            return try await operation()
        } catch let error as StoreError {
            guard ContinuousClock.now < deadline else {
                Issue.record("still failing after \(limit): \(error)", sourceLocation: sourceLocation)
                return
            }
            try await Task.sleep(for: .milliseconds(10))
        }
    }
}

/// Waits until something is so.
func eventuallyTrue(
    within limit: Duration = .seconds(10), sourceLocation: SourceLocation = #_sourceLocation,
    _ condition: () async throws -> Bool
) async throws {
    let deadline = ContinuousClock.now + limit
    while !(try await condition()) {
        guard ContinuousClock.now < deadline else {
            Issue.record("not so after \(limit)", sourceLocation: sourceLocation)
            return
        }
        try await Task.sleep(for: .milliseconds(5))
    }
}

extension StoreError {
    /// Whether the server did not answer at all.
    var saysOutage: Bool { [.unavailable, .timeout, .connectionLost].contains(code) }
}
