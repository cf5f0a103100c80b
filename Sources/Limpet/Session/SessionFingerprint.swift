#if canImport(FoundationEssentials)
    import FoundationEssentials
#else
    import Foundation
#endif

/// What stands for a session where its id must not: in events, logs and databases.
///
/// The SHA-256 of the id. Nobody can find the id from it, and a session has the same one on all nodes, as long as its id is not
/// changed; the keys of the store are made from it as well.
public struct SessionFingerprint: Sendable, Hashable, LosslessStringConvertible {
    /// Characters of the text: 32 bytes in base64url (RFC 4648, section 5) without padding.
    static let length = 43

    /// SHA-256 of the id.
    let digest: [UInt8]

    /// The fingerprint of an id.
    public init(_ id: SessionID) {
        digest = id.digest
    }

    init(_ keys: SessionStoreKeys) {
        digest = keys.digest
    }

    /// Reads a fingerprint as ``description`` writes it; `nil` unless it is exactly one.
    public init?(_ description: String) {
        let text = description.replacing("-", with: "+").replacing("_", with: "/") + "="
        guard description.utf8.count == Self.length, let bytes = Data(base64Encoded: text) else { return nil }
        digest = Array(bytes)
        // The last character has two bits to spare, and the other alphabet is none.
        guard self.description == description else { return nil }
    }

    /// The hash in base64url without padding: 43 of `A-Z a-z 0-9 _ -`.
    public var description: String { digest.base64url }
}

extension SessionFingerprint: Codable {
    /// Reads the text.
    public init(from decoder: any Decoder) throws {
        let container = try decoder.singleValueContainer()
        guard let fingerprint = Self(try container.decode(String.self)) else {
            throw DecodingError.dataCorruptedError(
                in: container, debugDescription: "not the fingerprint of a session")
        }
        self = fingerprint
    }

    /// Writes the text.
    public func encode(to encoder: any Encoder) throws {
        var container = encoder.singleValueContainer()
        try container.encode(description)
    }
}
