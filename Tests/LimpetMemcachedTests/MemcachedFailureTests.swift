import Limpet
import LimpetMemcached
import LimpetTesting
import Testing

struct MemcachedFailureTests {
    @Test(arguments: transports)
    func `after a restart an old token overwrites nothing, at the first try and at the second`(
        transport: MemcachedConfiguration.Transport
    ) async throws {
        let server = try await MemcachedServer.start()
        let store = try makeStore(server.address, transport: transport)
        try await store.put("before", key("a"))
        let old = try #require(try await store.read(key("a"))).token
        try await server.restart()
        // The new process counts from 1 as well: another client's value has the very same token there.
        let other = try makeStore(server.address, transport: transport)
        try await other.put("newer", key("a"))
        let same = try #require(try await other.read(key("a"))).token
        #expect(same.value == old.value)

        do {
            // The event loop may know of the end of the connection, or not: libmemcached does not.
            let answer = try await store.put("overwritten", key("a"), if: .unchanged(since: old))
            #expect(answer == .conflict)
            #expect(transport == .pipelined)
        } catch let error as StoreError {
            #expect(error.mayHaveTakenEffect)
        }
        #expect(try await store.put("overwritten", key("a"), if: .unchanged(since: old)) == .conflict)
        #expect(try await store.delete(key("a"), ifUnchangedSince: old) == .conflict)
        #expect(try await other.text(key("a")) == "newer")

        let token = try #require(try await store.read(key("a"))).token
        #expect(try await store.put("swapped", key("a"), if: .unchanged(since: token)) != .conflict)
    }

    @Test(arguments: transports)
    func `a token of another store is worth nothing`(transport: MemcachedConfiguration.Transport) async throws {
        let server = try await CommonServer.first.value
        let first = try makeStore(server.address, transport: transport)
        let second = try makeStore(server.address, transport: transport)
        let name = StoreKey("foreign-token", placement: .group("g"))
        try await first.put("one", name)
        let token = try #require(try await first.read(name)).token
        #expect(try await second.put("two", name, if: .unchanged(since: token)) == .conflict)
    }

    @Test(arguments: transports)
    func `a stopped server fails all its callers within two time-outs, and answers rightly afterwards`(
        transport: MemcachedConfiguration.Transport
    ) async throws {
        let server = try await MemcachedServer.start()
        let store = try makeStore(server.address, transport: transport, timeout: .milliseconds(300))
        for index in 0..<100 { try await store.put("value \(index)", key("k\(index)", group: "g\(index)")) }
        try await server.pause()
        let start = ContinuousClock.now
        let errors = await withTaskGroup { group in
            for index in 0..<100 {
                group.addTask {
                    await failure {
                        let key = key("k\(index)", group: "g\(index)")
                        if index % 2 == 0 {
                            _ = try await store.read(key)
                        } else {
                            try await store.put("late \(index)", key)
                        }
                    }
                }
            }
            return await group.reduce(into: []) { $0.append($1) }
        }
        let elapsed = ContinuousClock.now - start
        // Twice the time-out, and as much again for a machine under load.
        #expect(elapsed < .milliseconds(1200))
        #expect(errors.allSatisfy { $0?.code == .timeout || $0?.code == .unavailable })
        try server.resume()
        try await eventually(within: .seconds(3)) {
            for index in 0..<100 {
                let text = try await store.text(key("k\(index)", group: "g\(index)"))
                #expect(text == "value \(index)" || text == "late \(index)")
            }
        }
    }

    @Test(arguments: transports)
    func `replies that come late are never read by another call`(transport: MemcachedConfiguration.Transport)
        async throws
    {
        let server = try await MemcachedServer.start()
        let store = try makeStore(server.address, transport: transport, timeout: .milliseconds(300), connections: 1)
        for index in 0..<20 { try await store.put("value \(index)", key("k\(index)")) }
        for round in 0..<5 {
            try await server.pause()
            let error = await failure { _ = try await store.read(key("k\(round)")) }
            #expect(error?.code == .timeout)
            try server.resume()
            try await eventually(within: .seconds(3)) {
                for index in 0..<20 {
                    let text = try await store.text(key("k\(index)"))
                    #expect(text == "value \(index)")
                }
            }
        }
    }

    @Test(arguments: transports)
    func `a write to a stopped server is ambiguous, and may happen after all`(
        transport: MemcachedConfiguration.Transport
    ) async throws {
        let server = try await MemcachedServer.start()
        let store = try makeStore(server.address, transport: transport, timeout: .milliseconds(500), connections: 1)
        try await store.put("one", key("a"))
        let token = try #require(try await store.read(key("a"))).token
        try await server.pause()
        let error = await failure { try await store.put("two", key("a"), if: .unchanged(since: token)) }
        #expect(error?.code == .timeout)
        #expect(error?.mayHaveTakenEffect == true)
        // The connection was closed: what comes now is not even sent.
        let next = await failure { try await store.put("three", key("a")) }
        #expect(next?.mayHaveTakenEffect == false)
        try server.resume()
        try await eventually(within: .seconds(3)) {
            let text = try await store.text(key("a"))
            #expect(text == "one" || text == "two")
        }
    }

