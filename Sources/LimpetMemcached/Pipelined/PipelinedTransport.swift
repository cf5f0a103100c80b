import Limpet
import NIOCore
import NIOPosix
import Synchronization

/// All servers, reached with meta commands over one connection for each event loop and server.
///
/// Who runs on an event loop uses its connections, without a change of thread; all others share those of one loop, that this
/// transport has chosen among the process's own.
final class PipelinedTransport: Sendable {
    /// How often a `put` starts over that meets a key that comes and goes between its two commands.
    private static let putAttempts = 8

    private let servers: [PipelinedServer]
    private let timeout: TimeAmount
    private let common: any EventLoop
    private let loops = Locked<[PipelinedLoop]>([])
    /// Set before the loops are looked at to be closed.
    private let isClosed = Atomic(false)

    init(_ addresses: [MemcachedAddress], _ settings: PipelinedServer.Settings) {
        servers = addresses.map { PipelinedServer($0, settings) }
        timeout = settings.timeout
        common = MultiThreadedEventLoopGroup.singleton.next()
    }

    /// Makes a call, and waits for its answer.
    nonisolated(nonsending) func perform<Value: Sendable>(
        _ call: (Reply<Value>) -> PipelinedLoop.Call
    ) async -> Value {
        let eventLoop = MultiThreadedEventLoopGroup.currentEventLoop ?? common
        return await Reply.wait { reply in
            let call = call(reply)
            guard let loop = loop(eventLoop) else { return call.refuseAsClosed() }
            loop.add(call)
            // Closed in between, as a loop that had nothing to close.
            if isClosed.load(ordering: .sequentiallyConsistent) { loop.close() }
        }
    }

    /// Writes a value, if the condition holds.
    ///
    /// Always is `replace`, or else `add`: a `set` that finds no memory, or is too large, destroys the old value.
    nonisolated(nonsending) func put(
        _ bytes: [UInt8], _ key: String, _ server: Int, _ timeToLive: Duration, _ condition: StoreCondition
    ) async -> Answer<StorePut> {
        switch condition {
        case .absent:
            return await perform { .put(.put(bytes, key, timeToLive, .absent), server: server, generation: nil, $0) }
        case .unchanged(let token):
            guard token.value != 0 else { return .success(.conflict) }
            return await perform {
                .put(
                    .put(bytes, key, timeToLive, .token(token.value)), server: server, generation: token.generation, $0)
            }
        case .always:
            for _ in 0..<Self.putAttempts {
                for condition in [MetaRequest.Condition.present, .absent] {
                    let answer = await perform {
                        .put(.put(bytes, key, timeToLive, condition), server: server, generation: nil, $0)
                    }
                    guard case .success(.conflict) = answer else { return answer }
                }
            }
            return .failure(
                StoreError(
                    .unavailable, "the key comes and goes while it is written", mayHaveTakenEffect: false))
        }
    }

    /// What there is on an event loop; `nil` after ``close()``.
    private func loop(_ eventLoop: any EventLoop) -> PipelinedLoop? {
        guard !isClosed.load(ordering: .acquiring) else { return nil }
        return loops.withLock { loops in
            if let loop = loops.first(where: { $0.eventLoop === eventLoop }) { return loop }
            let loop = PipelinedLoop(eventLoop, servers, timeout: timeout)
            loops.append(loop)
            return loop
        }
    }

    /// Takes no more calls. The connections are closed when what they were asked is answered.
    func close() {
        for loop in closed() { loop.close() }
    }

    /// Closes, and waits until all is answered.
    func closeAndWait() async {
        let loops = closed()
        for loop in loops { loop.close() }
        for loop in loops {
            // Only what came from elsewhere is still on its way to the lines.
            if loop.eventLoop === common { await withCheckedContinuation { loop.whenEmpty($0) } }
            await withCheckedContinuation { loop.busyLines.whenNone($0) }
        }
    }

    /// - Returns: the loops that there is something to close on. Those of servers that have stopped are no more.
    private func closed() -> [PipelinedLoop] {
        isClosed.store(true, ordering: .sequentiallyConsistent)
        let all = loops.withLock { $0 }
        return all.filter { $0.eventLoop === common || $0.busyLines.count > 0 }
    }
}

/// What there is on one event loop: a line to each server, and a box for the calls that come from elsewhere.
final class PipelinedLoop: Sendable {
    /// What a caller wants. Keys are valid, and servers are there.
    enum Call: Sendable {
        case get(String, server: Int, Reply<[Answer<StoreEntry?>]>)
        case getMany([Read], Reply<[Answer<StoreEntry?>]>)
        case put(MetaRequest, server: Int, generation: UInt64?, Reply<Answer<StorePut>>)
        case increment([String], UInt64, server: Int, Reply<Answer<[UInt64?]>>)
        case touch(String, Duration, server: Int, Reply<Answer<Bool>>)
        case delete(String, StoreToken?, server: Int, Reply<Answer<StoreDelete>>)

