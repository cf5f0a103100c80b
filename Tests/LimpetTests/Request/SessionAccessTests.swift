import HTTPTypes
import LimpetTesting
import Logging
import Testing

@testable import Limpet

/// What the rules of `lock.rules` say of a request.
struct SessionAccessRuleTests {
    private func access(_ rules: [String], _ method: String, _ target: String) throws -> SessionAccess {
        AccessIntent(try rules.map { try SessionAccessRule($0) }, method: method, target: target).access
    }

    @Test(arguments: [
        ("none GET /assets/**", "/assets", true), ("none GET /assets/**", "/assets/", true),
        ("none GET /assets/**", "/assets/a/b.css?v=/1", true), ("none GET /assets/**", "/assetsx", false),
        ("none GET /assets/**", "/x/assets/a", false), ("none GET /cart", "/cart", true),
        ("none GET /cart", "/cart?id=1", true), ("none GET /cart", "/cart/", false), ("none GET /cart", "/Cart", false),
        ("none GET /cart", "/cart/1", false), ("none GET /user/*/photo", "/user/7/photo", true),
        ("none GET /user/*/photo", "/user//photo", false), ("none GET /user/*/photo", "/user/7/8/photo", false),
        ("none GET /user/*", "/user/", false), ("none GET /", "/", true), ("none GET /", "/x", false),
        ("none GET /**", "/", true), ("none GET /**", "", true), ("none GET /a%20b", "/a%20b", true),
        ("none GET /", "", false), ("none GET /", "*", false), ("  none   GET  /x ", "/x", true),
    ])
    func `a path is compared segment by segment, as it was sent`(rule: String, target: String, covers: Bool) throws {
        #expect(try access([rule], "GET", target) == (covers ? .none : .write))
        #expect(try access([rule], "POST", target) == .write)
    }

    @Test func `the first rule that covers a request counts, and without one it may write`() throws {
        let rules = ["read GET /shop/cart", "none GET /shop/**", "read * /**"]
        #expect(try access(rules, "GET", "/shop/cart") == .read)
        #expect(try access(rules, "GET", "/shop/x") == .none)
        #expect(try access(rules, "POST", "/shop/x") == .read)
        #expect(try access([], "GET", "/") == .write)
        #expect(try access(["write GET /a", "none * /**"], "GET", "/a") == .write)
    }

    @Test(arguments: [
        "", "read", "read GET", "GET /x", "reads GET /x", "Read GET /x", "read GET x", "read G(T /x", "read GET /x y",
        "read GET /a*", "read GET /**/x", "read GET /***", "read GET /x?y=1", "read,GET,/x",
    ])
    func `a rule that cannot be read is refused with its key, and what would be right`(rule: String) {
        let error = #expect(throws: ConfigurationError.self) { try SessionAccessRule(rule) }
        #expect(
            error?.description.hasPrefix("lock.rules: \"\(rule)\" cannot be; it must be none, read or write") == true)
    }
}

/// What a request may do with its session, and what other requests of the session may meanwhile.
struct SessionAccessTests {
    private let cluster = Cluster()

    private func node(_ rules: String..., saveInterval: Duration = .seconds(60)) throws -> Node {
        let rules = try rules.map { try SessionAccessRule($0) }
        return try cluster.node("a", saveInterval: saveInterval) { $0.lock.rules = rules }
    }

    private struct Answer { var fields: HTTPFields = [:] }

    private func get(
        _ node: Node, _ path: String, _ client: Client, _ body: (Session) async throws -> Void
    ) async throws {
        var request = HTTPRequest(method: .get, scheme: "http", authority: "x", path: path)
        if let cookie = client.cookie { request.headerFields[.cookie] = cookie }
        let answer = try await Session.$current.withValue(nil) {
            try await node.sessions.withSession(request, \Answer.fields) { session in
                try await body(session)
                return Answer()
            }
        }
        client.take(answer.fields[values: .setCookie])
    }

    private func read(
        _ node: Node, _ client: Client, _ body: (ReadOnlySession) async throws -> Void
    ) async throws {
        var fields: HTTPFields = [:]
        if let cookie = client.cookie { fields[.cookie] = cookie }
        let answer = try await Session.$current.withValue(nil) {
            try await node.sessions.withReadOnlySession(fields, \Answer.fields) { session in
                try await body(session)
                return Answer()
            }
        }
        client.take(answer.fields[values: .setCookie])
    }

