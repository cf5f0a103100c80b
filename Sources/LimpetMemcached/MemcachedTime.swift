#if canImport(Glibc)
    import Glibc
#elseif canImport(Darwin)
    import Darwin
#endif

/// Times to live as memcached understands them.
enum MemcachedTime {
    /// What to ask for, so that a value lives at least so long.
    ///
    /// memcached counts in seconds and ends up to one second early (measured: 1 lived 0.30 to 0.94 s): one more is asked for.
    /// Above 30 days it takes the number for a time since 1970 (protocol.txt, "Expiration times"), in 31 bits.
    static func expiration(_ timeToLive: Duration, now: @autoclosure () -> Int = time(nil)) -> Int {
        let longest = Int(Int32.max)
        let (whole, rest) = min(max(timeToLive, .zero), .seconds(longest)).components
        let seconds = Int(whole) + (rest > 0 ? 1 : 0) + 1
        return seconds <= 30 * 86_400 ? seconds : min(now() + seconds, longest)
    }
}
