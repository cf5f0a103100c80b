import Limpet

/// All that happened in a simulation: as a number, to compare two runs by, and as lines, if somebody reads them.
final class SimulationTrace: Sendable {
    private struct State {
        /// FNV-1a.
        var hash: UInt64 = 0xCBF2_9CE4_8422_2325
        var lines: [String] = []
    }

    let isRead: Bool
    private let state = Locked(State())

    init(isRead: Bool) {
        self.isRead = isRead
    }

    var hash: UInt64 { state.withLock { $0.hash } }
    var lines: [String] { state.withLock { $0.lines } }

    /// Notes numbers and bytes, and a line that is made only if it is read.
    func note(_ time: VirtualTime, _ numbers: UInt64..., bytes: [UInt8] = [], line: @autoclosure () -> String) {
        state.withLock { state in
            state.hash = (state.hash ^ time.nanoseconds) &* 0x100_0000_01B3
            for number in numbers { state.hash = (state.hash ^ number) &* 0x100_0000_01B3 }
            for byte in bytes { state.hash = (state.hash ^ UInt64(byte)) &* 0x100_0000_01B3 }
        }
        guard isRead else { return }
        let text = "\(time) \(line())"
        state.withLock { $0.lines.append(text) }
    }
}

extension String {
    /// FNV-1a: the same in every process.
    var stableHash: UInt64 {
        utf8.reduce(0xCBF2_9CE4_8422_2325) { ($0 ^ UInt64($1)) &* 0x100_0000_01B3 }
    }
}
