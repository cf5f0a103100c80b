import NIOCore

/// Tokens that come back one after the other, up to a burst: how often something may happen.
///
/// The bucket is kept as the time at which it will be full again, so that it costs one number and no timer.
struct TokenBucket {
    /// What may happen at once, and in the long run.
    struct Rate: Equatable {
        var burst: Int
        var perSecond: Int
    }

    /// Nanoseconds until one token is back.
    private let interval: Int64
    /// Nanoseconds until all are.
    private let span: Int64
    private var full: Int64 = 0

    /// A full bucket.
    init(_ rate: Rate) {
        interval = 1_000_000_000 / Int64(rate.perSecond)
        span = Int64(rate.burst) * interval
    }

    /// - Returns: whether there was a token.
    mutating func take(_ count: Int = 1, at now: NIODeadline) -> Bool {
        let now = Int64(clamping: now.uptimeNanoseconds)
        let next = max(full, now) + Int64(count) * interval
        guard next - now <= span else { return false }
        full = next
        return true
    }

    /// Gives back tokens that were taken; a full bucket stays as it is.
    mutating func giveBack(_ count: Int) {
        full = max(0, full - Int64(count) * interval)
    }
}
