import Limpet
import LimpetTesting
import Logging
import ServiceLifecycle
import Testing

@testable import LimpetMemcached

struct MemcachedLaneTests {
    private func plan(_ jobs: String, keysOfRead: Int = 100) -> [MemcachedPlan.Step] {
        var plan = MemcachedPlan(keysOfRead: keysOfRead)
        for (index, job) in jobs.split(separator: " ").enumerated() {
            let placement = Int(job.dropFirst()) ?? 0
            if job.hasPrefix("r") {
                plan.addRead(index, placement: placement, keys: 1)
            } else {
                plan.addWrite(index, placement: placement)
            }
        }
        return plan.steps
    }

    @Test func `reads go out together, past the writes of other sessions`() {
        #expect(plan("") == [])
        #expect(plan("r1 r2 r1") == [.reads([0, 1, 2])])
        #expect(plan("w1 w1") == [.write(0), .write(1)])
        #expect(plan("r1 w2 r3 w3 r4") == [.reads([0, 2, 4]), .write(1), .write(3)])
    }

    @Test func `a read stays behind a write of its own session`() {
        #expect(plan("w1 r1") == [.write(0), .reads([1])])
        #expect(plan("r1 w1 r1 r2") == [.reads([0]), .write(1), .reads([2, 3])])
        #expect(plan("r1 w1 r2 r1 w3 r1 r3") == [.reads([0, 2]), .write(1), .reads([3, 5]), .write(4), .reads([6])])
    }

    @Test func `reads are divided where they would be too many keys`() {
        #expect(plan("r1 r2 r3 r4 r5", keysOfRead: 2) == [.reads([0, 1]), .reads([2, 3]), .reads([4])])
        var plan = MemcachedPlan(keysOfRead: 2)
        plan.addRead(0, placement: 1, keys: 50)
        plan.addRead(1, placement: 1, keys: 1)
        #expect(plan.steps == [.reads([0]), .reads([1])])
    }

