import SwiftProtobuf

#if canImport(FoundationEssentials)
    import FoundationEssentials
#else
    import Foundation
#endif

/// One attribute of a stored session: its bytes, and its value once somebody asked for it.
///
/// Immutable but for the decoded value, which is only kept so that it is decoded once: it is shared by the copy in
/// memory and by every request, whatever happens to either.
final class Attribute: Sendable {
    let codec: WireCodec
    let bytes: [UInt8]
    /// What a newer version wrote beside it.
    let unknownFields: UnknownStorage
    private let decoded: Locked<Decoded>

    private enum Decoded {
        case notYet
        case value(any Sendable)
        /// Could not be decoded as this type: it was said in the log, and is not tried again.
        case failed(ObjectIdentifier)
    }

    init(codec: WireCodec, bytes: [UInt8], unknownFields: UnknownStorage = UnknownStorage()) {
        self.codec = codec
        self.bytes = bytes
        self.unknownFields = unknownFields
        decoded = Locked(.notYet)
    }

    /// Encodes a value. Equal values have equal bytes: keys of objects are ordered.
    init(encoding value: any Codable & Sendable) throws {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        codec = .json
        bytes = Array(try encoder.encode(value))
        unknownFields = UnknownStorage()
        decoded = Locked(.value(value))
    }

    /// The value, decoded at the first call.
    ///
    /// - Parameter failed: told once for each type that the bytes are not.
    func value<Value: Codable & Sendable>(_ type: Value.Type, failed: (any Error) -> Void) -> Value? {
        decoded.withLock { decoded in
            switch decoded {
            case .value(let value):
                if let value = value as? Value { return value }
            case .failed(let type) where type == ObjectIdentifier(Value.self):
                return nil
            case .notYet, .failed:
                break
            }
            do {
                guard codec == .json else { throw UnknownCodec(codec: codec.rawValue) }
                let value = try JSONDecoder().decode(Value.self, from: Data(bytes))
                decoded = .value(value)
                return value
            } catch {
                decoded = .failed(ObjectIdentifier(Value.self))
                failed(error)
                return nil
            }
        }
    }

    func hasSameBytes(as other: Attribute?) -> Bool {
        other.map { $0.codec == codec && $0.bytes == bytes } ?? false
    }
}

/// The attribute was written by a version that knows more codecs.
private struct UnknownCodec: Error {
    let codec: Int
}
