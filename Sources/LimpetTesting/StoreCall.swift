public import Limpet

/// What a ``ScriptedStore`` was asked.
public struct StoreCall: Sendable, Hashable, CustomStringConvertible {
    /// Which of the store's operations.
    public enum Kind: String, Sendable, CaseIterable {
        case get, put, increment, touch, delete
    }

    /// Which operation.
    public let kind: Kind
    /// The keys, in order.
    public let keys: [StoreKey]
    /// The condition of a put, or of a deletion with a token.
    public var condition: StoreCondition?
    /// The time to live of a put or of a touch.
    public var timeToLive: Duration?
    /// What an increment adds.
    public var amount: UInt64?

    /// The kind, the names behind their last colon, and a condition, if there is one: `put d/1 absent`.
    public var description: String {
        let condition: String? =
            switch condition {
            case .absent: "absent"
            case .unchanged: "unchanged"
            case .always, nil: nil
            }
        return ([kind.rawValue] + keys.map(\.shortName) + [condition].compactMap(\.self)).joined(separator: " ")
    }
}

extension StoreKey {
    /// The name without the prefix that ends with its last colon.
    var shortName: String {
        name.lastIndex(of: ":").map { String(name[name.index(after: $0)...]) } ?? name
    }

    /// Whether the name, or the short name, begins so.
    func begins(with prefix: String) -> Bool {
        prefix.isEmpty || name.hasPrefix(prefix) || shortName.hasPrefix(prefix)
    }
}
