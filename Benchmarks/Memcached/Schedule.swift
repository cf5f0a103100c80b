import DequeModule
import Foundation
import Limpet
import NIOCore

/// Tells callers when to begin, at a steady rate, whether those who began before are done or not.
final class Schedule: Sendable {
    private typealias Caller = CheckedContinuation<ContinuousClock.Instant?, Never>

    private struct State {
        /// When calls should have begun that nobody has taken yet.
        var due = Deque<ContinuousClock.Instant>()
        var idle: [Caller] = []
        var begun = 0
        var isOver = false
    }

    private let rate: Double
    private let count: Int
    private let state = Locked(State())

    init(rate: Double, count: Int) {
        self.rate = rate
        self.count = count
    }

    /// Waits for the next call; `nil` at the end.
    func next() async -> ContinuousClock.Instant? {
        await withCheckedContinuation { continuation in
            let (isNow, due) = state.withLock { state -> (Bool, ContinuousClock.Instant?) in
                if let due = state.due.popFirst() { return (true, due) }
                if state.isOver { return (true, nil) }
                state.idle.append(continuation)
                return (false, nil)
            }
            if isNow { continuation.resume(returning: due) }
        }
    }

    /// Begins, and looks four thousand times a second what is due: on the callers' event loop, so that no third thread wants
    /// one of two processors; on a thread of its own if they have none.
    func start(on eventLoop: (any EventLoop)?) {
        let start = ContinuousClock.now
        if let eventLoop {
            _ = eventLoop.scheduleRepeatedTask(initialDelay: .zero, delay: .microseconds(250)) { task in
                if !self.look(since: start) { task.cancel() }
            }
        } else {
            Thread { while self.look(since: start) { usleep(250) } }.start()
        }
    }

    /// Lets callers begin for whom it is time.
    ///
    /// - Returns: whether there is more to come.
    private func look(since start: ContinuousClock.Instant) -> Bool {
        let due = min(count, Int((ContinuousClock.now - start) / .seconds(1) * rate))
        let (woken, ended) = state.withLock { state -> ([(Caller, ContinuousClock.Instant)], [Caller]) in
            for index in state.begun..<due { state.due.append(start + .seconds(Double(index) / rate)) }
            state.begun = due
            var woken: [(Caller, ContinuousClock.Instant)] = []
            while let caller = state.idle.last, let time = state.due.popFirst() {
                state.idle.removeLast()
                woken.append((caller, time))
            }
            guard due == count else { return (woken, []) }
            state.isOver = true
            defer { state.idle = [] }
            return (woken, state.idle)
        }
        for (caller, time) in woken { caller.resume(returning: time) }
        for caller in ended { caller.resume(returning: nil) }
        return due < count
    }
}
