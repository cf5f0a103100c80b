import NIOCore

/// Whether bytes that one side waits for come fast enough: at least so many a second, over intervals of some seconds.
///
/// Only time in which the other side is to blame counts: see ``pause()``.
struct TransferPace {
    private var began: NIODeadline?
    private var movedBefore = 0

    /// Nobody waits for the other side, or it has caught up.
    mutating func pause() {
        began = nil
    }

    /// Somebody waits for the other side.
    ///
    /// - Parameters:
    ///   - moved: the bytes that have come so far, in all.
    ///   - interval: how long the other side has to show what it can.
    ///   - rate: bytes a second that it has to.
    /// - Returns: whether it is too slow.
    mutating func isTooSlow(moved: Int, at now: NIODeadline, interval: TimeAmount, rate: Int) -> Bool {
        guard let began else {
            self.began = now
            movedBefore = moved
            return false
        }
        let passed = now - began
        guard passed >= interval else { return false }
        let expected = Int(passed.nanoseconds) / 1_000_000_000 * rate
        defer {
            self.began = now
            movedBefore = moved
        }
        return moved - movedBefore < max(expected, 1)
    }
}
