import HTTPTypes
import Limpet
import Logging
import Testing

@testable import LimpetServer

/// The sessions' locks, with clients that go away.
@Suite(.timeLimit(.minutes(1))) struct `A session behind the server` {
    private static let visits = SessionKey<Int>("visits")

    private func makeSessions(_ change: (inout SessionConfiguration) throws -> Void = { _ in }) throws -> SessionManager
    {
        var configuration = SessionConfiguration()
        try change(&configuration)
        return try SessionManager(
            store: MemoryStore(), configuration: configuration,
            logger: Logger(label: "test", factory: { _ in SwiftLogNoOpLogHandler() }))
    }

    /// The cookie of a session that is there.
    private func makeCookie(_ sessions: SessionManager) async throws -> String {
        let answer = try await sessions.withSession([:], \ServerResponse.fields) { session in
            session[Self.visits] = 1
            return .text("")
        }
        return answer.fields[.setCookie]?.split(separator: ";").first.map(String.init) ?? ""
    }

    @Test func `is left alone, read or written as the rules say`() async throws {
        let sessions = try makeSessions { configuration in
            configuration.lock.rules = [
                try SessionAccessRule("none GET /assets/**"), try SessionAccessRule("read GET /cart"),
            ]
        }
        let cookie = try await makeCookie(sessions)
        let handler = sessions.middleware { request, session in
            if request.query("write") != nil { session[Self.visits, default: 0] += 1 }
            return .text("\(session.access) \(session[Self.visits] ?? 0)")
        }
        func get(_ path: String) async throws -> String {
            let answer = try await handler(
                ServerRequest(
                    head: HTTPRequest(
                        method: .get, scheme: "http", authority: "x", path: path, headerFields: [.cookie: cookie])))
            guard answer.status == .ok, case .bytes(let bytes) = answer.body.content else { return "\(answer.status)" }
            return String(decoding: bytes, as: UTF8.self)
        }
        #expect(try await get("/assets/a.css") == "none 0")
        #expect(try await get("/cart") == "read 1")
        #expect(try await get("/cart?write") == "500 Internal Server Error")
        #expect(try await get("/?write") == "write 2")
        #expect(try await get("/cart?x") == "read 2")
        #expect(sessions.statistics.sessionsEntered == 0)
    }

    @Test func `is not held up by a thousand waiting streams that were reset`() async throws {
        // Nobody's time is over before all are there, however slow the machine.
        let sessions = try makeSessions { $0.lock.timeout = .seconds(300) }
        let cookie = try await makeCookie(sessions)
        let holds = Signal()
        let finish = Signal()
        try await TestServer.run(
            handler: sessions.middleware { request, session in
                guard request.path == "/hold" else { return .text("\(session[Self.visits] ?? 0)") }
                session[Self.visits, default: 0] += 1
                holds.send()
                await finish.wait()
                return .text("held")
            }
        ) { server in
            let holder = try await FrameClient.connect(server.port)
            try await holder.send(.request(1, "GET", "/hold", fields: [("cookie", cookie)]))
            await holds.wait()
            var clients: [FrameClient] = []
            for _ in 0..<10 {
                let client = try await FrameClient.connect(server.port)
                for stream in 0..<100 {
                    try await client.send(.request(UInt32(2 * stream + 1), "GET", "/", fields: [("cookie", cookie)]))
                }
                clients.append(client)
            }
            while sessions.statistics.requestsWaiting < 1000 { await Task.yield() }
            for client in clients {
                for stream in 0..<100 {
                    try await client.send(
                        Frame(kind: .resetStream, stream: UInt32(2 * stream + 1), payload: [0, 0, 0, 8]))
                }
            }
            while sessions.statistics.requestsWaiting > 0 { await Task.yield() }
            #expect(sessions.statistics.lockWaitsAbandoned == 1000)
            #expect(sessions.statistics.requestsInside == 1)
            finish.send()
            #expect(try await holder.response(1).status == 200)
            try await clients[0].send(.request(201, "GET", "/", fields: [("cookie", cookie)]))
            #expect(try await clients[0].response(201).content == Array("2".utf8))
            #expect(sessions.statistics.sessionsEntered == 0)
        }
    }
}
