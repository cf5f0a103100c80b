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
        var scenario = Scenario(.timeouts, seed: 1)
        let seed = try #require(
            (UInt64(1)...200).first { seed in
                scenario = Scenario(.timeouts, seed: seed)
                scenario.broken = .r7
                return !Simulation.run(scenario).verdict.violations.isEmpty
            })
        let point = try #require(Simulation.run(scenario).verdict.violations.first?.point)
        let small = Simulation.shrunk(scenario, to: point)
        let steps = { (scenario: Scenario) in scenario.plans.reduce(0) { $0 + $1.steps.count } }
        #expect(steps(small) < steps(scenario))
        #expect(Simulation.run(small).verdict.violations.contains { $0.point == point })
        #expect(small.described.contains("--seed \(seed)"))
    }
}
