import CMemcached
import Limpet
import LimpetTesting
import Testing

@testable import LimpetMemcached

/// Another client of libmemcached, told of its servers in a text, as applications in other languages do.
private final class OtherClient {
    private let handle: UnsafeMutablePointer<memcached_st>
    private let servers: [String]

    init(_ servers: [String]) throws {
        self.servers = servers.map { String($0.split(separator: "/")[0]) }
        let text = servers.map { "--SERVER=\($0)" }.joined(separator: " ")
        handle = try #require(memcached(text, text.utf8.count))
        memcached_behavior_set(handle, MEMCACHED_BEHAVIOR_KETAMA_WEIGHTED, 1)
    }

    deinit { memcached_free(handle) }

    /// Where it would look for a key: the number of the server in its list.
    func server(of key: String) throws -> Int {
        var error = MEMCACHED_SUCCESS
        // A server of the handle's list, which stays where it is until the handle is freed.
        let server = try #require(memcached_server_by_key(handle, key, key.utf8.count, &error))
        let name = "\(String(cString: memcached_server_name(server))):\(memcached_server_port(server))"
        return try #require(servers.firstIndex(of: name))
    }
}

struct PlacementTests {
    private static let lists = [
        ["10.0.0.1:11211"], ["10.0.0.1:11211", "10.0.0.2:11211"], ["a.example:11211/?3", "b.example:11212"],
        ["10.0.0.1:11211/?1", "10.0.0.2:11211/?2", "10.0.0.3:11211/?7", "10.0.0.4:11213"],
        // One removed from the middle of the list before, and one added behind it.
        ["10.0.0.1:11211/?1", "10.0.0.3:11211/?7", "10.0.0.4:11213"],
        ["10.0.0.1:11211/?1", "10.0.0.3:11211/?7", "10.0.0.4:11213", "10.0.0.5:11211/?100"],
        (1...16).map { "cache-\($0).example:11211/?\($0 % 4 + 1)" },
    ]

    @Test(arguments: lists) func `a hundred thousand keys live where other clients of libmemcached look for them`(
        servers: [String]
    ) throws {
        let placement = MemcachedPlacement(try servers.map { try MemcachedAddress($0) }, options: "")
        let other = try OtherClient(servers)
        var random = SeededRandom(seed: UInt64(servers.count))
        var shares = [Int](repeating: 0, count: servers.count)
        for _ in 0..<100_000 {
            let key = String(random.next(), radix: 36)
            let server = placement.server(ofGroup: key)
            guard try server == other.server(of: key) else {
                Issue.record("\(key) lives on \(server)")
                return
            }
            shares[server] += 1
        }
        #expect(shares.allSatisfy { $0 > 0 })
    }

    @Test func `what one transport writes the other finds, on the same server`() async throws {
        var servers: [MemcachedServer] = []
        for _ in 0..<3 { servers.append(try await MemcachedServer.start("-m", "16")) }
        let list = [servers[0].address, servers[1].address + "/?3", servers[2].address + "/?2"]
        func store(_ transport: MemcachedConfiguration.Transport) throws -> MemcachedStore {
            var configuration = MemcachedConfiguration()
            configuration.servers = list
            configuration.transport = transport
            return try makeStore(configuration)
        }
        let stores = [try store(.pipelined), try store(.libmemcached)]
        for (writer, reader) in [(stores[0], stores[1]), (stores[1], stores[0])] {
            let keys = (0..<500).map { key("k\($0)", group: "g\($0)") }
            for (index, key) in keys.enumerated() { try await writer.put("\(index)", key) }
            for (index, result) in await reader.get(keys).enumerated() {
                #expect(try result.get()?.bytes == Array("\(index)".utf8))
            }
            for key in keys { #expect(try await reader.delete(key, ifUnchangedSince: nil) == .deleted) }
        }
    }
}
