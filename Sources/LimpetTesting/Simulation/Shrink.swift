import Limpet

extension Simulation {
    /// Leaves out what a scenario does not need to break the same point: faults, clients and steps, one after the other, as long
    /// as it fails.
    package static func shrunk(_ scenario: Scenario, to point: Violation.Point) -> Scenario {
        func fails(_ scenario: Scenario) -> Bool {
            run(scenario).verdict.violations.contains { $0.point == point }
        }
        var best = scenario
        var hasChanged = true
        while hasChanged {
            hasChanged = false
            func attempt(_ change: (inout Scenario) -> Void) {
                var smaller = best
                change(&smaller)
                guard fails(smaller) else { return }
                best = smaller
                hasChanged = true
            }
            for index in best.faults.indices.reversed() { attempt { $0.faults.remove(at: index) } }
            for client in best.plans.indices where !best.plans[client].steps.isEmpty {
                attempt { $0.plans[client].steps = [] }
                let count = best.plans[client].steps.count
                if count > 1 { attempt { $0.plans[client].steps.removeLast(count / 2) } }
                for index in best.plans[client].steps.indices.reversed() {
                    attempt { $0.plans[client].steps.remove(at: index) }
                }
            }
        }
        return best
    }
}

extension Scenario {
    /// How to have it again.
    package var name: String {
        "--kinds \(kind.rawValue) --seed \(seed)" + (broken.map { " --break \($0.rawValue)" } ?? "")
    }

    /// What clients do, and what goes wrong.
    package var described: String {
        var lines = [
            "\(name): \(nodes) nodes, \(servers) servers, save interval \(saveInterval) s, tokens \(tellsTokens ? "told" : "not told"), "
                + "clocks \(skews), \(trouble)"
        ]
        for fault in faults { lines.append("  \(fault.time) \(fault.kind)") }
        for (client, plan) in plans.enumerated() where !plan.steps.isEmpty {
            let steps = plan.steps.map { step in
                "+\(step.pause) \(step.action)" + (step.node.map { " → \($0)" } ?? "")
                    + (step.handling > .zero ? " for \(step.handling)" : "")
            }
            lines.append("  client \(client) (cookies \(plan.jar)): " + steps.joined(separator: ", "))
        }
        return lines.joined(separator: "\n")
    }
}
