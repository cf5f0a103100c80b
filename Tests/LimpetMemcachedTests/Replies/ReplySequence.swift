import Limpet
import LimpetTesting
import Logging
import NIOCore
import NIOEmbedded

@testable import LimpetMemcached

/// Calls on a connection, and what a server answers, determined by a seed: right replies, most of them then damaged, cut into
/// pieces as a network does, and ended.
struct ReplySequence {
    private enum Damage: CaseIterable {
        /// All replies are right.
        case none
        /// Whole replies are swapped, lost, repeated or marked for others.
        case order
        /// Bytes are changed, lost, added and cut off.
        case bytes
        /// As ``bytes``, before the connection is open.
        case greeting
    }

    /// A call with its right replies, one for each command, without marks.
    private enum Call: CaseIterable {
        case get, getMany, put, increment, touch, delete
    }

    private var random: SeededRandom
    private let damage: Damage
    private let calls: [Call]

    init(seed: UInt64) {
        random = SeededRandom(seed: seed, stream: 6)
        damage = Damage.allCases.randomElement(using: &random) ?? .none
        var calls: [Call] = []
        for _ in 0..<Int.random(in: 1...12, using: &random) {
            calls += Call.allCases.shuffled(using: &random).prefix(1)
        }
        self.calls = calls
    }

    /// Plays it.
    ///
    /// - Returns: what went wrong; empty if nothing did.
    mutating func faults() throws -> [String] {
        let play = try Play()
        var greeting = Array(
            "END\r\nMN\r\nEN O1\r\nSTAT item_size_max 1048576\r\nSTAT evictions on\r\nEND\r\n".utf8)
        if damage == .greeting { harm(&greeting) }
        // What is asked second is answered second.
        let first = min(5, greeting.count)
        try play.feed([Array(greeting[..<first]), Array(greeting[first...])])

        var expected: [String] = []
        var replies: [String] = []
        for (index, call) in calls.enumerated() {
            let number = Int.random(in: 1...9999, using: &random)
            let (right, answer) = Self.replies(call, number)
            play.begin(call, index)
            for text in right { replies.append(text.replacing("$", with: String(replies.count + 1, radix: 16))) }
            expected.append(answer)
        }
        play.run()
        if damage == .order { disorder(&replies) }
        var bytes = replies.flatMap { Array($0.utf8) }
        if damage == .bytes { harm(&bytes) }
        try play.feed(pieces(of: bytes))
        try play.end()
        let answers = play.answers
        var faults: [String] = []
        for (index, answer) in answers.enumerated() {
            guard let answer else {
                faults.append("call \(index) was not answered")
                continue
            }
            let isRight = answer == expected[index]
            let isFailure = answer == "failure"
            switch damage {
            case .none: if !isRight { faults.append("call \(index): \(answer), not \(expected[index])") }
            case .order:
                if !isRight, !isFailure { faults.append("call \(index) got \(answer)") }
            // A limit of the server's that was damaged makes some commands not be sent.
            case .bytes, .greeting: break
            }
        }
        return faults
    }

    /// The replies to a call, and what its caller is to be told.
    private static func replies(_ call: Call, _ number: Int) -> ([String], String) {
        let text = String(repeating: "v", count: number % 700) + "\(number)"
        let length = text.utf8.count
        switch call {
        case .get:
            return number % 5 == 0
                ? (["EN O$\r\n"], "[nil]") : (["VA \(length) c\(number) O$\r\n\(text)\r\n"], "[\(text) \(number)]")
        case .getMany:
            return (
                ["VA \(length) c\(number) O$\r\n\(text)\r\n", "EN O$\r\n", "VA 0 c1 O$\r\n\r\n"],
                "[\(text) \(number), nil,  1]"
            )
        case .put:
            return [
                (["HD c\(number) O$\r\n"], "stored \(number)"), (["NS c0 O$\r\n"], "conflict"),
                (["EX c0 O$\r\n"], "conflict"), (["NF c0 O$\r\n"], "conflict"),
            ][number % 4]
        case .increment: return (["VA \("\(number)".utf8.count) O$\r\n\(number)\r\n", "NF O$\r\n"], "[\(number), nil]")
        case .touch: return number % 2 == 0 ? (["HD O$\r\n"], "true") : (["EN O$\r\n"], "false")
        case .delete:
            return [
                (["HD O$\r\n"], "deleted"), (["NF O$\r\n"], "absent"), (["EX O$\r\n"], "conflict"),
            ][number % 3]
        }
    }

    private mutating func disorder(_ replies: inout [String]) {
        for _ in 0..<Int.random(in: 1...3, using: &random) where !replies.isEmpty {
            let index = replies.indices.randomElement(using: &random) ?? 0
            switch Int.random(in: 0..<4, using: &random) {
            case 0: replies.swapAt(index, replies.indices.randomElement(using: &random) ?? 0)
            case 1: replies.remove(at: index)
            case 2: replies.insert(replies[index], at: replies.indices.randomElement(using: &random) ?? 0)
            default: replies[index] = replies[index].replacing(" O", with: " O7")
            }
        }
    }