    @Test(arguments: transports)
    func `a value that is cut off on its way to a stopped server is never stored in part`(
        transport: MemcachedConfiguration.Transport
    ) async throws {
        let server = try await MemcachedServer.start("-I", "32m", "-m", "128")
        let store = try makeStore(server.address, transport: transport, timeout: .milliseconds(1500), connections: 1)
        // More than most systems keep between two processes.
        let old = [UInt8](repeating: 1, count: 20_000_000)
        let new = [UInt8](repeating: 2, count: 20_000_000)
        _ = try await store.put(old, for: key("a"), timeToLive: .seconds(60), if: .always)
        for condition in 0..<2 {
            let token = try #require(try await store.read(key("a"))).token
            try await server.pause()
            let error = await failure {
                _ = try await store.put(
                    new, for: key("a"), timeToLive: .seconds(60),
                    if: condition == 0 ? .always : .unchanged(since: token))
            }
            #expect(error?.mayHaveTakenEffect == true)
            try server.resume()
            try await eventually(within: .seconds(3)) {
                let bytes = try await store.read(key("a"))?.bytes
                // Where the system keeps that much between two processes, the new value comes late, but whole.
                let isWhole = bytes == old || bytes == new
                #expect(isWhole)
            }
        }
    }

    @Test(arguments: transports)
    func `a killed server is unavailable, surely without an effect, and back within a second of its start`(
        transport: MemcachedConfiguration.Transport
    ) async throws {
        let server = try await MemcachedServer.start()
        let store = try makeStore(server.address, transport: transport, connections: 1)
        try await store.put("one", key("a"))
        try await server.kill()
        let first = await failure { try await store.put("two", key("a")) }
        // libmemcached finds the end of the connection when it uses it; the event loop is told, sooner or later.
        if transport == .libmemcached { #expect(first?.code == .connectionLost) }
        #expect(first?.mayHaveTakenEffect == (first?.code == .connectionLost))
        for _ in 0..<20 {
            let error = await failure { try await store.put("two", key("a")) }
            #expect(error?.code == .unavailable)
            #expect(error?.mayHaveTakenEffect == false)
            let read = await failure { _ = try await store.read(key("a")) }
            #expect(read?.code == .unavailable)
        }
        try await server.restart()
        try await eventually(within: .milliseconds(1200)) { try await store.put("three", key("a")) }
        #expect(try await store.text(key("a")) == "three")
    }

    @Test(arguments: transports)
    func `a store can be made while its server is down`(transport: MemcachedConfiguration.Transport) async throws {
        let server = try await MemcachedServer.start()
        try await server.kill()
        let store = try makeStore(server.address, transport: transport)
        #expect(await failure { _ = try await store.read(key("a")) }?.code == .unavailable)
        try await server.restart()
        try await eventually(within: .seconds(3)) { try await store.put("one", key("a")) }
    }

    @Test(arguments: transports)
    func `a dead server fails its own keys and no others`(transport: MemcachedConfiguration.Transport) async throws {
        let living = try await MemcachedServer.start()
        let dead = try await MemcachedServer.start()
        let store = try makeStore(living.address, dead.address, transport: transport)
        let keys = (0..<100).map { key("k\($0)", group: "g\($0)") }
        for key in keys { try await store.put(key.name, key) }
        let onLiving = try keys.map(\.name).filter {
            try living.ask("get \($0)\r\n", until: "END\r\n").hasPrefix("VALUE")
        }
        #expect((20...80).contains(onLiving.count), "both servers hold a share")
        try await dead.kill()
        let results = await store.get(keys)
        for (key, result) in zip(keys, results) {
            if onLiving.contains(key.name) {
                #expect(try result.get()?.bytes == Array(key.name.utf8))
            } else {
                #expect(throws: StoreError.self) { try result.get() }
            }
        }
    }

    @Test(arguments: transports)
    func `a cancelled caller gets its answer like any other`(transport: MemcachedConfiguration.Transport) async throws {
        let server = try await MemcachedServer.start()
        let store = try makeStore(server.address, transport: transport, connections: 1)
        try await store.put("one", key("a"))
        try await server.pause()
        let caller = Task { try await store.text(key("a")) }
        caller.cancel()
        let others = Task { try await store.text(key("a")) }
        try server.resume()
        #expect(try await caller.value == "one")
        #expect(try await others.value == "one")
        #expect(try await store.text(key("a")) == "one")
    }

    @Test(arguments: transports)
    func `an injected key reaches no server`(transport: MemcachedConfiguration.Transport) async throws {
        let server = try await MemcachedServer.start()
        let store = try makeStore(server.address, transport: transport)
        let evil = key("a 0 0 1\r\nx\r\nset injected 0 0 1\r\n")
        #expect(await failure { _ = try await store.read(evil) }?.code == .invalidKey)
        #expect(await failure { try await store.put("x", evil) }?.code == .invalidKey)
        #expect(try server.ask("get injected\r\n", until: "END\r\n") == "END\r\n")
        #expect(try server.statistics()["cmd_set"] == "0")
    }
}
