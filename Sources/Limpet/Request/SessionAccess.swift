/// What a request does with its session, and so how it enters the session's lock.
public enum SessionAccess: String, Sendable, Hashable, Codable, CaseIterable {
    /// Nothing: no lock, no store call, no cookie. The session reads as absent.
    case none
    /// It only reads: beside other requests that do.
    case read
    /// It reads and writes: alone.
    case write
}

/// One of the rules that tell which requests do what with their sessions (`lock.rules`): `read GET /cart`.
///
/// An access, a method or `*`, and a path's pattern. In it `*` is one segment, whatever it is, and `**` at the end is the rest, also
/// if there is none: `/assets/**` covers `/assets`, `/assets/` and `/assets/a/b`. Paths are compared as they were sent, without the
/// query: percent-encoding is not undone, and `/cart/` is another path than `/cart`.
public struct SessionAccessRule: Sendable, Hashable, CustomStringConvertible {
    private enum Segment: Hashable {
        case any
        case text(String)
    }

    /// What a request that the rule covers does with its session.
    public let access: SessionAccess
    /// The rule as it is written.
    public let description: String
    /// `nil`: any.
    private let method: String?
    private let segments: [Segment]
    private let coversRest: Bool

    /// Reads a rule.
    ///
    /// - Throws: ``ConfigurationError`` (of the key `lock.rules`), with what would be right.
    public init(_ text: String) throws(ConfigurationError) {
        let parts = text.split(separator: " ")
        guard parts.count == 3, let access = SessionAccess(rawValue: String(parts[0])),
            parts[1].utf8.allSatisfy(SessionCookie.isTokenCharacter), parts[2].first == "/"
        else { throw Self.error(text) }
        var names = parts[2].dropFirst().split(separator: "/", omittingEmptySubsequences: false)
        coversRest = names.last == "**"
        if coversRest { names.removeLast() }
        // A part of a segment cannot be left open, nor can the middle of a path.
        guard names.allSatisfy({ $0 == "*" || !$0.utf8.contains(where: "*?#".utf8.contains) }) else {
            throw Self.error(text)
        }
        self.access = access
        description = parts.joined(separator: " ")
        method = parts[1] == "*" ? nil : String(parts[1])
        segments = names.map { $0 == "*" ? .any : .text(String($0)) }
    }

    private static func error(_ text: String) -> ConfigurationError {
        SessionConfiguration.lockRulesKey.error(
            "\"\(text)\"",
            mustBe: "none, read or write, then a method or *, then a path, in which a segment may be * and the end **: "
                + "\"read GET /cart\"")
    }

    /// Whether the rule is about a request.
    ///
    /// - Parameter path: without the query.
    func covers(_ method: String, _ path: Substring.UTF8View) -> Bool {
        guard self.method.map({ $0 == method }) ?? true else { return false }
        let slash = UInt8(ascii: "/")
        var rest = path
        for segment in segments {
            guard rest.first == slash else { return false }
            let begin = rest.index(after: rest.startIndex)
            let end = rest[begin...].firstIndex(of: slash) ?? rest.endIndex
            switch segment {
            case .any: if begin == end { return false }
            case .text(let text): if !rest[begin..<end].elementsEqual(text.utf8) { return false }
            }
            rest = rest[end...]
        }
        return rest.isEmpty || (coversRest && rest.first == slash)
    }
}

/// What one request may do with its session, and why.
struct AccessIntent: Sendable {
    let access: SessionAccess
    /// The rule that says so, as it is written; `nil` if it was said in code, or by no rule.
    let rule: String?

    /// In code: whatever the rules say.
    init(_ access: SessionAccess) {
        self.access = access
        rule = nil
    }

    /// By the first rule that covers the request; without one it may write.
    init(_ rules: [SessionAccessRule], method: String, target: String) {
        let path = target.utf8.prefix { $0 != UInt8(ascii: "?") }
        let rule = rules.first { $0.covers(method, path) }
        access = rule?.access ?? .write
        self.rule = rule?.description
    }

    /// A write was refused.
    func error(_ what: String) -> SessionError {
        let reason = rule.map { "the rule \"\($0)\" of lock.rules" } ?? "its handler's access, \(access),"
        return SessionError(.writeNotAllowed, "\(reason) does not allow a request to write its session: \(what)")
    }
}
