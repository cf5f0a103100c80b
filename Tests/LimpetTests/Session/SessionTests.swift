import Limpet
import LimpetTesting
import Testing

/// What a handler sees of its session.
struct SessionTests {
    struct Cart: Codable, Sendable, Equatable {
        var items: [String] = []
        var total = 0.0
    }

    @Test func `a request reads what it has written`() async throws {
        let node = try Cluster().node("a")
        try await node.request(Client()) { session in
            #expect(session[.user] == nil)
            session[.user] = "ann"
            #expect(session[.user] == "ann")
            session[.count, default: 10] += 1
            #expect(session[.count] == 11)
            session[.count] = nil
            #expect(session[.count, default: 3] == 3)
        }
    }

    @Test func `values of all kinds survive the store`() async throws {
        let cluster = Cluster()
        let client = Client()
        let cart = Cart(items: ["a", "ü", "\u{0}\r\n", ""], total: 0.1)
        try await cluster.node("a").request(client) { session in
            session[SessionKey<Cart>("cart")] = cart
            session[SessionKey<[String: Int?]>("map")] = ["x": 1, "y": nil]
            session[SessionKey<Double>("double")] = -0.5
            session[SessionKey<Bool>("flag")] = false
            session[.user] = ""
            session[.count] = .min
        }
        try await cluster.node("b").request(client) { session in
            #expect(session[SessionKey<Cart>("cart")] == cart)
            #expect(session[SessionKey<[String: Int?]>("map")] == ["x": 1, "y": nil])
            #expect(session[SessionKey<Double>("double")] == -0.5)
            #expect(session[SessionKey<Bool>("flag")] == false)
            #expect(session[.user] == "")
            #expect(session[.count] == .min)
        }
    }

    @Test func `child tasks that update one attribute lose nothing`() async throws {
        let node = try Cluster().node("a")
        let client = Client()
        try await node.request(client) { session in
            await withTaskGroup(of: Void.self) { group in
                for _ in 0..<100 {
                    group.addTask { session.update(.count, default: 0) { $0 += 1 } }
                }
            }
            #expect(session[.count] == 100)
        }
    }

    @Test func `a value of another type reads as absent and stays as it is until it is overwritten`() async throws {
        let cluster = Cluster()
        let client = Client()
        try await cluster.node("a").request(client) { session in
            session[SessionKey<String>("count")] = "many"
            session[.user] = "ann"
        }
        let b = try cluster.node("b")
        try await b.request(client) { session in
            #expect(session[.count] == nil)
            #expect(session[.count] == nil)
            session[.other] = 1
        }
        #expect(b.sessions.statistics.undecodable == 1)
        try await cluster.node("c").request(client) { session in
            #expect(session[SessionKey<String>("count")] == "many")
            #expect(session[.user] == "ann")
            session[.count] = 3
        }
        try await b.request(client) { #expect($0[.count] == 3) }
    }

    @Test func `a write after the response has begun is refused and counted`() async throws {
        let node = try Cluster().node("a")
        let client = Client()
        let session = try await node.request(client) { session in
            session[.count] = 1
            return session
        }
        node.store.forgetCalls()
        session[.count] = 2
        session.update(.count, default: 0) { $0 += 1 }
        session.invalidate()
        session.maxInactive = .seconds(1)
        #expect(session[.count] == 1)
        #expect(node.sessions.statistics.writesAfterSeal == 4)
        #expect(node.store.calls.isEmpty)
        try await node.request(client) { #expect($0[.count] == 1) }
    }

    @Test func `a value that cannot be encoded fails the request, by the attribute's name`() async throws {
        let node = try Cluster().node("a")
        let client = Client()
        try await node.request(client) { $0[.count] = 1 }
        let error = await #expect(throws: SessionError.self) {
            try await node.request(client) { session in
                session[.count] = 2
                session[SessionKey<Double>("ratio")] = .nan
            }
        }
        #expect(error?.code == .notEncodable)
        #expect(error?.message.contains("ratio") == true)
        try await node.request(client) { #expect($0[.count] == 1) }
    }

    @Test func `the idle limit of one session is its own`() async throws {
        let cluster = Cluster()
        let node = try cluster.node("a")
        let (short, long) = (Client(), Client())
        try await node.request(short) { session in
            session[.count] = 1
            session.maxInactive = .seconds(10)
        }
        try await node.request(long) { $0[.count] = 1 }
        cluster.clock.advance(by: .seconds(11))
        try await node.request(short) { #expect($0.isNew) }
        try await node.request(long) { #expect(!$0.isNew) }
    }

    @Test func `applications with another path, host or prefix do not share sessions`() async throws {
        let cluster = Cluster()
        let client = Client()
        try await cluster.node("a").request(client) { $0[.count] = 1 }
        let changes: [@Sendable (inout SessionConfiguration) -> Void] = [
            { $0.contextPath = "/other" }, { $0.virtualHost = "example.org" }, { $0.store.prefix = "other" },
        ]
        for change in changes {
            try await cluster.node("b", change).request(Client(), cookie: client.cookie) { #expect($0.isNew) }
        }
        try await cluster.node("b").request(client) { #expect($0[.count] == 1) }
    }

    @Test func `no store key holds the id`() async throws {
        let cluster = Cluster()
        let node = try cluster.node("a", saveInterval: .zero)
        let client = Client()
        try await node.request(client) { $0[.count] = 1 }
        try await node.request(client) { _ in }
        try await node.request(client) { $0.rotateID() }
        let ids = client.setCookies.compactMap { $0.firstMatch(of: /session=([A-Za-z0-9_-]{24})\./)?.1 }
        #expect(Set(ids).count == 2)
        for key in node.store.calls.flatMap(\.keys) {
            #expect(key.isValid)
            #expect(!ids.contains { key.name.contains($0) })
        }
    }
}
