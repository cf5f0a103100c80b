import Limpet
import LimpetTesting

#if canImport(Glibc)
    import Glibc
#elseif canImport(Darwin)
    import Darwin
#endif

/// Runs simulations of a cluster and judges their histories: `make simulate`. See `Tests/Simulation/README.md`.
@main
struct Simulate {
    static func main() async {
        repeatable()
        let options: Options
        do {
            options = try Options(CommandLine.arguments.dropFirst())
        } catch {
            print("simulate: \(error)\n\n\(Options.usage)")
            exit(2)
        }
        switch options.task {
        case .run(let count): exit(await run(count, options) ? 0 : 1)
        case .replay(let seed): exit(replay(seed, options) ? 0 : 1)
        case .find: await find(options)
        }
    }

    /// Starts the program anew where the order in which a dictionary is walked is not always the same.
    private static func repeatable() {
        guard getenv("SWIFT_DETERMINISTIC_HASHING") == nil else { return }
        setenv("SWIFT_DETERMINISTIC_HASHING", "1", 1)
        var arguments = CommandLine.arguments.map { strdup($0) } + [nil]
        execv("/proc/self/exe", &arguments)
        // Not on this system: a seed may not replay exactly.
    }

    /// Runs so many seeds, and tells of those that fail.
    private static func run(_ count: UInt64, _ options: Options) async -> Bool {
        let clock = ContinuousClock()
        let start = clock.now
        var failed: [(Scenario, Verdict)] = []
        var excuses: [Excuse: Int] = [:]
        for await (scenario, verdict) in results(count, options) {
            for (excuse, number) in verdict.excuses { excuses[excuse, default: 0] += number }
            guard !verdict.violations.isEmpty else { continue }
            failed.append((scenario, verdict))
            if failed.count <= options.shown {
                print("\(scenario.name): \(verdict.violations[0])")
            }
        }
        let elapsed = (clock.now - start) / .seconds(1)
        print(
            "\(count) seeds from \(options.first) in \(Int(elapsed)) s, \(Int(Double(count) / max(elapsed, 0.001))) a second:",
            failed.isEmpty ? "nothing is broken" : "\(failed.count) failed")
        var byKind: [String: Int] = [:]
        for (scenario, verdict) in failed {
            byKind["\(scenario.kind.rawValue) \(verdict.violations[0].point)", default: 0] += 1
        }
        for (kind, number) in byKind.sorted(by: { $0.key < $1.key }) { print("  \(number) \(kind)") }
        for excuse in Excuse.allCases where excuses[excuse] != nil {
            print("  excused \(excuses[excuse] ?? 0) times: \(excuse.rawValue)")
        }
        return failed.isEmpty
    }

    /// The verdicts on seeds, in no order, from as many threads as there are cores.
    private static func results(_ count: UInt64, _ options: Options) -> AsyncStream<(Scenario, Verdict)> {
        AsyncStream { continuation in
            let work = Task {
                await withTaskGroup(of: Void.self) { group in
                    for thread in 0..<UInt64(options.threads) {
                        group.addTask {
                            for seed in stride(
                                from: options.first + thread, to: options.first + count, by: options.threads)
                            where !Task.isCancelled {
                                let scenario = options.scenario(seed)
                                continuation.yield((scenario, Simulation.run(scenario).verdict))
                            }
                        }
                    }
                }
                continuation.finish()
            }
            continuation.onTermination = { _ in work.cancel() }
        }
    }

    /// Runs one seed, shows what happened, and what of it was needed for that.
    private static func replay(_ seed: UInt64, _ options: Options) -> Bool {
        let scenario = options.scenario(seed)
        let report = Simulation.run(scenario, isTraced: true)
        for line in report.trace { print(line) }
        print(
            "\(scenario.name): \(report.duration) s, \(report.history.operations.count) requests, hash \(report.hash)")
        for violation in report.verdict.violations { print("  \(violation)") }
        if let point = report.verdict.violations.first?.point, options.shrinks {
            let small = Simulation.shrunk(scenario, to: point)
            print("\nThe same with what is not needed left out:\n\(small.described)")
            let report = Simulation.run(small, isTraced: true)
            for line in report.trace { print(line) }
            for violation in report.verdict.violations { print("  \(violation)") }
        }
        return report.verdict.violations.isEmpty
    }

