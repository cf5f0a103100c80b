import Limpet

/// Numbers that follow from a seed alone (SplitMix64: Steele, Lea and Flood, 2014): the same on every machine.
package struct SeededRandom: RandomNumberGenerator, Sendable {
    private var state: UInt64

    /// - Parameter stream: generators of one seed and several streams know nothing of each other.
    package init(seed: UInt64, stream: UInt64 = 0) {
        state = seed &* 0x9E37_79B9_7F4A_7C15 ^ stream &* 0xD1B5_4A32_D192_ED03
        _ = next()
    }

    package mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var word = state
        word = (word ^ word >> 30) &* 0xBF58_476D_1CE4_E5B9
        word = (word ^ word >> 27) &* 0x94D0_49BB_1331_11EB
        return word ^ word >> 31
    }

    /// Whether something of this probability happens.
    mutating func chance(_ probability: Double) -> Bool {
        probability > 0 && Double(next() >> 11) * 0x1p-53 < probability
    }

    mutating func pick(_ range: ClosedRange<Int>) -> Int { .random(in: range, using: &self) }

    mutating func pick<Element>(_ elements: [Element]) -> Element { elements[pick(0...elements.count - 1)] }

    /// A span of virtual time.
    mutating func pick(_ range: ClosedRange<VirtualTime>) -> VirtualTime {
        VirtualTime(nanoseconds: .random(in: range.lowerBound.nanoseconds...range.upperBound.nanoseconds, using: &self))
    }
}

/// A moment of the simulation, or a span between two; the simulation begins at 0.
package struct VirtualTime: Sendable, Hashable, Comparable, CustomStringConvertible {
    package var nanoseconds: UInt64

    package init(nanoseconds: UInt64) {
        self.nanoseconds = nanoseconds
    }

    package static let zero = VirtualTime(nanoseconds: 0)
    /// A moment that never comes.
    package static let never = VirtualTime(nanoseconds: .max)

    package static func seconds(_ number: Double) -> Self { Self(nanoseconds: UInt64(number * 1e9)) }
    package static func milliseconds(_ number: Double) -> Self { Self(nanoseconds: UInt64(number * 1e6)) }

    init(_ duration: Duration) {
        nanoseconds = duration <= .zero ? 0 : UInt64(duration / .nanoseconds(1))
    }

    var duration: Duration { .nanoseconds(Int64(clamping: nanoseconds)) }
    var milliseconds: Int64 { Int64(nanoseconds / 1_000_000) }

    package static func < (first: Self, second: Self) -> Bool { first.nanoseconds < second.nanoseconds }

    /// Beyond the end of time is never.
    package static func + (first: Self, second: Self) -> Self {
        let (sum, overflow) = first.nanoseconds.addingReportingOverflow(second.nanoseconds)
        return overflow ? .never : Self(nanoseconds: sum)
    }

    /// Before the beginning is the beginning.
    package static func - (first: Self, second: Self) -> Self {
        first < second ? .zero : Self(nanoseconds: first.nanoseconds - second.nanoseconds)
    }

    /// Seconds.
    package var description: String {
        if self == .never { return "never" }
        let micros = nanoseconds / 1000
        let fraction = String(micros % 1_000_000)
        return "\(micros / 1_000_000)." + String(repeating: "0", count: 6 - fraction.count) + fraction
    }
}

extension RandomSource {
    /// For the core: numbers of a generator, one after the other.
    convenience init(_ random: SeededRandom) {
        let numbers = SharedNumbers(random)
        self.init { numbers.next() }
    }

    private final class SharedNumbers: Sendable {
        private let random: Locked<SeededRandom>
        init(_ random: SeededRandom) { self.random = Locked(random) }
        func next() -> UInt64 { random.withLock { $0.next() } }
    }
}
