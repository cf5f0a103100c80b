/// Whether one server of the store is asked: after a few failures in a row it is left alone, except for a probe now and then.
///
/// ```
///              failures in a row, for long enough
///   closed ──────────────────────────────────────▶ open ◀──────────────┐
///     ▲                                              │                 │ no answer: the pause doubles
///     │                               pause is over  │                 │
///     │                                              ▼                 │
///     └───────────────────────────────────────── half-open ────────────┘
///                      an answer
/// ```
///
/// A value: it is told what happened and when, in nanoseconds of a clock that never goes back.
struct CircuitBreaker: Sendable {
    enum State: Sendable {
        /// Every call is made.
        case closed
        /// No call is made, except a forced probe.
        case open
        /// One call is on its way to find out.
        case halfOpen
    }

    /// What to do with a call.
    enum Admission: Sendable {
        case call
        /// Make it: its outcome decides.
        case probe
        case refuse
    }

    enum Transition: Sendable {
        case opened, closed
    }

    /// When a breaker opens and how long it stays so, in multiples of the store's time-out.
    struct Limits: Sendable {
        /// Failures in a row. One is a lost packet, two may be a connection that the server closed and its replacement.
        let failures = 3
        /// Nanoseconds from the first of them to the last: the requests that one hiccup fails together are not three.
        let failing: UInt64
        /// Nanoseconds until the first probe. A probe waits a time-out at most, so that no more than half of the time
        /// somebody waits for a server that is down.
        let firstPause: UInt64
        /// Nanoseconds between probes at most: four seconds by default are soon enough to notice that a server is back, and
        /// rare enough for requests to pay for.
        let longestPause: UInt64

        init(timeout: Duration) {
            failing = timeout.nanoseconds
            firstPause = timeout.nanoseconds
            longestPause = 16 * timeout.nanoseconds
        }
    }

    private(set) var state = State.closed
    private let limits: Limits
    private var failures = 0
    private var failingSince: UInt64 = 0
    private var pause: UInt64 = 0
    private var pausedAt: UInt64 = 0

    init(limits: Limits) {
        self.limits = limits
    }

    /// Asks for one call. A call that was not refused has to be noted with its outcome.
    ///
    /// - Parameter isProbe: whether the call is made to find out, and cannot be refused.
    mutating func admit(isProbe: Bool = false, at now: UInt64) -> Admission {
        switch state {
        case .closed: return .call
        case .open, .halfOpen:
            if isProbe { return .probe }
            guard case .open = state, now >= pausedAt + pause else { return .refuse }
            state = .halfOpen
            return .probe
        }
    }

    /// Notes what became of a call: whether the server answered, whatever it answered.
    ///
    /// - Returns: how the state changed, if it opened or closed.
    mutating func note(answered: Bool, _ admission: Admission, at now: UInt64) -> Transition? {
        switch (state, admission) {
        case (.closed, _):
            if answered {
                failures = 0
                return nil
            }
            if failures == 0 { failingSince = now }
            failures += 1
            guard failures >= limits.failures, now >= failingSince + limits.failing else { return nil }
            state = .open
            pause = limits.firstPause
            pausedAt = now
            return .opened
        case (_, .probe) where answered:
            state = .closed
            failures = 0
            return .closed
        case (_, .probe):
            state = .open
            pause = min(2 * pause, limits.longestPause)
            pausedAt = now
            return nil
        case (_, .call), (_, .refuse):
            // It began before the breaker opened: it says nothing of now.
            return nil
        }
    }
}
