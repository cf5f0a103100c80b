import SwiftProtobuf

/// What stands under a session's data key: for tests that look at a store from outside.
package enum StoredValue: Sendable {
    /// A session that lives.
    case record
    /// What keeps a session, or an old id, from coming back.
    case end

    /// `nil` if the bytes are no entry.
    package init?(bytes: [UInt8]) {
        guard let entry = try? WireEntry(serializedBytes: bytes) else { return nil }
        switch entry.content {
        case .record: self = .record
        default: self = .end
        }
    }
}
