import Foundation
import Limpet
import LimpetMemcached
import LimpetServer
import Testing

/// `Config/limpet.json`, the code, the samples and the README say the same.
struct ConfigurationTests {
    private static let root = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent()
    private static let file = root.appending(path: "Config/limpet.json")
    private static let keys =
        HTTP2ServerConfiguration.keys + SessionConfiguration.keys + MemcachedConfiguration.keys

    /// The file's values by their path from the top, as JSON.
    private static func leaves() throws -> [String: String] {
        var leaves: [String: String] = [:]
        func visit(_ value: Any, _ path: [String]) throws {
            if let object = value as? [String: Any] {
                for (name, member) in object { try visit(member, path + [name]) }
            } else {
                let json = try JSONSerialization.data(
                    withJSONObject: value, options: [.fragmentsAllowed, .withoutEscapingSlashes])
                leaves[path.joined(separator: ".")] = String(decoding: json, as: UTF8.self)
            }
        }
        try visit(try JSONSerialization.jsonObject(with: Data(contentsOf: file)), [])
        return leaves
    }

    @Test func `the file holds every key that the code reads, and no other`() throws {
        #expect(try Set(Self.leaves().keys) == Set(Self.keys.map(\.name)))
        #expect(Set(Self.keys.map(\.name)).count == Self.keys.count)
    }

    @Test func `every key in the file is at the code's default`() async throws {
        let (server, session, memcached) = try await ConfigurationFile.load(
            Self.file.path, environment: [:], HTTP2ServerConfiguration.self, SessionConfiguration.self,
            MemcachedConfiguration.self)
        #expect(server == HTTP2ServerConfiguration())
        #expect(session == SessionConfiguration())
        #expect(memcached == MemcachedConfiguration())
    }

    @Test func `the README has a row for every key, with its default and what it is for`() throws {
        let readme = try String(contentsOf: Self.root.appending(path: "README.md"), encoding: .utf8)
        let leaves = try Self.leaves()
        let rows = Self.keys.map { "| `\($0.name)` | `\(leaves[$0.name] ?? "?")` | \($0.summary) |" }
        for row in rows { #expect(readme.contains(row + "\n"), "the README lacks: \(row)") }
        let documented = readme.split(separator: "\n").filter { $0.hasPrefix("| `") && $0.contains(".") }
            .filter { $0.contains(/^\| `(server|session|lock|store|memcached)\./) }
        #expect(documented.count == rows.count)
    }

    @Test func `the README's program is the sample, in at most fifteen lines`() throws {
        let readme = try String(contentsOf: Self.root.appending(path: "README.md"), encoding: .utf8)
        let sample = try String(contentsOf: Self.root.appending(path: "Samples/Counter/main.swift"), encoding: .utf8)
        let lines = sample.split(separator: "\n", omittingEmptySubsequences: false)
        let program = lines.drop { !$0.hasPrefix("extension") }
        #expect(readme.contains("```swift\n" + program.joined(separator: "\n") + "```\n"))
        #expect(program.count { !$0.isEmpty } <= 15)
    }
}
