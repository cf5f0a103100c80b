import Foundation
import Limpet

/// One request of a client, as the program `cluster-clients` writes it down.
struct ClientRequest: Decodable, Sendable {
    enum Kind: String, Decodable { case write, read, session, login, logout }

    var client: Int
    var jar: Int
    var session: Int
    var node: String
    var kind: Kind
    /// The attribute that was written or read.
    var attribute: String?
    /// What was written.
    var value: Int?
    /// The attribute before it was written, or as it was read.
    var found: Int?
    /// The id that the client brought.
    var presented: String?
    /// The id that the answer gave the client, and how the store calls it.
    var given: String?
    var key: String?
    /// The answer took the cookie from the client.
    var expires: Bool?
    /// There was no session with that id.
    var isNew: Bool?
    /// Nanoseconds of the machine's clock that never goes back.
    var begin: UInt64
    /// When the answer was there, or the client stopped to wait for it.
    var end: UInt64
    /// `nil` if there was no answer.
    var status: Int?

    /// The client knows what became of it.
    var isAnswered: Bool { status != nil && status != 503 }
    /// Its write is acknowledged.
    var isStored: Bool { kind == .write && status == 200 }
}

/// Many clients of a cluster, in a process of their own: the program `cluster-clients`. They end with this object.
final class ClusterClients {
    /// One client of the load.
    struct Plan {
        var session: Int
        var jar: Int
        /// The node that makes the session.
        var home: String
        /// It has the session's cookie, and asks only when it is told to.
        var isIdle = false
    }

    /// What was printed and is not read yet; `nil` when the program has ended.
    private final class Printed: Sendable {
        let data = Locked<Data?>(Data())
    }

    private struct Line: Decodable {
        var ready, over: Bool?
        var sent: Int?
    }

    /// How long a test waits for its clients at most.
    private static let patience = Duration.seconds(40)

    /// What was asked so far.
    private(set) var requests: [ClientRequest] = []
    private var isReady = false
    private var isOver = false
    private var sent: Set<Int> = []
    private let process = Process()
    private let input = Pipe()
    /// What they have printed, and that there is more of it.
    private let printed = Printed()
    private var signals: AsyncStream<Void>.Iterator
    private var unread = Data()

    /// Starts the clients, and waits until all of their sessions are made.
    ///
    /// - Parameters:
    ///   - strays: the share of requests that go to any node, whatever the cookie says.
    ///   - ends: the share of log-ins and log-outs among the requests of a client that is alone in its session.
    ///   - patience: how many seconds a client waits for an answer before it asks another node.
    ///   - pause: how many seconds a client waits between two requests at most.
    ///   - padding: how many bytes a value has at least.
    init(
        _ clients: [Plan], nodes: [NodeProcess], strays: Double = 0, ends: Double = 0, patience: Double = 5,
        pause: Double = 0.01, padding: Int = 0
    ) async throws {
        let plan: [String: Any] = [
            "nodes": Dictionary(uniqueKeysWithValues: nodes.map { ($0.name, $0.port) }), "strays": strays,
            "ends": ends, "patience": patience, "pause": pause, "padding": padding,
            "clients": clients.map {
                ["session": $0.session, "jar": $0.jar, "home": $0.home, "idle": $0.isIdle] as [String: Any]
            },
        ]
        let script = URL(filePath: #filePath).deletingLastPathComponent().appending(path: "cluster-clients")
        process.executableURL = URL(filePath: "/usr/bin/python3")
        process.arguments = [
            script.path, String(decoding: try JSONSerialization.data(withJSONObject: plan), as: UTF8.self),
        ]
        process.standardInput = input
        let output = Pipe()
        process.standardOutput = output
        let (stream, signal) = AsyncStream.makeStream(of: Void.self, bufferingPolicy: .bufferingNewest(1))
        signals = stream.makeAsyncIterator()
        output.fileHandleForReading.readabilityHandler = { [printed] handle in
            let data = handle.availableData
            printed.data.withLock { $0?.append(data) }
            signal.yield()
            if data.isEmpty { handle.readabilityHandler = nil }
        }
        // Another program that was started in the same moment may hold the other end of the pipe.
        process.terminationHandler = { [printed] _ in
            printed.data.withLock { $0 = nil }
            signal.yield()
        }
        try process.run()
        try await wait("for their sessions") { $0.isReady }
    }

    deinit {
        guard process.isRunning else { return }
        kill(process.processIdentifier, SIGKILL)
        process.waitUntilExit()
    }

    /// Reads what the clients do until something holds.
    func wait(_ purpose: String, until isDone: (ClusterClients) throws -> Bool) async throws {
        let deadline = ContinuousClock.now + Self.patience
        while try !isDone(self) {
            guard ContinuousClock.now < deadline else {
                let last = requests.suffix(100).map { "\($0.kind) \($0.node) \($0.status ?? 0)" }
                let counts = Dictionary(grouping: last, by: \.self).mapValues(\.count)
                throw ProgramFailure(description: "the clients have waited too long \(purpose): \(counts)")
            }
            _ = await signals.next(isolation: #isolation)
            // All at once: the condition is looked at seldom if there is much.
            let data = printed.data.withLock { data in
                defer { data = data.map { _ in Data() } }
                return data
            }
            guard let data else { throw ProgramFailure(description: "the clients have ended") }
            unread += data
            while let end = unread.firstIndex(of: 0x0A) {
                try take(unread[unread.startIndex..<end])
                unread = unread[unread.index(after: end)...]
            }
        }
    }

    private func take(_ text: Data) throws {
        let line = try JSONDecoder().decode(Line.self, from: text)
        if line.ready == true {
            isReady = true
        } else if line.over == true {
            isOver = true
        } else if let client = line.sent {
            sent.insert(client)
        } else {
            requests.append(try JSONDecoder().decode(ClientRequest.self, from: text))
        }
    }

    /// Waits until clients had answers to so many requests that were sent from now on.
    func waitForAnswers(_ count: Int, _ purpose: String, of isCounted: (ClientRequest) -> Bool = { _ in true })
        async throws
    {
        let now = Self.now
        try await wait(purpose) { $0.requests.count { $0.begin >= now && $0.isAnswered && isCounted($0) } >= count }
    }

    /// Waits until each of these clients has an answer to so many requests that were sent since a moment.
    func wait(
        _ purpose: String, for count: Int = 1, from clients: some Sequence<Int>, since moment: UInt64,
        _ isCounted: (ClientRequest) -> Bool = { $0.isAnswered }
    ) async throws {
        let clients = Set(clients)
        try await wait(purpose) { all in
            var counts: [Int: Int] = [:]
            for request in all.requests where request.begin >= moment && isCounted(request) {
                counts[request.client, default: 0] += 1
            }
            return clients.allSatisfy { counts[$0, default: 0] >= count }
        }
    }

    /// Changes the share of requests that go to any node.
    func stray(_ share: Double) throws { try order("strays \(share)") }

    /// Lets idle clients read one attribute each, at the node that their cookies name, and waits until they have asked.
    func letRead(_ clients: [Int]) async throws {
        for client in clients { try order("read \(client)") }
        try await wait("to send their requests") { $0.sent.isSuperset(of: clients) }
    }

    /// Ends the load, and lets a new client of each session read all that is in it.
    func finish() async throws {
        try order("end -")
        try await wait("for the end") { $0.isOver }
    }

    private func order(_ line: String) throws {
        try input.fileHandleForWriting.write(contentsOf: Data("\(line)\n".utf8))
    }

    /// The moment as the clients write it down.
    static var now: UInt64 { SystemClock().monotonicNanoseconds() }
}
