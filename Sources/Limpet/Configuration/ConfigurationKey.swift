public import Configuration

/// A part of the configuration: what it reads, and how it is made from it.
///
/// ```swift
/// struct ShopConfiguration: ConfigurationSection {
///     var maxItems = 100
///     static let maxItems = ConfigurationKey("shop.maxItems", .integer(1...10_000), "items in a cart")
///     static let keys = [maxItems]
///     init() {}
///     init(config: ConfigReader) async throws(ConfigurationError) {
///         maxItems = try await config.integer(Self.maxItems) ?? maxItems
///     }
/// }
/// ```
public protocol ConfigurationSection: Sendable {
    /// Every key that the section reads: a key in the file that no section names is refused.
    static var keys: [ConfigurationKey] { get }

    /// Reads the section; a key that is not there keeps its default.
    ///
    /// - Parameter config: the reader of the whole configuration: keys are named from the top.
    init(config: ConfigReader) async throws(ConfigurationError)
}

/// One key of the configuration: its name from the top, what it may hold, and what it is for.
public struct ConfigurationKey: Sendable {
    /// What a key may hold.
    public enum Kind: Sendable {
        /// Any text.
        case text
        /// Any text, which no message shows.
        case secret
        /// One of these texts.
        case choice([String])
        /// `true` or `false`.
        case flag
        /// A whole number in this range.
        case integer(ClosedRange<Int>)
        /// A list of texts.
        case texts
    }

    /// The path from the top of the file, with dots: `session.cookie.name`.
    public let name: String
    /// What the key may hold.
    public let kind: Kind
    /// What the key is for, in a few words, with its unit.
    public let summary: String

    /// Declares a key.
    public init(_ name: String, _ kind: Kind, _ summary: String) {
        self.name = name
        self.kind = kind
        self.summary = summary
    }

    /// The environment variable that wins over the file: `session.cookie.sameSite` is `SESSION_COOKIE_SAME_SITE`.
    public var environmentVariable: String {
        var variable = ""
        for character in name {
            if character.isUppercase { variable.append("_") }
            variable.append(character == "." ? "_" : character.uppercased())
        }
        return variable
    }

    /// Whether what it holds is shown nowhere.
    var isSecret: Bool { if case .secret = kind { true } else { false } }

    /// The error for a value that the key cannot hold, saying what would be right.
    public func error(_ value: String, mustBe expectation: String? = nil) -> ConfigurationError {
        let shown = if case .secret = kind { "what it holds" } else { value }
        return ConfigurationError("\(name): \(shown) cannot be; it must be \(expectation ?? kind.expectation)")
    }
}

extension ConfigurationKey.Kind {
    /// What would be right, to end the sentence "it must be …".
    var expectation: String {
        switch self {
        case .text, .secret: "a text in quotes"
        case .choice(let choices): choices.map { "\"\($0)\"" }.joined(separator: " or ")
        case .flag: "true or false"
        case .integer(let range): "a whole number from \(range.lowerBound) to \(range.upperBound)"
        case .texts: "a list of texts"
        }
    }
}

/// The configuration cannot be used. Nothing has been started.
public struct ConfigurationError: Error, Sendable, Hashable, CustomStringConvertible {
    /// The status to exit with: `EX_CONFIG` of `sysexits.h`.
    public static let exitStatus: Int32 = 78

    /// One sentence a problem: the key, its value, and what would be right.
    public let problems: [String]

    /// Reports one problem or several.
    public init(_ problems: String...) {
        self.init(problems: problems)
    }

    init(problems: [String]) {
        self.problems = problems
    }

    /// The problems, one a line.
    public var description: String { problems.joined(separator: "\n") }
}

extension ConfigReader {
    /// The number of a key, or `nil` if nothing sets it.
    public func integer(_ key: ConfigurationKey) async throws(ConfigurationError) -> Int? {
        guard let value = try await fetch(key, { try await fetchInt(forKey: $0) }) else { return nil }
        if case .integer(let range) = key.kind, !range.contains(value) { throw key.error("\(value)") }
        return value
    }

    /// The text of a key, or `nil` if nothing sets it.
    public func text(_ key: ConfigurationKey) async throws(ConfigurationError) -> String? {
        guard let value = try await fetch(key, { try await fetchString(forKey: $0) }) else { return nil }
        if case .choice(let choices) = key.kind, !choices.contains(value) { throw key.error("\"\(value)\"") }
        return value
    }

    /// The flag of a key, or `nil` if nothing sets it.
    public func flag(_ key: ConfigurationKey) async throws(ConfigurationError) -> Bool? {
        try await fetch(key) { try await fetchBool(forKey: $0) }
    }

    /// The list of a key, or `nil` if nothing sets it. In an environment variable its items stand between commas.
    public func texts(_ key: ConfigurationKey) async throws(ConfigurationError) -> [String]? {
        try await fetch(key) { try await fetchStringArray(forKey: $0) }
    }

    /// Fetches with one of the fetching readers: unlike the readers with a default they do not hide a wrong value.
    private func fetch<Value>(
        _ key: ConfigurationKey, _ read: (ConfigKey) async throws -> Value?
    ) async throws(ConfigurationError) -> Value? {
        do {
            return try await read(ConfigKey(key.name))
        } catch {
            // Only an environment variable can have a wrong type here: the file's types were checked as it was loaded.
            let value = string(forKey: ConfigKey(key.name)) ?? ""
            throw key.error("\(key.environmentVariable)=\"\(value)\"")
        }
    }
}