    @Test func `requests that only read are in together, with one that writes before and after them`() async throws {
        let node = try node()
        let client = Client()
        try await node.request(client) { $0[.count] = 1 }
        try await node.request(client) { _ in }
        node.store.forgetCalls()
        try await read(node, client) { first in
            try await read(node, client) { second in
                #expect(first[.count] == 1 && second[.count] == 1 && second[.other, default: 7] == 7)
                #expect(node.sessions.statistics.requestsInside == 2)
            }
        }
        #expect(node.store.calls.isEmpty)
        try await node.request(client) { $0[.count, default: 0] += 1 }
        try await read(node, client) { #expect($0[.count] == 2) }
        #expect(node.sessions.statistics.sessionsEntered == 0)
    }

    @Test func `readers that come to another node at the same time load once`() async throws {
        let a = try cluster.node("a")
        let b = try cluster.node("b")
        let client = Client()
        try await a.request(client) { $0[.count] = 1 }
        try await b.request(Client()) { _ in }
        let party = Party(of: 10)
        try await withThrowingTaskGroup(of: Void.self) { group in
            for _ in 0..<10 {
                group.addTask {
                    try await read(b, client) { session in
                        #expect(session[.count] == 1)
                        await party.meet()
                    }
                }
            }
            try await group.waitForAll()
        }
        #expect(b.sessions.statistics.loads == 1)
        #expect(b.sessions.statistics.takeovers == 1)
        #expect(b.sessions.statistics.sessionsEntered == 0)
    }

    @Test func `readers that find a stale copy, or an expired session, deal with it alone`() async throws {
        let a = try cluster.node("a")
        let b = try cluster.node("b")
        let client = Client()
        let fingerprint = try await a.request(client) { session in
            session[.count] = 1
            return session.fingerprint
        }
        try await b.request(client) { $0[.count] = 2 }
        try await read(a, client) { #expect($0[.count] == 2) }
        #expect(client.route == "a")
        cluster.clock.advance(by: .seconds(1801))
        try await read(a, client) { #expect($0.isNew && $0[.count] == nil) }
        #expect(a.events.all == ["created", "expired"] && a.events.sessions == [fingerprint, fingerprint])
        #expect(a.sessions.statistics.sessionsEntered == 0)
    }

    @Test func `of readers that complete in parallel one saves the access time`() async throws {
        let node = try cluster.node("a")
        let client = Client()
        try await node.request(client) { $0[.count] = 1 }
        cluster.clock.advance(by: .seconds(61))
        node.store.forgetCalls()
        let party = Party(of: 10)
        try await withThrowingTaskGroup(of: Void.self) { group in
            for _ in 0..<10 {
                group.addTask {
                    try await read(node, client) { _ in await party.meet() }
                }
            }
            try await group.waitForAll()
        }
        #expect(node.sessions.statistics.accessTimeSaves == 1)
        #expect(node.store.shortCalls.count { $0.hasPrefix("put a") } == 1)
    }

    @Test func `a session that may only be read refuses writes, and the request fails by its rule's name`() async throws
    {
        let node = try node("read GET /cart")
        let client = Client()
        try await node.request(client) { $0[.count] = 1 }
        try await get(node, "/cart", client) { #expect($0.access == .read && $0[.count] == 1) }
        let writes: [@Sendable (Session) -> Void] = [
            { $0[.count] = 2 }, { $0.update(.count, default: 0) { $0 += 1 } }, { $0.maxInactive = .seconds(5) },
            { $0.invalidate() }, { $0.rotateID() }, { $0[.count] = nil },
        ]
        node.store.forgetCalls()
        for write in writes {
            let error = await #expect(throws: SessionError.self) { try await get(node, "/cart?x", client, write) }
            #expect(error?.code == .writeNotAllowed && error?.status == .internalServerError)
            #expect(error?.message.hasPrefix("the rule \"read GET /cart\" of lock.rules does not allow") == true)
        }
        #expect(node.store.calls.allSatisfy { $0.description.hasPrefix("get") })
        try await get(node, "/other", client) { session in
            #expect(session.access == .write && session[.count] == 1)
            session[.count] = 2
        }
        try await get(node, "/cart", client) { #expect($0[.count] == 2) }
        #expect(node.sessions.statistics.sessionsEntered == 0)
    }

    @Test func `a request that leaves its session alone waits for nobody, and finds and changes nothing`() async throws
    {
        let node = try node("none GET /assets/**")
        let client = Client()
        try await node.request(client) { $0[.count] = 1 }
        let cookies = client.setCookies
        try await node.request(client) { _ in
            node.store.forgetCalls()
            try await get(node, "/assets/a.css", client) { session in
                #expect(session.isNew && session[.count] == nil && session.access == .none)
            }
        }
        #expect(node.store.calls.isEmpty)
        let error = await #expect(throws: SessionError.self) {
            try await get(node, "/assets/a.css", client) { $0[.count] = 2 }
        }
        #expect(error?.code == .writeNotAllowed)
        #expect(client.setCookies == cookies)
        try await node.request(client) { #expect($0[.count] == 1) }
    }

    // MARK: Again, within the request

    private func again<Value>(
        _ node: Node, _ client: Client, _ body: (Session) async throws -> Value
    ) async throws -> HTTPFields {
        var fields: HTTPFields = [:]
        if let cookie = client.cookie { fields[.cookie] = cookie }
        return try await node.sessions.withSession(fields, \Answer.fields) { session in
            _ = try await body(session)
            return Answer()
        }.fields
    }

    @Test func `a handler that asks for its session again, also in a child task, gets the same one`() async throws {
        let node = try node()
        let client = Client()
        for number in 1...2 {
            try await node.request(client) { outer in
                let fields = try await again(node, client) { inner in
                    #expect(inner === outer)
                    inner[.count] = number
                }
                #expect(fields.isEmpty)
                async let child: Void = {
                    _ = try await again(node, client) { inner in
                        #expect(inner === outer)
                        inner[.other] = number
                    }
                }()
                try await child
                var reads: HTTPFields = [:]
                if let cookie = client.cookie { reads[.cookie] = cookie }
                _ = try await node.sessions.withReadOnlySession(reads, \Answer.fields) { session in
                    #expect(session[.count] == number)
                    return Answer()
                }
            }
            try await node.request(client) { #expect($0[.count] == number && $0[.other] == number) }
        }
        #expect(client.setCookies.count == 1)
        #expect(node.sessions.statistics.lockWaits == 0)
        #expect(node.sessions.statistics.created == 1)
    }

    @Test func `a handler that asks for another session is refused, and keeps its own`() async throws {
        let node = try node()
        let (ann, bob) = (Client(), Client())
        try await node.request(ann) { $0[.count] = 1 }
        try await node.request(bob) { $0[.count] = 2 }
        try await node.request(ann) { session in
            let error = await #expect(throws: SessionError.self) { _ = try await again(node, bob) { $0[.count] = 3 } }
            #expect(error?.code == .otherSessionEntered && error?.status == .internalServerError)
            session[.count] = 4
            // What is over holds up nobody.
            try await session.release()
            _ = try await again(node, bob) { $0[.count] = 5 }
        }
        try await node.request(ann) { #expect($0[.count] == 4) }
        try await node.request(bob) { #expect($0[.count] == 5) }
    }

    @Test func `sessions of two managers are entered in the order in which the managers were made`() async throws {
        let (first, second) = (try node(), try node())
        let (ann, bob) = (Client(), Client())
        try await first.request(ann) { $0[.count] = 1 }
        try await second.request(bob) { $0[.count] = 2 }
        try await first.request(ann) { outer in
            _ = try await again(second, bob) { inner in
                inner[.count] = 3
                // In it already.
                _ = try await again(first, ann) { #expect($0 === outer) }
            }
        }
        try await second.request(bob) { session in
            let error = await #expect(throws: SessionError.self) { _ = try await again(first, ann) { _ in } }
            #expect(error?.code == .otherSessionEntered)
            try await session.release()
            _ = try await again(first, ann) { $0[.count] = 4 }
        }
        try await first.request(ann) { #expect($0[.count] == 4) }
        try await second.request(bob) { #expect($0[.count] == 3) }
    }

    @Test func `a handler that may only read cannot ask to write`() async throws {
        let node = try node()
        let client = Client()
        try await node.request(client) { $0[.count] = 1 }
        try await read(node, client) { session in
            let error = await #expect(throws: SessionError.self) {
                _ = try await again(node, client) { $0[.count] = 2 }
            }
            #expect(error?.code == .writeNotAllowed)
            #expect(session[.count] == 1)
        }
    }

    // MARK: Let go early

    @Test func `a session that was released is stored, and free for others, while its request goes on`() async throws {
        let node = try node()
        let client = Client()
        var cookie: String?
        try await node.request(client) { session in
            session[.count] = 1
            let id = session.id
            try await session.release()
            #expect(node.sessions.statistics.sessionsEntered == 0)
            cookie = "session=\(id.text).a"
            try await node.request(Client(), cookie: cookie) { $0[.count, default: 0] += 1 }
            session[.count] = 9
            #expect(session[.count] == 1)
            try await session.release()
            #expect(client.setCookies.isEmpty)
        }
        #expect(client.cookie == cookie)
        #expect(node.sessions.statistics.writesAfterSeal == 1)
        #expect(node.sessions.statistics.commits == 2)
        await #expect(throws: CancellationError.self) {
            try await node.request(client) { session in
                session[.count, default: 0] += 1
                try await session.release()
                throw CancellationError()
            }
        }
        try await node.request(client) { #expect($0[.count] == 3) }
    }

    @Test func `a release that fails fails the request, whatever the handler returns`() async throws {
        let node = try cluster.node("a") { $0.store.whenUnavailable = .reject }
        let client = Client()
        try await node.request(client) { $0[.count] = 1 }
        node.store.every(.put).fails(.unavailable)
        let told = Locked<SessionError.Code?>(nil)
        let error = await #expect(throws: SessionError.self) {
            try await node.request(client) { session in
                session[.count] = 2
                do {
                    try await session.release()
                } catch let error as SessionError {
                    told.withLock { $0 = error.code }
                }
            }
        }
        #expect(told.withLock { $0 } == .storeUnavailable)
        #expect(error?.status == .serviceUnavailable)
        #expect(node.sessions.statistics.sessionsEntered == 0)
    }

    // MARK: New sessions

    @Test func `who asks for a new session before it is stored waits for that`() async throws {
        let node = try node()
        let client = Client()
        let reader = try await node.request(client) { session in
            session[.count] = 1
            let cookie = "session=\(session.id.text).a"
            #expect(node.sessions.statistics.sessionsEntered == 1)
            let reader = Task { try await node.request(Client(), cookie: cookie) { $0[.count] } }
            while node.sessions.statistics.requestsWaiting < 1 { await Task.yield() }
            return reader
        }
        #expect(try await reader.value == 1)
        // In the place of one that is gone: both are left.
        let old = "session=\(SessionID().text).a"
        try await node.request(Client(), cookie: old) { session in
            session[.count] = 1
            _ = session.id
            #expect(node.sessions.statistics.sessionsEntered == 2)
        }
        #expect(node.sessions.statistics.sessionsEntered == 0)
    }

    // MARK: Looking at it

    @Test func `it is told who is in a session, for how long, and how many wait`() async throws {
        let node = try node()
        let client = Client()
        let fingerprint = try await node.request(client) { session in
            session[.count] = 1
            return session.fingerprint
        }
        #expect(try await node.sessions.explain(fingerprint).lock == nil)
        try await read(node, client) { _ in
            cluster.clock.advance(by: .seconds(2))
            try await read(node, client) { _ in
                let writer = Task { try await node.request(client) { $0[.count] = 2 } }
                while node.sessions.statistics.requestsWaiting < 1 { await Task.yield() }
                let told = try await node.sessions.explain(fingerprint)
                #expect(told.lock == .init(access: .read, requests: 2, heldSeconds: 2, waiting: 1))
                #expect(told.description.contains("in it here: 2 with access read, for 2.0 s; 1 wait"))
                writer.cancel()
                await #expect(throws: CancellationError.self) { try await writer.value }
            }
        }
        let statistics = node.sessions.statistics
        #expect(statistics.lockWaits == 1 && statistics.lockWaitsAbandoned == 1 && statistics.lockTimeouts == 0)
    }
}

/// Those who are in a session at the same time: nobody leaves before all have come.
private final class Party: Sendable {
    private let count: Int
    private let arrived = Locked(0)

    init(of count: Int) {
        self.count = count
    }

    func meet() async {
        arrived.withLock { $0 += 1 }
        while arrived.withLock({ $0 }) < count { await Task.yield() }
    }
}
