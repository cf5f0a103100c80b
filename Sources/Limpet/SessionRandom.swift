/// Where all random numbers of the core come from: the system's generator, unless a simulation has put one in its place
/// that follows from a seed.
struct SessionRandom: RandomNumberGenerator {
    mutating func next() -> UInt64 {
        guard let source = RandomSource.current else {
            var system = SystemRandomNumberGenerator()
            return system.next()
        }
        return source.next()
    }
}

/// What stands in for the system's random numbers in a task and its children. Tests alone make one.
package final class RandomSource: Sendable {
    @TaskLocal package static var current: RandomSource?

    fileprivate let next: @Sendable () -> UInt64

    package init(_ next: @escaping @Sendable () -> UInt64) {
        self.next = next
    }
}

extension FixedWidthInteger where Self: UnsignedInteger {
    /// Any value of the type.
    static func random() -> Self {
        var random = SessionRandom()
        return .random(in: .min ... .max, using: &random)
    }
}
