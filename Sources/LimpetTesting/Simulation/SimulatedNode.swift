import HTTPTypes
import Limpet
import Logging

/// A node of the cluster, over all its starts: the real session manager, in a process that the simulation can stop and kill.
final class SimulatedNode: Sendable {
    /// What a client sends.
    struct Request: Sendable {
        /// Its number in the history.
        let number: Int
        let fields: HTTPFields
        let client: Int
        let step: Scenario.Step
        let attributes: [String]
    }

    /// What a client gets.
    enum Reply: Sendable {
        case answer(HTTPFields)
        case failure(History.Outcome, String)
        /// The node died, or the balancer has given it up.
        case nothing
    }

    private struct State {
        var process: SimulatedProcess?
        var starts = 0
        var requests: AsyncStream<Request>.Continuation?
        var waiting: [Int: @Sendable (Reply) -> Void] = [:]
        var isGivenUp = false
        /// Requests that are in no session have numbers below 0.
        var lastClear = 0
    }

    private struct HandlerFailure: Error {}

    let name: String
    private let configuration: SessionConfiguration
    private let broken: Rule?
    private let network: SimulatedNetwork
    private let recorder: Recorder
    private let state = Locked(State())
    private let wallOffset: Locked<Int64>

    init(
        configuration: SessionConfiguration, wallOffset: Int64, broken: Rule?, network: SimulatedNetwork,
        recorder: Recorder
    ) {
        name = configuration.node
        self.configuration = configuration
        self.broken = broken
        self.network = network
        self.recorder = recorder
        self.wallOffset = Locked(wallOffset)
    }

    private var loop: SimulationLoop { network.loop }

    private var process: SimulatedProcess? { state.withLock { $0.process } }
    /// Whether the balancer sends requests here.
    var isUp: Bool { state.withLock { $0.process != nil && !$0.isGivenUp } }

    // MARK: Life

    /// One start, from when it can be killed.
    struct Start: Sendable {
        fileprivate let process: SimulatedProcess
        fileprivate let requests: AsyncStream<Request>
    }

    /// Starts the node; `nil` if it runs.
    func start() -> Start? {
        let (requests, continuation) = AsyncStream.makeStream(of: Request.self)
        let process = state.withLock { state -> SimulatedProcess? in
            guard state.process == nil else { return nil }
            state.starts += 1
            state.isGivenUp = false
            let process = SimulatedProcess(
                name: name, start: state.starts, wallOffset: wallOffset.withLock { $0 }, loop: loop)
            state.process = process
            state.requests = continuation
            return process
        }
        guard let process else { return nil }
        network.trace.note(loop.now, name.stableHash, line: "\(name) starts")
        return Start(process: process, requests: requests)
    }

    /// Runs one start of the node, until it is killed.
    func run(_ start: Start) async throws {
        let process = start.process
        let clock = SimulatedClock(process: process)
        let manager = try SessionManager(
            store: SimulatedStore(network, process: process), configuration: configuration,
            events: SessionEvents(
                created: { [recorder] id in recorder.event(.created, id, on: process) },
                destroyed: { [recorder] id, end in
                    recorder.event(end == .expired ? .expired : .invalidated, id, on: process)
                }),
            clock: clock, logger: Logger(label: "simulation", factory: { _ in SwiftLogNoOpLogHandler() }),
            breaking: broken)
        await withDiscardingTaskGroup { group in
            group.addTask { await manager.work() }
            for await request in start.requests {
                group.addTask { await self.serve(request, manager, process, clock) }
            }
            group.cancelAll()
        }
        guard !process.isDead else { return }
        await manager.drain()
        // A second signal, or the machine, may have been faster.
        if !process.isDead { end(isCrash: false) }
    }

    /// SIGTERM: no more requests come; those that are here are finished first.
    func drain() {
        guard let process else { return }
        network.trace.note(loop.now, name.stableHash, line: "\(name) drains")
        state.withLock { $0.isGivenUp = true }
        stopWhenIdle(process)
    }

    private func stopWhenIdle(_ process: SimulatedProcess) {
        let (isIdle, requests) = state.withLock { ($0.waiting.isEmpty && $0.process === process, $0.requests) }
        if isIdle {
            requests?.finish()
        } else if !process.isDead {
            loop.after(.milliseconds(10)) { [self] in stopWhenIdle(process) }
        }
    }

    /// SIGKILL: what the node was doing ends in the middle.
    func kill() { end(isCrash: true) }

