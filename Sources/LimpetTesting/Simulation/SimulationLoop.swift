import Limpet

/// One thread, and a time of its own: tasks that prefer this executor run one after the other, and when none can, the
/// time jumps to the next timer. What happens, and in which order, depends on nothing else.
final class SimulationLoop: TaskExecutor {
    private struct Timer {
        let time: VirtualTime
        let number: UInt64
        let action: @Sendable () -> Void
    }

    private struct State {
        var now = VirtualTime.zero
        var jobs: [UnownedJob] = []
        var nextJob = 0
        /// The next one is the last. There are few: a sorted array is faster than a heap.
        var timers: [Timer] = []
        var lastNumber: UInt64 = 0
        var isRunning = true
    }

    /// How the run of a simulation ended.
    enum End { case finished, stuck, endless }

    /// No scenario takes as long as this: something waits for what never comes.
    private static let timeLimit = VirtualTime.seconds(7200)
    private let state = Locked(State())

    var now: VirtualTime { state.withLock { $0.now } }

    func enqueue(_ job: consuming ExecutorJob) {
        let job = UnownedJob(job)
        state.withLock { $0.jobs.append(job) }
    }

    /// Does something at a moment; at once, but not now, if it is past. Actions of one moment run in order.
    @discardableResult
    func at(_ time: VirtualTime, _ action: @escaping @Sendable () -> Void) -> UInt64 {
        state.withLock { state in
            state.lastNumber += 1
            let timer = Timer(time: max(time, state.now), number: state.lastNumber, action: action)
            var low = 0
            var high = state.timers.count
            while low < high {  // Before all that are earlier, or as early and older.
                let middle = (low + high) / 2
                if state.timers[middle].time > timer.time { low = middle + 1 } else { high = middle }
            }
            state.timers.insert(timer, at: low)
            return timer.number
        }
    }

    @discardableResult
    func after(_ delay: VirtualTime, _ action: @escaping @Sendable () -> Void) -> UInt64 {
        at(now + delay, action)
    }

    func cancel(_ number: UInt64) {
        state.withLock { state in
            if let index = state.timers.lastIndex(where: { $0.number == number }) { state.timers.remove(at: index) }
        }
    }

    /// Nothing more happens.
    func stop() {
        state.withLock { $0.isRunning = false }
    }

    /// Runs on the caller's thread until ``stop()``.
    func run() -> End {
        while now < Self.timeLimit {
            while let job = nextJob() { job.runSynchronously(on: asUnownedTaskExecutor()) }
            let (isRunning, timer) = state.withLock { state -> (Bool, Timer?) in
                guard state.isRunning, let timer = state.timers.popLast() else { return (state.isRunning, nil) }
                state.now = timer.time
                return (true, timer)
            }
            guard isRunning else { return .finished }
            guard let timer else { return .stuck }
            timer.action()
        }
        return .endless
    }

    private func nextJob() -> UnownedJob? {
        state.withLock { state in
            guard state.nextJob < state.jobs.count else {
                state.jobs.removeAll(keepingCapacity: true)
                state.nextJob = 0
                return nil
            }
            defer { state.nextJob += 1 }
            return state.jobs[state.nextJob]
        }
    }
}
