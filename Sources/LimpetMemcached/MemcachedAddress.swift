import Limpet

#if canImport(Glibc)
    import Glibc
#elseif canImport(Darwin)
    import Darwin
#endif

/// One server of the list: `host:port`, `[IPv6]:port` or `/path/of/a/socket`, with `/?weight` behind it where servers
/// are to hold unequal shares.
struct MemcachedAddress: Sendable, Hashable {
    enum Endpoint: Sendable, Hashable {
        case host(String, port: UInt16)
        case socket(String)
    }

    static let expectation =
        #""host:port", "[IPv6 address]:port" or "/path/of/a/socket", with "/?weight" (1 to 65535) behind it if need be"#

    let endpoint: Endpoint
    /// How large a share of the keys the server holds, as compared with the others.
    let weight: UInt16

    init(_ text: String) throws(ConfigurationError) {
        guard let address = Self.parse(text) else {
            throw MemcachedConfiguration.servers.error("\"\(text)\"", mustBe: "a list of \(Self.expectation)")
        }
        self = address
    }

    private init(endpoint: Endpoint, weight: UInt16) {
        self.endpoint = endpoint
        self.weight = weight
    }

    /// For a log.
    var description: String {
        switch endpoint {
        case .host(let host, let port): host.contains(":") ? "[\(host)]:\(port)" : "\(host):\(port)"
        case .socket(let path): path
        }
    }

    private static func parse(_ text: String) -> MemcachedAddress? {
        var rest = text[...]
        var weight: UInt16 = 1
        if let mark = text.range(of: "/?") {
            guard let number = UInt16(digits: text[mark.upperBound...]), number > 0 else { return nil }
            weight = number
            rest = text[..<mark.lowerBound]
        }
        guard let endpoint = endpoint(rest) else { return nil }
        return MemcachedAddress(endpoint: endpoint, weight: weight)
    }

    private static func endpoint(_ text: Substring) -> Endpoint? {
        if text.hasPrefix("/") {
            // `sun_path` has 108 bytes on Linux, 104 on Darwin, the end's zero included (unix(7)).
            let isPath = text.utf8.count < 104 && text.utf8.allSatisfy { $0 > 0x20 && $0 != 0x7F }
            return isPath && text.utf8.count > 1 ? .socket(String(text)) : nil
        }
        guard let colon = text.lastIndex(of: ":") else { return nil }
        guard let port = UInt16(digits: text[text.index(after: colon)...]), port > 0 else { return nil }
        let host = text[..<colon]
        if host.hasPrefix("[") {
            guard host.hasSuffix("]") else { return nil }
            let address = String(host.dropFirst().dropLast())
            return isIPv6(address) ? .host(address, port: port) : nil
        }
        // RFC 1123, section 2.1: letters, digits, hyphens and dots, up to 255; names with underscores are in use.
        let isName = host.utf8.allSatisfy { byte in
            switch byte {
            case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"): true
            case UInt8(ascii: "0")...UInt8(ascii: "9"): true
            case UInt8(ascii: "-"), UInt8(ascii: "."), UInt8(ascii: "_"): true
            default: false
            }
        }
        return isName && (1...255).contains(host.utf8.count) ? .host(String(host), port: port) : nil
    }

    private static func isIPv6(_ text: String) -> Bool {
        var address = in6_addr()
        return inet_pton(AF_INET6, text, &address) == 1
    }
}

extension UInt16 {
    /// Reads decimal digits and nothing else: no sign.
    fileprivate init?(digits: Substring) {
        guard digits.utf8.allSatisfy({ (0x30...0x39).contains($0) }) else { return nil }
        self.init(digits)
    }
}

extension String {
    /// The first place where a text stands.
    fileprivate func range(of text: String) -> Range<Index>? {
        var start = startIndex
        while start < endIndex {
            if self[start...].hasPrefix(text) { return start..<index(start, offsetBy: text.count) }
            start = index(after: start)
        }
        return nil
    }
}
