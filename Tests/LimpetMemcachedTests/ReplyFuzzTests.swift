import Foundation
import Testing

/// Replies, damaged by chance: 500 sequences of those that `make fuzz` tries by the hundred thousand. `LIMPET_FUZZ_SEED` and
/// `LIMPET_FUZZ_SEQUENCES` choose others.
@Suite struct `Whatever a server answers, the connection` {
    @Test func `tells each caller its own reply or a failure`() throws {
        let environment = ProcessInfo.processInfo.environment
        let first = environment["LIMPET_FUZZ_SEED"].flatMap { UInt64($0) } ?? 0
        let count = environment["LIMPET_FUZZ_SEQUENCES"].flatMap { UInt64($0) } ?? 500
        for seed in first..<first + count {
            var sequence = ReplySequence(seed: seed)
            let faults = try sequence.faults()
            #expect(faults == [], "LIMPET_FUZZ_SEED=\(seed) LIMPET_FUZZ_SEQUENCES=1 repeats it")
            if !faults.isEmpty { break }
        }
    }
}
