import Crypto

#if canImport(FoundationEssentials)
    import FoundationEssentials
#else
    import Foundation
#endif

/// The name of a session: 144 bits of the system's random source, which only the client and the nodes ever see.
///
/// Whoever knows it *is* the user. It is redacted wherever it is described, and stands in no log and in no store key:
/// keys are made from its hash.
public struct SessionID: Sendable, Hashable {
    /// Characters of an id in a cookie: 18 bytes in base64url (RFC 4648, section 5) without padding.
    static let length = 24

    // 18 bytes: eight, eight and two. Values instead of an array, so that an id needs no memory of its own.
    private let first: UInt64
    private let second: UInt64
    private let third: UInt16

    /// Makes a fresh id. No id that a client brought is ever used for a new session.
    public init() {
        var random = SessionRandom()
        first = random.next()
        second = random.next()
        third = random.next()
    }

    /// Reads an id as it stands in a cookie; `nil` unless it is exactly one.
    package init?(_ text: some Sequence<UInt8>) {
        let digits = Self.digits
        var words: (UInt64, UInt64, UInt64) = (0, 0, 0)
        var count = 0
        for byte in text {
            let digit = digits[Int(byte)]
            guard digit != 0xFF, count < Self.length else { return nil }
            switch count {  // 6 bits a character: 10 and 2/3 characters a word.
            case 0..<8: words.0 = words.0 << 6 | UInt64(digit)
            case 8..<16: words.1 = words.1 << 6 | UInt64(digit)
            default: words.2 = words.2 << 6 | UInt64(digit)
            }
            count += 1
        }
        guard count == Self.length else { return nil }
        // Three times 48 bits to 64 + 64 + 16.
        first = words.0 << 16 | words.1 >> 32
        second = words.1 << 32 | words.2 >> 16
        third = UInt16(truncatingIfNeeded: words.2)
    }

    /// The id as it stands in a cookie.
    package var text: String {
        let words = (first >> 16, (first & 0xFFFF) << 32 | second >> 32, (second & 0xFFFF_FFFF) << 16 | UInt64(third))
        let alphabet = Self.alphabet
        return String(unsafeUninitializedCapacity: Self.length) { buffer in
            // 24 bytes were asked for and 24 are written, each within the buffer.
            for index in 0..<Self.length {
                let word = index < 8 ? words.0 : index < 16 ? words.1 : words.2
                buffer[index] = alphabet[Int(word >> (42 - 6 * UInt64(index % 8)) & 0x3F)]
            }
            return Self.length
        }
    }

    /// SHA-256 of the id: what stands in store keys and records instead of the id.
    package var digest: [UInt8] { Array(SHA256.hash(data: Array(text.utf8))) }

    /// A few bits that differ between sessions, to choose one of several tables by.
    var spread: UInt64 { second }

    /// Only two words: the id is random, and `Hasher` is seeded, so that a client cannot choose collisions.
    public func hash(into hasher: inout Hasher) {
        hasher.combine(first)
        hasher.combine(second)
    }

    private static let alphabet = Array("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_".utf8)
    private static let digits: [UInt8] = {
        var digits = [UInt8](repeating: 0xFF, count: 256)
        for (value, character) in alphabet.enumerated() { digits[Int(character)] = UInt8(value) }
        return digits
    }()
}

extension SessionID: CustomStringConvertible, CustomDebugStringConvertible, CustomReflectable {
    /// Never the id itself.
    public var description: String { "<session id>" }
    /// Never the id itself.
    public var debugDescription: String { description }
    /// Nothing: `dump` shows no id either.
    public var customMirror: Mirror { Mirror(self, children: []) }
}

extension [UInt8] {
    /// base64url (RFC 4648, section 5) without padding.
    package var base64url: String {
        Data(self).base64EncodedString()
            .replacing("+", with: "-").replacing("/", with: "_").replacing("=", with: "")
    }
}
