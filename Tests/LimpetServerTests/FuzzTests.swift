import Foundation
import Testing

/// Sequences of frames, damaged by chance: 300 of those that `make fuzz` tries by the million. `LIMPET_FUZZ_SEED` and
/// `LIMPET_FUZZ_SEQUENCES` choose others.
@Suite struct `Whatever a client sends, the server` {
    @Test func `stays within the protocol and forgets the connection at its end`() throws {
        let environment = ProcessInfo.processInfo.environment
        let first = environment["LIMPET_FUZZ_SEED"].flatMap { UInt64($0) } ?? 0
        let count = environment["LIMPET_FUZZ_SEQUENCES"].flatMap { UInt64($0) } ?? 300
        for seed in first..<first + count {
            let faults = try FrameSequence(seed: seed).faults()
            #expect(faults == [], "LIMPET_FUZZ_SEED=\(seed) LIMPET_FUZZ_SEQUENCES=1 repeats it")
            if !faults.isEmpty { break }
        }
    }
}
