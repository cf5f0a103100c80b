import HTTPTypes
import Limpet
import LimpetServer

#if canImport(FoundationEssentials)
    import FoundationEssentials
#else
    import Foundation
#endif

extension SessionKey<Int> {
    static var count: Self { Self("count") }
}

extension SessionKey<Bool> {
    static var isLoggedIn: Self { Self("isLoggedIn") }
}

extension SessionKey<String> {
    static func text(_ name: some StringProtocol) -> Self { Self("text.\(name)") }
}

/// What the node answers: see README.md beside this file.
struct Routes: Sendable {
    /// Bytes of an attribute or of an echo at most; sessions are kept whole in memory.
    private static let maxBodyBytes = 1 << 20
    /// A request may be held for a minute at most: a typing error should not keep a session for a day.
    private static let maxHoldMilliseconds = 60_000

    let sessions: SessionManager

    /// Answers a request, with its session where the route needs one.
    @Sendable func answer(_ request: ServerRequest) async throws -> ServerResponse {
        switch (request.method, request.path) {
        case (.get, "/healthz"): .text("ok")
        case (.get, "/stats"): try json(sessions.statistics)
        case (.get, "/cluster"): try json(ClusterAnswer(nodes: try await sessions.cluster.nodes()))
        case (_, "/echo"): try await echo(request)
        default: try await sessions.middleware(answer)(request)
        }
    }

    @Sendable private func answer(_ request: ServerRequest, _ session: Session) async throws -> ServerResponse {
        let attribute = request.path.hasPrefix("/attributes/") ? request.path.dropFirst("/attributes/".count) : ""
        switch (request.method, request.path) {
        case (.get, "/session"): return try json(SessionAnswer(session, node: sessions.node))
        case (.get, "/explain"):
            guard !session.isNew else { return try failure(.notFound, "the request has no session") }
            return try json(try await sessions.explain(session.fingerprint))
        case (.post, "/count"):
            session[.count, default: 0] += 1
            return try json(CountAnswer(node: sessions.node, count: session[.count, default: 0]))
        case (.post, "/login"):
            session[.isLoggedIn] = true
            session.rotateID()
            return try json(LoginAnswer(node: sessions.node, isNew: session.isNew))
        case (.post, "/logout"):
            session.invalidate()
            return ServerResponse(status: .noContent)
        case (.get, "/hold"): return try await hold(request, session)
        case (.put, _) where !attribute.isEmpty:
            let bytes = try await request.body.collect(upTo: Self.maxBodyBytes)
            guard let text = String(validating: bytes, as: UTF8.self) else {
                return try failure(.badRequest, "the body of an attribute is text in UTF-8")
            }
            let previous = session[.text(attribute)]
            session[.text(attribute)] = text
            return try json(
                AttributeAnswer(session, node: sessions.node, name: attribute, value: text, previous: previous))
        case (.get, _) where !attribute.isEmpty:
            let text = session[.text(attribute)]
            return try json(
                AttributeAnswer(session, node: sessions.node, name: attribute, value: text),
                status: text == nil ? .notFound : .ok)
        case (.delete, _) where !attribute.isEmpty:
            let previous = session[.text(attribute)]
            session[.text(attribute)] = nil
            return try json(
                AttributeAnswer(session, node: sessions.node, name: attribute, value: nil, previous: previous))
        default: return try failure(.notFound, "no such resource")
        }
    }

    private func echo(_ request: ServerRequest) async throws -> ServerResponse {
        let bytes = try await request.body.collect(upTo: Self.maxBodyBytes)
        if bytes.isEmpty { return .text("ok") }
        var fields: HTTPFields = [:]
        fields[.contentType] = request.fields[.contentType] ?? "application/octet-stream"
        return ServerResponse(status: .ok, fields: fields, body: ResponseBody(bytes))
    }

    private func hold(_ request: ServerRequest, _ session: Session) async throws -> ServerResponse {
        guard let milliseconds = request.query("ms").flatMap(Int.init),
            (0...Self.maxHoldMilliseconds).contains(milliseconds)
        else { return try failure(.badRequest, "ms is a whole number from 0 to \(Self.maxHoldMilliseconds)") }
        try await Task.sleep(for: .milliseconds(milliseconds))
        return try json(HoldAnswer(node: sessions.node, waitedMs: Int(session.lockWait / .milliseconds(1))))
    }

    private func json(_ answer: some Encodable, status: HTTPResponse.Status = .ok) throws -> ServerResponse {
        let encoder = JSONEncoder()
        encoder.outputFormatting = .sortedKeys
        encoder.dateEncodingStrategy = .custom { date, encoder in
            var container = encoder.singleValueContainer()
            try container.encode(text(date))
        }
        return .json(Array(try encoder.encode(answer)), status: status)
    }

    private func failure(_ status: HTTPResponse.Status, _ message: String) throws -> ServerResponse {
        try json(FailureAnswer(node: sessions.node, error: message), status: status)
    }
}

private struct ClusterAnswer: Encodable {
    let nodes: [SessionCluster.Node]
    let total: Int

    init(nodes: [SessionCluster.Node]) {
        self.nodes = nodes
        total = nodes.reduce(0) { $0 + $1.sessions }
    }
}

private struct LoginAnswer: Encodable {
    let node: String
    let isNew: Bool
}

private struct CountAnswer: Encodable {
    let node: String
    let count: Int
}

private struct HoldAnswer: Encodable {
    let node: String
    let waitedMs: Int
}

private struct AttributeAnswer: Encodable {
    let node: String
    let isNew: Bool
    let name: String
    let value: String?
    let previous: String?

    init(_ session: Session, node: String, name: some StringProtocol, value: String?, previous: String? = nil) {
        self.node = node
        isNew = session.isNew
        self.name = String(name)
        self.value = value
        self.previous = previous
    }
}

private struct FailureAnswer: Encodable {
    let node: String
    let error: String
}

/// Everything about a session but its id. What a session that is stored nowhere does not have is `null`.
private struct SessionAnswer: Encodable {
    private let session: Session
    private let node: String

    init(_ session: Session, node: String) {
        self.session = session
        self.node = node
    }

    private enum CodingKeys: String, CodingKey {
        case node, home, isNew, count, source, createdAt, lastAccessedAt, epoch
    }

    func encode(to encoder: any Encoder) throws {
        var answer = encoder.container(keyedBy: CodingKeys.self)
        try answer.encode(node, forKey: .node)
        try answer.encode(session.home, forKey: .home)
        try answer.encode(session.isNew, forKey: .isNew)
        try answer.encode(session[.count, default: 0], forKey: .count)
        try answer.encode(session.source, forKey: .source)
        try answer.encode(session.isNew ? nil : text(session.createdAt), forKey: .createdAt)
        try answer.encode(session.isNew ? nil : text(session.lastAccessedAt), forKey: .lastAccessedAt)
        // A text: many JSON readers keep only 53 bits of a number.
        try answer.encode(session.epoch.map { "\($0)" }, forKey: .epoch)
    }
}

private func text(_ date: Date) -> String {
    date.formatted(Date.ISO8601FormatStyle(includingFractionalSeconds: true))
}
