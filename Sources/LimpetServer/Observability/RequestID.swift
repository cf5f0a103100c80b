import HTTPTypes

/// What a request is called in logs: what the client, or a balancer in front, calls it, if that is sane; else a number that is
/// its own.
struct RequestID {
    private static let names = ["X-Request-ID", "Request-ID"].compactMap { HTTPField.Name($0) }
    /// As long as two UUIDs with their prefix; what is longer does not get into the logs.
    private static let maxLength = 80

    private let fields: HTTPFields
    private let number: UInt64

    /// - Parameter number: another for each request; see ``RequestNumbers``.
    init(_ fields: HTTPFields, number: UInt64) {
        self.fields = fields
        self.number = number
    }

    /// Made when it is asked for: most requests are not logged.
    var text: String {
        for name in Self.names {
            if let id = fields[name], Self.isSane(id) { return id }
        }
        let digits = String(number, radix: 16)
        return String(repeating: "0", count: 16 - digits.count) + digits
    }

    /// Whether an id can stand in a log without being mistaken for anything else.
    private static func isSane(_ id: String) -> Bool {
        (1...maxLength).contains(id.utf8.count)
            && id.utf8.allSatisfy { byte in
                switch byte {
                case UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
                    UInt8(ascii: "a")...UInt8(ascii: "z"):
                    true
                default: "-_.:+/=".utf8.contains(byte)
                }
            }
    }
}

/// Numbers that do not repeat on one event loop, and hardly ever among all loops and nodes.
///
/// A counter, spread over all 64 bits by a step that passes every number once (odd, near 2⁶⁴ divided by the golden ratio).
struct RequestNumbers {
    private var last = UInt64.random(in: .min ... .max)

    mutating func next() -> UInt64 {
        last &+= 0x9e37_79b9_7f4a_7c15
        return last
    }
}
