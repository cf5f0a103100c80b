import Limpet
import LimpetMemcached
import LimpetTesting
import Testing

struct MemcachedContractTests {
    @Test(arguments: StoreContract.rules, transports)
    func `memcached keeps the contract`(
        rule: StoreContract.Rule, transport: MemcachedConfiguration.Transport
    ) async throws {
        let server = try await CommonServer.first.value
        try await rule.check(StoreContract { try makeStore(server.address, transport: transport) })
    }

    @Test(arguments: StoreContract.rules, transports)
    func `two servers with unequal shares keep the contract`(
        rule: StoreContract.Rule, transport: MemcachedConfiguration.Transport
    ) async throws {
        let first = try await CommonServer.first.value
        let second = try await CommonServer.second.value
        try await rule.check(
            StoreContract { try makeStore(first.address + "/?3", second.address, transport: transport, connections: 1) }
        )
    }

    @Test(arguments: transports)
    func `a value up to the server's item size is taken, and the old one survives a larger one`(
        transport: MemcachedConfiguration.Transport
    ) async throws {
        let server = try await MemcachedServer.start("-I", "2m", "-m", "16")
        let store = try makeStore(server.address, transport: transport)
        let value = [UInt8](repeating: 7, count: 2_000_000)
        _ = try await store.put(value, for: key("a"), timeToLive: .seconds(60), if: .always)
        let error = await failure {
            _ = try await store.put(value + value, for: key("a"), timeToLive: .seconds(60), if: .always)
        }
        #expect(error?.code == .tooLarge)
        #expect(error?.mayHaveTakenEffect == false)
        #expect(try await store.read(key("a"))?.bytes == value)
    }

    @Test(arguments: transports)
    func `a server without room says so, and the old value stays`(transport: MemcachedConfiguration.Transport)
        async throws
    {
        let server = try await MemcachedServer.start("-m", "2", "-M")
        let store = try makeStore(server.address, transport: transport)
        let value = [UInt8](repeating: 7, count: 100_000)
        var stored = 0
        var refusal: StoreError?
        while refusal == nil, stored < 1000 {
            do throws(StoreError) {
                _ = try await store.put(value, for: key("k\(stored)"), timeToLive: .seconds(60), if: .always)
                stored += 1
            } catch {
                refusal = error
            }
        }
        #expect(refusal?.code == .outOfMemory)
        #expect(refusal?.mayHaveTakenEffect == false)
        #expect(try await store.read(key("k0"))?.bytes == value)
        let token = try #require(try await store.read(key("k0"))).token
        _ = await failure { _ = try await store.put(value, for: key("k0"), timeToLive: .seconds(60), if: .always) }
        #expect(try await store.read(key("k0"))?.bytes == value)
        #expect(try await store.read(key("k0"))?.token == token)
    }

    @Test(arguments: transports)
    func `a server that counts no tokens is refused`(transport: MemcachedConfiguration.Transport) async throws {
        let server = try await MemcachedServer.start("-C")
        let store = try makeStore(server.address, transport: transport)
        try await store.put("one", key("a"))
        #expect(await failure { _ = try await store.read(key("a")) }?.code == .corrupt)
    }
}