    @Test func `reads of many waiting callers share a round trip`() async throws {
        let server = try await MemcachedServer.start()
        let store = try makeStore(server.address, transport: .libmemcached, connections: 1)
        for index in 0..<64 { try await store.put("value \(index)", key("k\(index)", group: "g\(index)")) }
        let before = store.readCount
        let added = store.lanes[0][0].addedCount
        try await server.pause()
        let callers = (0..<64).map { index in
            Task { try await store.text(key("k\(index)", group: "g\(index)")) }
        }
        while store.lanes[0][0].addedCount < added + 64 { await Task.yield() }
        try server.resume()
        for (index, caller) in callers.enumerated() { #expect(try await caller.value == "value \(index)") }
        // The one that was on its way when the server stopped, and all others.
        #expect(store.readCount - before <= 2)
    }

    @Test func `times to live are rounded up, and one second longer than asked`() {
        let cases: [(Duration, Int)] = [
            (.zero, 1), (.seconds(-5), 1), (.nanoseconds(1), 2), (.milliseconds(999), 2), (.seconds(1), 2),
            (.milliseconds(1001), 3), (.seconds(1800), 1801), (.seconds(2_591_999), 2_592_000),
        ]
        for (timeToLive, seconds) in cases {
            #expect(MemcachedTime.expiration(timeToLive, now: 1_700_000_000) == seconds)
        }
    }

    @Test func `a time to live of more than thirty days is told as a time, within 31 bits`() {
        #expect(MemcachedTime.expiration(.seconds(2_592_000), now: 1_700_000_000) == 1_702_592_001)
        #expect(MemcachedTime.expiration(.seconds(31_536_000), now: 1_700_000_000) == 1_731_536_001)
        #expect(MemcachedTime.expiration(.seconds(Int64.max), now: 1_700_000_000) == Int(Int32.max))
    }

    @Test func `all keys of a group live on one server, and stay there`() async throws {
        let first = try await MemcachedServer.start()
        let second = try await MemcachedServer.start()
        let addresses = [first.address, second.address]
        let store = try makeStore(addresses[0], addresses[1], transport: .libmemcached)
        for group in 0..<40 {
            for name in ["d", "v", "a"] { try await store.put("x", key("\(name)/\(group)", group: "\(group)")) }
        }
        // Another store with the same list finds them all, and so does one with fewer connections.
        for connections in [1, 7] {
            let other = try makeStore(addresses[0], addresses[1], transport: .libmemcached, connections: connections)
            for group in 0..<40 {
                let results = await other.get(["d", "v", "a"].map { key("\($0)/\(group)", group: "\(group)") })
                for result in results { #expect(try result.get() != nil) }
            }
        }
        var onFirst = 0
        for group in 0..<40 {
            let held = try first.ask("get d/\(group) v/\(group) a/\(group)\r\n", until: "END\r\n")
            let count = held.split(separator: "VALUE ").count { $0.contains("/\(group) ") }
            #expect(count == 0 || count == 3)
            onFirst += count / 3
        }
        #expect((5...35).contains(onFirst), "both servers hold a share")
    }

    @Test func `servers have the numbers of their places in the list`() async throws {
        let first = try await MemcachedServer.start()
        let second = try await MemcachedServer.start()
        let store = try makeStore(first.address, second.address, transport: .libmemcached)
        for number in 0...1 {
            _ = try await store.put(
                [0x31], for: StoreKey("c", placement: .server(number)), timeToLive: .seconds(60), if: .absent)
        }
        #expect(try await store.increment([StoreKey("c", placement: .server(1))], by: 4) == [5])
        #expect(try first.ask("get c\r\n", until: "END\r\n") == "VALUE c 0 1\r\n1\r\nEND\r\n")
        #expect(try second.ask("get c\r\n", until: "END\r\n") == "VALUE c 0 1\r\n5\r\nEND\r\n")
    }

    @Test func `a weight moves the shares, and a new server takes keys only to itself`() throws {
        let addresses = try ["a:1", "b:1", "c:1"].map { try MemcachedAddress($0) }
        let two = MemcachedPlacement(Array(addresses.prefix(2)), options: "")
        let three = MemcachedPlacement(addresses, options: "")
        let heavy = MemcachedPlacement([addresses[0], try MemcachedAddress("b:1/?4")], options: "")
        var moved = 0
        var shares = [0, 0]
        for index in 0..<10_000 {
            let before = two.server(ofGroup: "group \(index)")
            let after = three.server(ofGroup: "group \(index)")
            if before != after {
                moved += 1
                #expect(after == 2)
            }
            shares[heavy.server(ofGroup: "group \(index)")] += 1
        }
        #expect((2500...4200).contains(moved))
        #expect((7000...9000).contains(shares[1]))
    }

    @Test func `after graceful shutdown the store refuses calls as closed`() async throws {
        let server = try await CommonServer.first.value
        let store = try makeStore(server.address, transport: .libmemcached)
        try await store.put("one", StoreKey("graceful", placement: .group("g")))
        let group = ServiceGroup(services: [store], logger: Logger(label: "test") { _ in SwiftLogNoOpLogHandler() })
        async let running: Void = group.run()
        await group.triggerGracefulShutdown()
        try await running
        let error = await failure { try await store.put("two", key("a")) }
        #expect(error?.code == .closed)
        #expect(error?.mayHaveTakenEffect == false)
    }

    @Test func `jobs that wait at shutdown are done`() async throws {
        let server = try await MemcachedServer.start()
        let store = try makeStore(server.address, transport: .libmemcached, connections: 1)
        try await store.put("0", key("a"))
        try await server.pause()
        let callers = (0..<10).map { _ in Task { try await store.increment([key("a")], by: 1) } }
        while store.lanes[0][0].addedCount < 11 { await Task.yield() }
        let group = ServiceGroup(services: [store], logger: Logger(label: "test") { _ in SwiftLogNoOpLogHandler() })
        async let running: Void = group.run()
        await group.triggerGracefulShutdown()
        try server.resume()
        try await running
        for caller in callers { #expect(try await caller.value.count == 1) }
        #expect(try server.ask("get a\r\n", until: "END\r\n").contains("\r\n10\r\n"))
    }

    @Test func `a store that is not run ends its threads when it goes`() async throws {
        let server = try await CommonServer.first.value
        var lanes: [MemcachedLane] = []
        do {
            let store = try makeStore(server.address, transport: .libmemcached)
            try await store.put("one", StoreKey("short-lived", placement: .group("g")))
            lanes = Array(store.lanes.joined())
        }
        #expect(lanes.count == 4)
        for lane in lanes { await lane.waitUntilEnded() }
    }
}
