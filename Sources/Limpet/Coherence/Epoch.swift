/// A session's cache version: it changes whenever a copy elsewhere may have become stale.
///
/// ```
///  63            32 31        24 23              0
/// ┌────────────────┬────────────┬─────────────────┐
/// │ clock, seconds │   random   │   increments    │
/// └────────────────┴────────────┴─────────────────┘
///   the counter's own incarnation
/// ```
///
/// A counter begins at the clock, so that one that was lost and made anew never repeats a value that an old copy has.
struct Epoch: Sendable, Hashable, Comparable {
    let value: UInt64

    init(_ value: UInt64) {
        self.value = value
    }

    /// A value of its own incarnation, beyond all `predecessors`, whatever the clock says.
    init(wallMilliseconds: Int64, after predecessors: [Epoch] = []) {
        let clock = UInt64(max(0, wallMilliseconds) / 1000)
        let seconds = max(clock, (predecessors.max()?.value ?? 0) >> 32 + 1)
        value = (seconds & 0xFFFF_FFFF) << 32 | UInt64(UInt8.random()) << 24
    }

    /// Reads a counter's value as the store holds it: an unsigned decimal number. memcached pads it with spaces.
    init?(ascii bytes: [UInt8]) {
        let digits = bytes.prefix { $0 != 0x20 }
        guard !digits.isEmpty, digits.allSatisfy({ (0x30...0x39).contains($0) }),
            let value = UInt64(String(decoding: digits, as: UTF8.self))
        else { return nil }
        self.value = value
    }

    /// The counter's value as the store holds it.
    var ascii: [UInt8] { Array(String(value).utf8) }

    /// Which making of the counter the value belongs to.
    var incarnation: UInt64 { value >> 24 }

    static func < (first: Epoch, second: Epoch) -> Bool { first.value < second.value }
}