    private func end(isCrash: Bool) {
        let (process, requests, waiting) = state.withLock { state in
            defer {
                state.process = nil
                state.requests = nil
                state.waiting = [:]
            }
            return (state.process, state.requests, state.waiting.sorted { $0.key < $1.key })
        }
        guard let process else { return }
        network.trace.note(loop.now, name.stableHash, line: "\(name) dies")
        recorder.withHistory { history in
            if isCrash { history.crashes.append((name, loop.now)) } else { history.drains.append((name, loop.now)) }
            for index in history.operations.indices
            where history.operations[index].node == name && history.operations[index].finished == .never {
                history.operations[index].finished = loop.now
            }
        }
        process.kill()
        requests?.finish()
        for (_, reply) in waiting { reply(.nothing) }
    }

    /// SIGSTOP.
    func stop() {
        network.trace.note(loop.now, name.stableHash, line: "\(name) is stopped")
        process?.stop()
    }

    /// SIGCONT.
    func resume() {
        network.trace.note(loop.now, name.stableHash, line: "\(name) goes on")
        state.withLock { $0.isGivenUp = false }
        process?.resume()
    }

    /// The balancer has had no answer for too long, if the node is still stopped.
    func giveUpIfStopped() {
        guard let process, process.isStopped else { return }
        let waiting = state.withLock { state in
            state.isGivenUp = true
            defer { state.waiting = [:] }
            return state.waiting.sorted { $0.key < $1.key }
        }
        for (_, reply) in waiting { reply(.nothing) }
    }

    func stepWallClock(by milliseconds: Int64) {
        wallOffset.withLock { $0 += milliseconds }
        process?.stepWallClock(by: milliseconds)
    }

    // MARK: Requests

    /// Sends a request here, and waits for what comes back.
    func request(_ request: Request) async -> Reply {
        await withCheckedContinuation { continuation in
            let process = state.withLock { state in
                if state.process != nil { state.waiting[request.number] = { continuation.resume(returning: $0) } }
                return state.process
            }
            guard let process else {
                recorder.change(request.number) { $0.finished = loop.now }
                return continuation.resume(returning: .nothing)
            }
            loop.after(network.delay()) { [self] in
                process.deliver { [self] in state.withLock { $0.requests }?.yield(request) }
            }
        }
    }

    /// Asks the node to end all sessions; `false` if that failed, or nobody knows.
    func clear() async -> Bool {
        let number = state.withLock { state in
            state.lastClear -= 1
            return state.lastClear
        }
        let step = Scenario.Step(pause: .zero, action: .clear, handling: .zero)
        let reply = await request(Request(number: number, fields: [:], client: 0, step: step, attributes: []))
        if case .answer = reply { return true }
        return false
    }

    private func answer(
        _ request: Request, _ manager: SessionManager, _ clock: SimulatedClock
    ) async throws -> HTTPFields {
        if request.step.action == .clear {
            try await manager.cluster.clear()
            return [:]
        }
        let answer = try await manager.withSession(request.fields, \Answer.fields) { session in
            try await self.handle(request, session, clock)
            return Answer()
        }
        return answer.fields
    }

    private func serve(
        _ request: Request, _ manager: SessionManager, _ process: SimulatedProcess, _ clock: SimulatedClock
    ) async {
        let reply: Reply
        do {
            reply = .answer(try await answer(request, manager, clock))
        } catch let error as SessionError {
            reply = .failure(error.code == .outcomeUnknown ? .unknown : .refused, "\(error)")
        } catch {
            reply = .failure(.refused, "\(error)")
            // A process that is shut down cancels its requests.
            let isExpected = process.isDead || error is HandlerFailure || error is CancellationError
            if !isExpected { recorder.change(request.number) { $0.failsUnexpectedly = true } }
        }
        guard !process.isDead else { return }
        recorder.change(request.number) { $0.finished = loop.now }
        loop.after(network.delay()) { [self] in
            state.withLock { $0.waiting.removeValue(forKey: request.number) }?(reply)
        }
    }

    private struct Answer { var fields: HTTPFields = [:] }

    private func handle(_ request: Request, _ session: Session, _ clock: SimulatedClock) async throws {
        var read: [String: Int] = [:]
        for name in request.attributes { read[name] = session[SessionKey<Int>(name)] }
        if !clock.process.isDead {
            recorder.change(request.number) { operation in
                operation.found = !session.isNew
                operation.read = read
            }
        }
        if request.step.handling > .zero { try await clock.sleep(for: request.step.handling.duration) }
        let changes = recorder.history.operations[request.number]
        for write in changes.writes { session[SessionKey<Int>(write.attribute)] = write.value }
        if let limit = changes.limit { session.maxInactive = .seconds(limit) }
        if changes.rotates { session.rotateID() }
        if changes.invalidates { session.invalidate() }
        if request.step.action == .writeAndFail { throw HandlerFailure() }
    }
}
