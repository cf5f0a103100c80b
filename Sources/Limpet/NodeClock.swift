#if canImport(Glibc)
    import Glibc
#elseif canImport(Darwin)
    import Darwin
#endif

/// The time as one node sees it. ``SystemClock`` outside of tests; `ManualClock` of `LimpetTesting` within them.
public protocol NodeClock: Sendable {
    /// Milliseconds since 1970, UTC. Stands in records and is compared between nodes; may be set back.
    func wallMilliseconds() -> Int64
    /// Nanoseconds since some moment of this process. Never goes back; measures ages and deadlines on this node.
    func monotonicNanoseconds() -> UInt64
    /// Waits. Throws `CancellationError` as soon as the task is cancelled.
    func sleep(for duration: Duration) async throws
    /// Does something when the time has passed, which must not take long. A task of its own that sleeps, if the clock knows
    /// nothing better.
    func after(_ duration: Duration, _ body: @escaping @Sendable () -> Void)
}

extension NodeClock {
    /// A task of its own that sleeps.
    public func after(_ duration: Duration, _ body: @escaping @Sendable () -> Void) {
        Task.detached {
            // Nobody cancels it.
            guard (try? await sleep(for: duration)) != nil else { return }
            body()
        }
    }
}

/// The machine's clocks.
public struct SystemClock: NodeClock {
    /// Makes the clock; all of them tell the same time.
    public init() {}

    /// Milliseconds since 1970, UTC.
    public func wallMilliseconds() -> Int64 {
        let time = Self.time(CLOCK_REALTIME)
        return Int64(time.tv_sec) * 1000 + Int64(time.tv_nsec) / 1_000_000
    }

    /// Nanoseconds of the clock that never goes back; on Linux the one that also counts while the machine sleeps, so that a
    /// node which was suspended knows that what it has is old.
    public func monotonicNanoseconds() -> UInt64 {
        #if os(Linux)
            let time = Self.time(CLOCK_BOOTTIME)
        #else
            let time = Self.time(CLOCK_MONOTONIC)
        #endif
        return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
    }

    /// Waits on the continuous clock.
    public func sleep(for duration: Duration) async throws {
        try await ContinuousClock().sleep(for: duration)
    }

    private static func time(_ clock: clockid_t) -> timespec {
        var time = timespec()
        // It can only fail for a clock that does not exist, or a bad address.
        let status = clock_gettime(clock, &time)
        precondition(status == 0, "the system has no such clock")
        return time
    }
}

extension Duration {
    /// Whole milliseconds, rounded down.
    var milliseconds: Int64 {
        let (seconds, attoseconds) = components
        return seconds * 1000 + attoseconds / 1_000_000_000_000_000
    }

    /// Whole nanoseconds, rounded down; 0 for a negative duration.
    var nanoseconds: UInt64 {
        let (seconds, attoseconds) = components
        // Both parts of a negative duration are negative or zero: less than a second before zero has no seconds.
        return self < .zero ? 0 : UInt64(seconds) * 1_000_000_000 + UInt64(attoseconds / 1_000_000_000)
    }
}
