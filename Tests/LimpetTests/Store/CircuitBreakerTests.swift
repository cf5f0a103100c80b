import Testing

@testable import Limpet

/// When a server of the store is left alone.
struct CircuitBreakerTests {
    /// The limits of a time-out of 100 ns.
    private var breaker = CircuitBreaker(limits: .init(timeout: .nanoseconds(100)))

    private mutating func fail(_ times: [UInt64]) -> [CircuitBreaker.Transition?] {
        times.map { time in
            let admission = breaker.admit(at: time)
            return breaker.note(answered: false, admission, at: time)
        }
    }

    @Test mutating func `three failures in a row, a time-out apart, open it`() {
        #expect(fail([0, 50, 100]) == [nil, nil, .opened])
        #expect(breaker.state == .open)
        #expect(breaker.admit(at: 101) == .refuse)
    }

    @Test mutating func `failures that one hiccup causes together do not open it`() {
        #expect(fail([0, 10, 20, 30, 99]) == [nil, nil, nil, nil, nil])
        #expect(fail([100]) == [.opened])
    }

    @Test mutating func `two failures do not open it, however far apart`() {
        #expect(fail([0, 5000]) == [nil, nil])
        #expect(breaker.state == .closed)
    }

    @Test mutating func `an answer begins the count anew`() {
        #expect(fail([0, 100]) == [nil, nil])
        #expect(breaker.note(answered: true, .call, at: 150) == nil)
        #expect(fail([200, 300]) == [nil, nil])
        #expect(fail([400]) == [.opened])
    }

    @Test mutating func `after the pause one call finds out, the others are refused meanwhile`() {
        _ = fail([0, 50, 100])
        #expect(breaker.admit(at: 199) == .refuse)
        #expect(breaker.admit(at: 200) == .probe)
        #expect(breaker.state == .halfOpen)
        #expect(breaker.admit(at: 10_000) == .refuse)
        #expect(breaker.note(answered: true, .probe, at: 10_001) == .closed)
        #expect(breaker.admit(at: 10_002) == .call)
        // The count begins anew as well.
        #expect(fail([10_003, 10_200]) == [nil, nil])
    }

    @Test mutating func `the pause doubles with each probe that fails, up to sixteen time-outs`() {
        _ = fail([0, 50, 100])
        var now: UInt64 = 100
        for pause: UInt64 in [100, 200, 400, 800, 1600, 1600, 1600] {
            #expect(breaker.admit(at: now + pause - 1) == .refuse)
            now += pause
            #expect(breaker.admit(at: now) == .probe)
            #expect(breaker.note(answered: false, .probe, at: now) == nil)
        }
    }

    @Test mutating func `a forced probe is made at any time, and puts off the others`() {
        _ = fail([0, 50, 100])
        #expect(breaker.admit(isProbe: true, at: 150) == .probe)
        #expect(breaker.note(answered: false, .probe, at: 160) == nil)
        #expect(breaker.admit(at: 359) == .refuse)
        #expect(breaker.admit(at: 360) == .probe)
        #expect(breaker.admit(isProbe: true, at: 361) == .probe)
        #expect(breaker.note(answered: true, .probe, at: 362) == .closed)
        // The other probe is one call among others by now.
        #expect(breaker.note(answered: false, .probe, at: 363) == nil)
        #expect(breaker.state == .closed)
    }

    @Test mutating func `what began before it opened says nothing of now`() {
        let early = breaker.admit(at: 0)
        _ = fail([0, 50, 100])
        #expect(breaker.note(answered: true, early, at: 110) == nil)
        #expect(breaker.state == .open)
        #expect(breaker.admit(at: 200) == .probe)
        #expect(breaker.note(answered: false, early, at: 210) == nil)
        #expect(breaker.state == .halfOpen)
    }
}
