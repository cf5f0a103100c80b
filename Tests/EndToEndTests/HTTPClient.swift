import Limpet
import Foundation

/// A real HTTP/2 client with a cookie jar: curl, a process for each request.
final class HTTPClient: Sendable {
    struct Answer: Sendable {
        let status: Int
        /// Names in lower case.
        let fields: [(name: String, value: String)]
        let body: String

        func field(_ name: String) -> String? { fields.first { $0.name == name }?.value }

        /// A member of the JSON object in the body, as text; `nil` if it is not there or `null`.
        func json(_ name: String) throws -> String? {
            let object = try JSONSerialization.jsonObject(with: Data(body.utf8)) as? [String: Any]
            switch object?[name] {
            case let text as String: return text
            case let number as NSNumber where "\(type(of: number))".contains("Bool"): return "\(number.boolValue)"
            case let number as NSNumber: return "\(number)"
            default: return nil
            }
        }
    }

    private let jar = Locked<String?>(nil)

    /// The cookie that is sent: `session=…`.
    var cookie: String? {
        get { jar.withLock { $0 } }
        set { jar.withLock { $0 = newValue } }
    }

    /// The node that the cookie names.
    var route: String? { cookie?.split(separator: ".").last.map(String.init) }

    /// Sends a request to a port of this machine, over HTTP/2 with prior knowledge.
    @discardableResult
    func request(
        _ method: String, port: Int, _ path: String, body: String? = nil, cookie: String? = nil
    ) async throws -> Answer {
        var arguments = ["-sS", "--http2-prior-knowledge", "-i", "-m", "30", "-X", method]
        if let cookie = cookie ?? self.cookie { arguments += ["-H", "cookie: \(cookie)"] }
        if let body { arguments += ["--data-binary", body] }
        arguments.append("http://127.0.0.1:\(port)\(path)")
        let answer = try Self.parse(try await output(of: "curl", arguments))
        for value in answer.fields.filter({ $0.name == "set-cookie" }).map(\.value) {
            self.cookie = value.contains("Max-Age=0") ? nil : value.split(separator: ";").first.map(String.init)
        }
        return answer
    }

    private static func parse(_ text: String) throws -> Answer {
        guard let end = text.range(of: "\r\n\r\n") else { throw ProgramFailure(description: "no HTTP answer: \(text)") }
        let lines = text[..<end.lowerBound].components(separatedBy: "\r\n")
        let words = lines[0].split(separator: " ")
        guard words.count >= 2, words[0] == "HTTP/2", let status = Int(words[1]) else {
            throw ProgramFailure(description: "not an HTTP/2 answer: \(lines[0])")
        }
        let fields = lines.dropFirst().compactMap { line -> (name: String, value: String)? in
            guard let colon = line.firstIndex(of: ":") else { return nil }
            return (
                line[..<colon].lowercased(), line[line.index(after: colon)...].trimmingCharacters(in: .whitespaces)
            )
        }
        return Answer(status: status, fields: fields, body: String(text[end.upperBound...]))
    }
}
