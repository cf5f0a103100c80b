/// The host and port that a request is for (RFC 3986, section 3.2), by their place in its bytes.
///
/// Userinfo is not allowed in a request (RFC 9113, section 8.3.1), and a host cannot be empty (RFC 9110, section 4.2.1).
/// Which characters a host may have was checked before, as far as it does not matter for where it ends.
struct Authority: Equatable {
    let hostLength: Int
    /// `nil` for the default port of the scheme.
    let port: Int?

    /// - Returns: `nil` if the bytes are no authority of a request.
    init?(_ bytes: some RandomAccessCollection<UInt8>) {
        let host: Int
        if bytes.first == UInt8(ascii: "[") {
            guard let end = bytes.firstIndex(of: UInt8(ascii: "]")) else { return nil }
            host = bytes.distance(from: bytes.startIndex, to: end) + 1
            guard host > 2, bytes.dropFirst(host).first ?? UInt8(ascii: ":") == UInt8(ascii: ":") else { return nil }
        } else {
            host =
                bytes.firstIndex(of: UInt8(ascii: ":")).map { bytes.distance(from: bytes.startIndex, to: $0) }
                ?? bytes.count
            guard host > 0, !bytes.prefix(host).contains(where: Self.isForbidden) else { return nil }
        }
        hostLength = host
        let digits = bytes.dropFirst(host + 1)
        if digits.isEmpty {
            port = nil
        } else {
            var number = 0
            for digit in digits {
                guard (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(digit) else { return nil }
                number = number * 10 + Int(digit - UInt8(ascii: "0"))
                guard number <= 65_535 else { return nil }
            }
            port = number
        }
    }

    private static func isForbidden(_ byte: UInt8) -> Bool {
        byte == UInt8(ascii: "@") || byte == UInt8(ascii: "[") || byte == UInt8(ascii: "]")
    }

    /// Whether two authorities name the same host and port: in upper or lower case, with the scheme's default port or
    /// without (RFC 9110, section 4.2.3).
    static func areEqual(_ first: String, _ second: String, scheme: String?) -> Bool {
        guard first != second else { return true }
        let texts = [first, second].map { Array($0.lowercased().utf8) }
        guard let one = Authority(texts[0]), let other = Authority(texts[1]) else { return false }
        let standard = scheme?.lowercased() == "https" ? 443 : 80
        return texts[0].prefix(one.hostLength) == texts[1].prefix(other.hostLength)
            && one.port ?? standard == other.port ?? standard
    }
}
