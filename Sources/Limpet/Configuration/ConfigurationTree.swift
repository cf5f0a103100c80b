import Configuration

/// A JSON file as it is written: unlike the configuration library it tells `true` from `1`, and keeps `null`.
enum ConfigurationTree: Decodable {
    case object([String: ConfigurationTree])
    case array([ConfigurationTree])
    case text(String)
    case integer(Int)
    case number(Double)
    case flag(Bool)
    case null

    init(from decoder: any Decoder) throws {
        let container = try decoder.singleValueContainer()
        if container.decodeNil() {
            self = .null
        } else if let value = try? container.decode(Bool.self) {  // A wrong type throws: the next one is tried.
            self = .flag(value)
        } else if let value = try? container.decode(Int.self) {
            self = .integer(value)
        } else if let value = try? container.decode(Double.self) {
            self = .number(value)
        } else if let value = try? container.decode(String.self) {
            self = .text(value)
        } else if let value = try? container.decode([ConfigurationTree].self) {
            self = .array(value)
        } else {
            self = .object(try container.decode([String: ConfigurationTree].self))
        }
    }

    /// The value as it would be written, shortened, for an error.
    var written: String {
        switch self {
        case .object: "an object"
        case .array(let items): "[" + items.map(\.written).joined(separator: ", ") + "]"
        case .text(let text): "\"\(text)\""
        case .integer(let value): "\(value)"
        case .number(let value): "\(value)"
        case .flag(let value): "\(value)"
        case .null: "null"
        }
    }
}

/// Compares a file with the known keys: collects the values, and a sentence for each thing that is wrong.
struct ConfigurationTreeCheck {
    private(set) var values: [AbsoluteConfigKey: ConfigValue] = [:]
    private(set) var problems: [String] = []
    private let known: [String: ConfigurationKey]
    private let sections: Set<String>

    init(keys: [ConfigurationKey]) {
        known = Dictionary(keys.map { ($0.name, $0) }, uniquingKeysWith: { first, _ in first })
        sections = Set(
            keys.flatMap { key in
                let parts = key.name.split(separator: ".")
                return (1..<max(parts.count, 1)).map { parts.prefix($0).joined(separator: ".") }
            })
    }

    mutating func visit(_ tree: ConfigurationTree, at path: [String]) {
        let name = path.joined(separator: ".")
        if let key = known[name] {
            if let content = content(tree, for: key) {
                values[AbsoluteConfigKey(path)] = ConfigValue(content, isSecret: key.isSecret)
            } else {
                problems.append(contentsOf: key.error(tree.written).problems)
            }
        } else if path.isEmpty || sections.contains(name) {
            guard case .object(let members) = tree else {
                problems.append("\(name): \(tree.written) cannot be; it must be an object, \"\(name)\": { … }")
                return
            }
            for (member, value) in members.sorted(by: { $0.key < $1.key }) { visit(value, at: path + [member]) }
        } else {
            problems.append(unknown(name, tree))
        }
    }

    private func content(_ tree: ConfigurationTree, for key: ConfigurationKey) -> ConfigContent? {
        switch (key.kind, tree) {
        case (.text, .text(let text)), (.secret, .text(let text)): return .string(text)
        case (.choice(let choices), .text(let text)): return choices.contains(text) ? .string(text) : nil
        case (.flag, .flag(let flag)): return .bool(flag)
        case (.integer(let range), .integer(let value)): return range.contains(value) ? .int(value) : nil
        case (.texts, .array(let items)):
            var texts: [String] = []
            for item in items {
                guard case .text(let text) = item else { return nil }
                texts.append(text)
            }
            return .stringArray(texts)
        default: return nil
        }
    }

    private func unknown(_ name: String, _ tree: ConfigurationTree) -> String {
        let value = if case .object = tree { "" } else { " (\(tree.written))" }
        let candidates = known.keys.sorted() + sections.sorted()
        // A name that belongs to another section is compared by its last part as well.
        func distance(_ candidate: String) -> Int {
            let last = { (name: String) in name.split(separator: ".").last.map(String.init) ?? name }
            return min(editDistance(name, candidate), editDistance(last(name), last(candidate)) + 1)
        }
        guard let nearest = candidates.min(by: { distance($0) < distance($1) }) else {
            return "\(name): there is no such key\(value)"
        }
        let shown = known[nearest]?.isSecret == true ? "" : value
        return "\(name): there is no such key\(shown); the nearest is \(nearest)"
    }
}

/// How many characters have to be added, removed or changed to make one name of the other, whatever their case.
func editDistance(_ first: String, _ second: String) -> Int {
    let first = Array(first.lowercased().utf8)
    let second = Array(second.lowercased().utf8)
    var row = Array(0...second.count)
    for (i, a) in first.enumerated() {
        var diagonal = row[0]
        row[0] = i + 1
        for (j, b) in second.enumerated() {
            let above = row[j + 1]
            row[j + 1] = min(above + 1, row[j] + 1, diagonal + (a == b ? 0 : 1))
            diagonal = above
        }
    }
    return row[second.count]
}
