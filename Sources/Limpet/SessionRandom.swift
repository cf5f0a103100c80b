/// Where all random numbers of the core come from: the system's generator, unless a simulation has put one in its place
/// that follows from a seed.
struct SessionRandom: RandomNumberGenerator {
    mutating func next() -> UInt64 {
        guard let numbers = RandomSource.numbers else {
            var system = SystemRandomNumberGenerator()
            return system.next()
        }
        return numbers()
    }
}

/// What stands in for the system's random numbers in a task and its children; tests alone set it.
package enum RandomSource {
    @TaskLocal package static var numbers: (@Sendable () -> UInt64)?
}

extension FixedWidthInteger where Self: UnsignedInteger {
    /// Any value of the type.
    static func random() -> Self {
        var random = SessionRandom()
        return .random(in: .min ... .max, using: &random)
    }
}