    private mutating func harm(_ bytes: inout [UInt8]) {
        for _ in 0..<Int.random(in: 1...4, using: &random) where !bytes.isEmpty {
            let index = bytes.indices.randomElement(using: &random) ?? 0
            let piece = index..<min(bytes.count, index + Int.random(in: 1...40, using: &random))
            switch Int.random(in: 0..<7, using: &random) {
            case 0: bytes[index] = UInt8.random(in: 0...255, using: &random)
            case 1: bytes[index] ^= 1 << UInt8.random(in: 0...7, using: &random)
            case 2:
                bytes.insert(
                    contentsOf: Array("0123456789 \r\nVAHDENO".utf8).shuffled(using: &random).prefix(3), at: index)
            case 3: bytes.removeSubrange(piece)
            case 4: bytes.insert(contentsOf: bytes[piece], at: index)
            case 5: bytes.removeLast(bytes.count - index)
            default:
                bytes.insert(
                    contentsOf: repeatElement(0x39, count: Int.random(in: 1...9000, using: &random)), at: index)
            }
        }
    }

    private mutating func pieces(of bytes: [UInt8]) -> [[UInt8]] {
        let longest = [1, 7, 100, 5000].randomElement(using: &random) ?? 1
        var pieces: [[UInt8]] = []
        var start = 0
        while start < bytes.count {
            let end = min(bytes.count, start + Int.random(in: 1...longest, using: &random))
            pieces.append(Array(bytes[start..<end]))
            start = end
        }
        return pieces
    }

    /// Runs the tasks of callers when it is told to, on the thread that tells it.
    private final class Callers: TaskExecutor {
        private let jobs = Locked<[UnownedJob]>([])

        func enqueue(_ job: consuming ExecutorJob) {
            let job = UnownedJob(job)
            jobs.withLock { $0.append(job) }
        }

        func run() {
            while true {
                let due = jobs.withLock { jobs in
                    defer { jobs = [] }
                    return jobs
                }
                if due.isEmpty { return }
                for job in due { job.runSynchronously(on: asUnownedTaskExecutor()) }
            }
        }
    }

    /// A connection, and those who call on it.
    // Used by one thread: the callers' tasks run there too.
    private final class Play: @unchecked Sendable {
        private let loop = EmbeddedEventLoop()
        private let channel: EmbeddedChannel
        private let server: PipelinedServer
        private let line: PipelinedLine
        private let connection: PipelinedConnection
        private(set) var answers: [String?] = []
        private let callers = Callers()

        init() throws {
            channel = EmbeddedChannel(loop: loop)
            server = PipelinedServer(
                try MemcachedAddress("127.0.0.1:1"),
                PipelinedServer.Settings(
                    timeout: .seconds(1), credentials: nil, tls: nil,
                    logger: Logger(label: "replies") { _ in SwiftLogNoOpLogHandler() }, fallBack: nil))
            line = PipelinedLine(server, eventLoop: loop, BusyLines())
            connection = PipelinedConnection(server, isProbe: false, eventLoop: loop, line: line)
            channel.connect(to: try SocketAddress(ipAddress: "127.0.0.1", port: 1), promise: nil)
            try channel.pipeline.syncOperations.addHandler(connection)
        }

        func run() { loop.run() }

        func feed(_ pieces: [[UInt8]]) throws {
            for piece in pieces where channel.isActive && !piece.isEmpty {
                try channel.writeInbound(ByteBuffer(bytes: piece))
                loop.run()
            }
        }

        /// Ends the connection, as the other side would.
        func end() throws {
            if channel.isActive { channel.close(promise: nil) }
            loop.run()
            callers.run()
        }

        private func send(_ request: MetaRequest, _ target: PipelinedTarget, hasToken: Bool = false) {
            connection.send(
                WaitingCall(
                    request: request, generation: hasToken ? server.generation : nil, target: target,
                    deadline: .now() + .seconds(1)))
        }

        private func text(_ results: [Answer<StoreEntry?>]) -> String {
            var texts: [String] = []
            for result in results {
                switch result {
                case .success(let entry?):
                    texts.append("\(String(decoding: entry.bytes, as: UTF8.self)) \(entry.token.value)")
                case .success(nil): texts.append("nil")
                case .failure: return "failure"
                }
            }
            return "[\(texts.joined(separator: ", "))]"
        }

        /// Begins a call; its answer goes to the same place in `answers`.
        func begin(_ call: Call, _ index: Int) {
            answers.append(nil)
            _ = Task.immediate(executorPreference: callers) {
                let answer = await self.answer(call)
                self.answers[index] = answer
            }
        }

        private func answer(_ call: Call) async -> String {
            switch call {
            case .get: return text(await Reply.wait { send(.get("k"), .entry($0)) })
            case .getMany:
                return text(
                    await Reply.wait { reply in
                        let entries = EntriesOfMany(count: 3, reply)
                        for index in 0..<3 { send(.get("k"), .entryOfMany(entries, index)) }
                    })
            case .put:
                switch await Reply.wait({ send(.put([1], "k", .seconds(1), .token(1)), .put($0), hasToken: true) }) {
                case .success(.stored(let token)): return "stored \(token?.value ?? 0)"
                case .success(.conflict): return "conflict"
                case .failure: return "failure"
                }
            case .increment:
                let sums = await Reply.wait { reply in
                    let sums = SumsOfMany(count: 2, reply)
                    for index in 0..<2 { send(.increment("k", 1), .sumOfMany(sums, index)) }
                }
                guard case .success(let sums) = sums else { return "failure" }
                return "[\(sums.map { $0.map { "\($0)" } ?? "nil" }.joined(separator: ", "))]"
            case .touch:
                let answer = await Reply.wait { send(.touch("k", .seconds(1)), .touched($0)) }
                guard case .success(let isThere) = answer else { return "failure" }
                return "\(isThere)"
            case .delete:
                let answer = await Reply.wait { send(.delete("k", ifToken: 1), .deleted($0), hasToken: true) }
                guard case .success(let outcome) = answer else { return "failure" }
                return "\(outcome)"
            }
        }
    }
}
