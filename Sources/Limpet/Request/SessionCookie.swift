import HTTPTypes

/// The session's cookie: `<id>.<route>`, where the route names the node that had the session last.
///
/// The balancer reads the route to keep a client with its node, the node reads it to know whether the client comes from
/// elsewhere.
struct SessionCookie: Sendable {
    /// What a request brought: an id that is well-formed, which says nothing about whether it exists.
    struct Presented: Sendable, Equatable {
        let id: SessionID
        /// The other node that the cookie's route names; `nil` if it is this one.
        let otherNode: String?
        /// Whether the cookie's route is this node.
        var namesThisNode: Bool { otherNode == nil }
    }

    private let name: [UInt8]
    private let route: [UInt8]
    private let routeText: String
    private let attributes: String

    init(_ configuration: SessionConfiguration) {
        name = Array(configuration.cookie.name.utf8)
        route = Array(configuration.node.utf8)
        routeText = configuration.node
        var attributes = "; Path=\(configuration.cookie.path)"
        if !configuration.cookie.domain.isEmpty { attributes += "; Domain=\(configuration.cookie.domain)" }
        attributes += "; HttpOnly"
        if configuration.cookie.secure { attributes += "; Secure" }
        switch configuration.cookie.sameSite {
        case .strict: attributes += "; SameSite=Strict"
        case .lax: attributes += "; SameSite=Lax"
        case .none: attributes += "; SameSite=None"
        }
        self.attributes = attributes
    }

    /// Finds the session's cookie; the first well-formed one counts. A malformed or oversized one is as good as none.
    func read(_ fields: HTTPFields) -> Presented? {
        let cookie = HTTPField.Name.cookie
        for field in fields where field.name == cookie {
            let found =
                field.value.utf8.withContiguousStorageIfAvailable { find(in: $0) }
                ?? find(in: Array(field.value.utf8)[...])
            if let found { return found }
        }
        return nil
    }

    /// Tells the client where its session is.
    func set(_ id: SessionID) -> HTTPField {
        field("\(id.text).\(routeText)\(attributes)")
    }

    /// Takes the cookie from the client. Path and domain are repeated: without them the client would keep it.
    func expire() -> HTTPField {
        field("\(attributes); Max-Age=0")
    }

    private func field(_ value: String) -> HTTPField {
        var field = HTTPField(name: .setCookie, value: "\(String(decoding: name, as: UTF8.self))=\(value)")
        // An id has no place in the compression table of the connection, which a balancer shares among clients.
        field.indexingStrategy = .disallow
        return field
    }

    /// Looks through `a=1; session=…; b=2` (RFC 6265, section 4.2.1).
    private func find<Bytes: RandomAccessCollection<UInt8>>(in bytes: Bytes) -> Presented? where Bytes.Index == Int {
        var start = bytes.startIndex
        while start < bytes.endIndex {
            while start < bytes.endIndex, bytes[start] == 0x20 || bytes[start] == 0x09 { start += 1 }
            let end = bytes[start...].firstIndex(of: 0x3B) ?? bytes.endIndex
            let pair = bytes[start..<end]
            if pair.count > name.count, pair[start + name.count] == 0x3D, pair.prefix(name.count).elementsEqual(name),
                let found = parse(pair[(start + name.count + 1)...])
            {
                return found
            }
            start = end + 1
        }
        return nil
    }

    private func parse<Value: RandomAccessCollection<UInt8>>(_ value: Value) -> Presented? where Value.Index == Int {
        let dot = value.startIndex + SessionID.length
        guard value.count > SessionID.length, value[dot] == 0x2E else { return nil }
        let route = value[(dot + 1)...]
        guard Self.isRoute(route), let id = SessionID(value[..<dot]) else { return nil }
        return Presented(
            id: id, otherNode: route.elementsEqual(self.route) ? nil : String(decoding: route, as: UTF8.self))
    }

    /// 1 to 32 of `A-Z a-z 0-9 _ -`: no dot, which ends the id.
    static func isRoute(_ route: some Collection<UInt8>) -> Bool {
        (1...32).contains(route.count)
            && route.allSatisfy { byte in
                switch byte {
                case 0x30...0x39, 0x41...0x5A, 0x61...0x7A, 0x5F, 0x2D: true
                default: false
                }
            }
    }

    /// A character of a token: RFC 9110, section 5.6.2.
    static func isTokenCharacter(_ byte: UInt8) -> Bool {
        switch byte {
        case 0x30...0x39, 0x41...0x5A, 0x61...0x7A: true
        default: "!#$%&'*+-.^_`|~".utf8.contains(byte)
        }
    }

    /// A character of a cookie's attribute: RFC 6265, section 4.1.1.
    static func isAttributeCharacter(_ byte: UInt8) -> Bool { (0x20...0x7E).contains(byte) && byte != 0x3B }
}
