import Limpet

/// One start of a node, as the operating system sees it: what arrives for it (time, answers, requests) arrives now, when it is
/// no longer stopped, or never.
final class SimulatedProcess: Sendable {
    private enum Phase { case running, stopped, dead }

    private struct State {
        var phase = Phase.running
        /// What arrived while the process was stopped.
        var deferred: [@Sendable () -> Void] = []
        var lastWait: UInt64 = 0
        /// What the process waits for, and what tells it that it will never come.
        var waits: [UInt64: @Sendable () -> Void] = [:]
        var wallOffset: Int64
        /// For each server, how often the connection to it was made anew, and at which of the server's starts.
        var connections: [Int: Connection] = [:]
    }

    struct Connection { var number: UInt64; var serverStarts: Int }

    let name: String
    /// Which start of the node.
    let start: Int
    let loop: SimulationLoop
    private let state: Locked<State>

    init(name: String, start: Int, wallOffset: Int64, loop: SimulationLoop) {
        self.name = name
        self.start = start
        self.loop = loop
        state = Locked(State(wallOffset: wallOffset))
    }

    var isDead: Bool { state.withLock { $0.phase == .dead } }
    var isStopped: Bool { state.withLock { $0.phase == .stopped } }

    /// SIGSTOP.
    func stop() {
        state.withLock { if $0.phase == .running { $0.phase = .stopped } }
    }

    /// SIGCONT.
    func resume() {
        let deferred = state.withLock { state -> [@Sendable () -> Void] in
            guard state.phase == .stopped else { return [] }
            state.phase = .running
            defer { state.deferred = [] }
            return state.deferred
        }
        for action in deferred { action() }
    }

    /// SIGKILL. Whoever waits in the process is let go, to end: nothing that it does reaches anybody.
    func kill() {
        let waits = state.withLock { state in
            state.phase = .dead
            state.deferred = []
            defer { state.waits = [:] }
            return state.waits.sorted { $0.key < $1.key }.map(\.value)
        }
        for wait in waits { wait() }
    }

    /// Something arrives at the process.
    func deliver(_ action: @escaping @Sendable () -> Void) {
        let isNow = state.withLock { state in
            if state.phase == .stopped { state.deferred.append(action) }
            return state.phase == .running
        }
        if isNow { action() }
    }

    /// Waits for an answer, which is delivered at most once.
    ///
    /// - Parameter begin: gets what is called with the answer, from anywhere.
    /// - Returns: `nil` if the process died.
    func wait<Answer: Sendable>(_ begin: (@escaping @Sendable (Answer) -> Void) -> Void) async -> Answer? {
        await withCheckedContinuation { continuation in
            let number = state.withLock { state -> UInt64? in
                guard state.phase != .dead else { return nil }
                state.lastWait += 1
                let number = state.lastWait
                state.waits[number] = { continuation.resume(returning: nil) }
                return number
            }
            guard let number else { return continuation.resume(returning: nil) }
            begin { [self] answer in
                deliver { [self] in
                    // Not if it died, or was answered.
                    guard state.withLock({ $0.waits.removeValue(forKey: number) }) != nil else { return }
                    continuation.resume(returning: answer)
                }
            }
        }
    }

    /// The connection to a server. One that is of an earlier start of the server is lost, and made anew.
    func connection(to server: SimulatedServer) -> UInt64 {
        let starts = server.starts
        return state.withLock { state in
            var connection = state.connections[server.number] ?? Connection(number: 1, serverStarts: starts)
            if connection.serverStarts != starts {
                connection = Connection(number: connection.number + 1, serverStarts: starts)
            }
            state.connections[server.number] = connection
            return connection.number
        }
    }

    /// A connection failed: the tokens that were read on it are void.
    func loseConnection(to server: SimulatedServer) {
        let starts = server.starts
        state.withLock { state in
            let number = state.connections[server.number]?.number ?? 1
            state.connections[server.number] = Connection(number: number + 1, serverStarts: starts)
        }
    }

    func stepWallClock(by milliseconds: Int64) {
        state.withLock { $0.wallOffset += milliseconds }
    }

    fileprivate var wallOffset: Int64 { state.withLock { $0.wallOffset } }
}

/// A node's clocks: the simulation's time, and an error of their own.
struct SimulatedClock: NodeClock {
    /// 2026-01-01. A simulation that ran at another time would not be the same.
    static let start: Int64 = 1_767_225_600_000

    let process: SimulatedProcess

    func wallMilliseconds() -> Int64 { Self.start + process.loop.now.milliseconds + process.wallOffset }

    /// Each process began to count at another moment.
    func monotonicNanoseconds() -> UInt64 {
        process.loop.now.nanoseconds + 1_000_000_000 * UInt64(100 + process.start)
    }

    func sleep(for duration: Duration) async throws {
        let loop = process.loop
        let cancellation = Locked<(isCancelled: Bool, action: (@Sendable () -> Void)?)>((false, nil))
        let awoke: Bool? = await withTaskCancellationHandler {
            await process.wait { answer in
                let timer = loop.after(VirtualTime(duration)) { answer(true) }
                let cancel: @Sendable () -> Void = {
                    loop.cancel(timer)
                    answer(false)
                }
                let isCancelled = cancellation.withLock { cancellation in
                    cancellation.action = cancel
                    return cancellation.isCancelled
                }
                if isCancelled { cancel() }
            }
        } onCancel: {
            let cancel = cancellation.withLock { cancellation in
                cancellation.isCancelled = true
                return cancellation.action
            }
            cancel?()
        }
        guard awoke == true else { throw CancellationError() }
    }

    func after(_ duration: Duration, _ body: @escaping @Sendable () -> Void) {
        let process = process
        process.loop.after(VirtualTime(duration)) { process.deliver(body) }
    }
}
