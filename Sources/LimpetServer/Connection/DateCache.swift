#if canImport(Glibc)
    import Glibc
#elseif canImport(Darwin)
    import Darwin
#endif

/// The value of the `date` field (RFC 9110, section 5.6.7), made once a second.
struct DateCache {
    private var second: time_t = -1
    private var bytes: [UInt8] = []

    /// The date of this moment.
    mutating func now() -> [UInt8] {
        date(at: time(nil))
    }

    mutating func date(at second: time_t) -> [UInt8] {
        if second != self.second {
            self.second = second
            bytes = Self.format(second)
        }
        return bytes
    }

    private static let days = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"]
    private static let months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]

    private static func format(_ second: time_t) -> [UInt8] {
        var second = second
        var parts = tm()
        // It can only fail for a year that does not fit in an Int32.
        let made = gmtime_r(&second, &parts)
        precondition(made != nil, "the system's clock stands beyond every year")
        let two = { (number: Int32) in number < 10 ? "0\(number)" : "\(number)" }
        let day = "\(days[Int(parts.tm_wday)]), \(two(parts.tm_mday)) \(months[Int(parts.tm_mon)])"
        let time = "\(two(parts.tm_hour)):\(two(parts.tm_min)):\(two(parts.tm_sec))"
        return Array("\(day) \(parts.tm_year + 1900) \(time) GMT".utf8)
    }
}
