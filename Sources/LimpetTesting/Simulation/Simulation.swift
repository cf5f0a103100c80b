import Limpet

/// Runs scenarios: the real code of every node, in one thread and in virtual time.
package enum Simulation {
    /// What came of a scenario.
    package struct Report: Sendable {
        package let history: History
        package let verdict: Verdict
        /// Stands for all that happened: equal for two runs of one scenario.
        package let hash: UInt64
        /// What happened, line by line, if it was asked for.
        package let trace: [String]
        package let duration: VirtualTime
    }

    /// Runs a scenario on the caller's thread.
    package static func run(_ scenario: Scenario, isTraced: Bool = false) -> Report {
        let loop = SimulationLoop()
        let trace = SimulationTrace(isRead: isTraced)
        let source = RandomSource(SeededRandom(seed: scenario.seed, stream: 3))
        let cluster = SimulatedCluster(scenario, loop: loop, trace: trace)
        let main = Task(executorPreference: loop) {
            await RandomSource.$current.withValue(source) { await cluster.run() }
            loop.stop()
        }
        let end = loop.run()
        var history = cluster.recorder.history
        var verdict = HistoryChecker.check(history)
        if end != .finished {
            main.cancel()
            history.end = loop.now
            verdict.violations.append(Violation(.progress, "the simulation is \(end)", operations: []))
        }
        return Report(
            history: history, verdict: verdict, hash: trace.hash, trace: trace.lines, duration: loop.now)
    }
}
