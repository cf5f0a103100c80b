import Limpet
import LimpetTesting
import Testing

/// The real code of a cluster, under schedules and faults that follow from a seed.
struct SimulationTests {
    @Test(arguments: Scenario.Kind.enabled)
    func `a cluster keeps its promises`(kind: Scenario.Kind) {
        for seed in UInt64(1)...4 {
            let scenario = Scenario(kind, seed: seed)
            let report = Simulation.run(scenario)
            #expect(report.verdict.violations.isEmpty, "\(scenario.name): \(report.verdict.violations)")
            #expect(report.history.operations.contains { $0.outcome == .answered && $0.found })
        }
    }

    @Test(arguments: Scenario.Kind.enabled)
    func `a seed replays exactly`(kind: Scenario.Kind) {
        let first = Simulation.run(Scenario(kind, seed: 11))
        let second = Simulation.run(Scenario(kind, seed: 11))
        #expect(first.hash == second.hash)
        #expect(first.duration == second.duration)
        #expect(first.hash != Simulation.run(Scenario(kind, seed: 12)).hash)
    }

    @Test func `a scenario that fails is told with no more than it takes to fail`() throws {
        let steps = { (scenario: Scenario) in scenario.plans.reduce(0) { $0 + $1.steps.count } }
        // With something left out, all that follows comes at other times: now and then there is nothing that can be.
        let told = (UInt64(1)...200).lazy.compactMap { seed -> (small: Scenario, point: Violation.Point)? in
            var scenario = Scenario(.timeouts, seed: seed)
            scenario.broken = .r7
            guard let point = Simulation.run(scenario).verdict.violations.first?.point else { return nil }
            let small = Simulation.shrunk(scenario, to: point)
            return steps(small) < steps(scenario) ? (small, point) : nil
        }.first
        let (small, point) = try #require(told)
        #expect(Simulation.run(small).verdict.violations.contains { $0.point == point })
        #expect(small.described.contains("--seed \(small.seed)"))
    }
}
