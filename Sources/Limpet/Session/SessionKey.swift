/// The name and type of one attribute, declared once:
///
/// ```swift
/// extension SessionKey<Int> { static var visits: Self { Self("visits") } }
/// ```
///
/// The type may change with a deployment: a value that can no longer be decoded reads as `nil`, is logged once with the
/// key's name, and stays in the store as it is until it is overwritten.
///
/// Use value types: an object that is changed in place is not seen to have changed.
public struct SessionKey<Value: Codable & Sendable>: Sendable, Hashable {
    /// The name, unique within the application.
    public let name: String

    /// Declares a key.
    public init(_ name: String) {
        self.name = name
    }
}