    /// Looks for a seed for each rule that only fails when the rule is broken.
    private static func find(_ options: Options) async {
        for rule in options.broken.map({ [$0] }) ?? Rule.allCases {
            var options = options
            options.broken = rule
            var found: Scenario?
            for await (scenario, verdict) in results(options.seeds, options) where !verdict.violations.isEmpty {
                var kept = scenario
                kept.broken = nil
                guard Simulation.run(kept).verdict.violations.isEmpty else { continue }
                found = scenario
                break
            }
            if let found {
                let verdict = Simulation.run(found).verdict
                print("    (.\(rule), .\(found.kind.rawValue), \(found.seed), .\(verdict.violations[0].point)),")
            } else {
                print("    // \(rule): no seed of \(options.seeds)")
            }
            fflush(nil)
        }
    }
}

private struct Options {
    static let usage = """
        simulate [--seeds N] [--first N]   run N seeds (10000), from a number on (1)
        simulate --seed N                  run one, and show what happened
        simulate --find                    look for a seed that notices, for each rule that is broken
          --kinds K,K…                     of these kinds: \(Scenario.Kind.allCases.map(\.rawValue).joined(separator: " "))
          --break R                        with rule R (1 to 25) broken in all nodes
          --threads N                      (the number of cores)
          --shown N                        failures to print (10)
          --shrink                         with --seed: leave out what is not needed to fail
        """

    enum Job {
        case run(UInt64)
        case replay(UInt64)
        case find
    }

    struct Mistake: Error, CustomStringConvertible { let description: String }

    var task: Job { isSearch ? .find : seed.map { .replay($0) } ?? .run(seeds) }
    var seeds: UInt64 = 10_000
    var first: UInt64 = 1
    var kinds = Scenario.Kind.enabled
    var broken: Rule?
    var threads = Int(sysconf(Int32(_SC_NPROCESSORS_ONLN)))
    var shown = 10
    var shrinks = false
    private var seed: UInt64?
    private var isSearch = false

    init(_ arguments: ArraySlice<String>) throws {
        var rest = arguments
        func mistake(_ text: String) -> Mistake { Mistake(description: text) }
        func value(_ option: String) throws -> String {
            guard let value = rest.popFirst() else { throw mistake("\(option) needs a value") }
            return value
        }
        func number(_ option: String) throws -> UInt64 {
            let text = try value(option)
            guard let number = UInt64(text) else { throw mistake("\(option) needs a number, not \(text)") }
            return number
        }
        while let option = rest.popFirst() {
            switch option {
            case "--seeds": seeds = try number(option)
            case "--first": first = try number(option)
            case "--seed": seed = try number(option)
            case "--find": isSearch = true
            case "--shrink": shrinks = true
            case "--shown": shown = Int(try number(option))
            case "--threads": threads = max(1, Int(try number(option)))
            case "--break":
                guard let rule = Rule(rawValue: Int(try number(option))) else { throw mistake("there is no such rule") }
                broken = rule
            case "--kinds":
                kinds = try value(option).split(separator: ",").map { name in
                    guard let kind = Scenario.Kind(rawValue: String(name)) else {
                        throw mistake("there is no kind \(name)")
                    }
                    return kind
                }
            default: throw mistake("there is no option \(option)")
            }
        }
    }

    func scenario(_ seed: UInt64) -> Scenario {
        var scenario = Scenario(seed: seed, of: kinds)
        scenario.broken = broken
        return scenario
    }
}