        func refuseAsClosed() {
            let error = StoreError(.closed, "the store was shut down", mayHaveTakenEffect: false)
            switch self {
            case .get(_, _, let reply): reply.resume([.failure(error)])
            case .getMany(let reads, let reply): reply.resume(reads.map { _ in .failure(error) })
            case .put(_, _, _, let reply): reply.resume(.failure(error))
            case .increment(_, _, _, let reply): reply.resume(.failure(error))
            case .touch(_, _, _, let reply): reply.resume(.failure(error))
            case .delete(_, _, _, let reply): reply.resume(.failure(error))
            }
        }
    }

    /// One key of a read of many.
    struct Read: Sendable {
        let key: String
        let server: Int
    }

    let eventLoop: any EventLoop
    private let lines: NIOLoopBoundBox<[PipelinedLine]>
    let busyLines = BusyLines()
    private let timeout: TimeAmount
    private let box = Locked<[Call]>([])

    init(_ eventLoop: any EventLoop, _ servers: [PipelinedServer], timeout: TimeAmount) {
        self.eventLoop = eventLoop
        self.timeout = timeout
        let busyLines = busyLines
        lines = .makeBoxSendingValue(
            servers.map { PipelinedLine($0, eventLoop: eventLoop, busyLines) }, eventLoop: eventLoop)
    }

    /// Takes a call, on the event loop or elsewhere.
    func add(_ call: Call) {
        if eventLoop.inEventLoop { return perform(call, lines.value) }
        let isFirst = box.withLock { box in
            box.append(call)
            return box.count == 1
        }
        if isFirst { eventLoop.execute { self.empty() } }
    }

    private func empty() {
        let calls = box.withLock { box in
            let calls = box
            box = []
            return calls
        }
        let lines = lines.value
        for call in calls { perform(call, lines) }
    }

    private func perform(_ call: Call, _ lines: [PipelinedLine]) {
        let deadline = NIODeadline.now() + timeout
        switch call {
        case .get(let key, let server, let reply): lines[server].send(.get(key), .entry(reply), by: deadline)
        case .getMany(let reads, let reply):
            let entries = EntriesOfMany(count: reads.count, reply)
            for (index, read) in reads.enumerated() {
                lines[read.server].send(.get(read.key), .entryOfMany(entries, index), by: deadline)
            }
        case .put(let request, let server, let generation, let reply):
            lines[server].send(request, generation: generation, .put(reply), by: deadline)
        case .increment(let keys, let amount, let server, let reply):
            let sums = SumsOfMany(count: keys.count, reply)
            for (index, key) in keys.enumerated() {
                lines[server].send(.increment(key, amount), .sumOfMany(sums, index), by: deadline)
            }
        case .touch(let key, let timeToLive, let server, let reply):
            lines[server].send(.touch(key, timeToLive), .touched(reply), by: deadline)
        case .delete(let key, let token, let server, let reply):
            lines[server].send(
                .delete(key, ifToken: token?.value), generation: token?.generation, .deleted(reply), by: deadline)
        }
    }

    /// Closes the lines when they have answered what they were asked.
    func close() {
        eventLoop.execute {
            // What was added before is performed before.
            self.empty()
            for line in self.lines.value { line.close() }
        }
    }

    /// Resumes when what was added before has been performed.
    func whenEmpty(_ continuation: CheckedContinuation<Void, Never>) {
        eventLoop.execute { continuation.resume() }
    }
}

/// How many lines of an event loop have a connection, or are about to.
final class BusyLines: Sendable {
    private struct State {
        var count = 0
        var waiting: [CheckedContinuation<Void, Never>] = []
    }

    private let state = Locked(State())

    var count: Int { state.withLock { $0.count } }

    func add() { state.withLock { $0.count += 1 } }

    func subtract() {
        let ended = state.withLock { state in
            state.count -= 1
            guard state.count == 0 else { return [CheckedContinuation<Void, Never>]() }
            defer { state.waiting = [] }
            return state.waiting
        }
        for continuation in ended { continuation.resume() }
    }

    /// Resumes when there is none.
    func whenNone(_ continuation: CheckedContinuation<Void, Never>) {
        let isNow = state.withLock { state in
            if state.count > 0 { state.waiting.append(continuation) }
            return state.count == 0
        }
        if isNow { continuation.resume() }
    }
}
