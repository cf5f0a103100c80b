import HTTPTypes
import Testing

@testable import Limpet

struct SessionCookieTests {
    private let id = SessionID()

    private func read(_ values: String..., name: String = "session", node: String = "a") -> SessionCookie.Presented? {
        var configuration = SessionConfiguration()
        configuration.cookie.name = name
        configuration.node = node
        var fields: HTTPFields = [.accept: "*/*"]
        for value in values { fields.append(HTTPField(name: .cookie, value: value)) }
        return SessionCookie(configuration).read(fields)
    }

    @Test func `an id survives its text`() throws {
        for _ in 0..<1000 {
            let id = SessionID()
            #expect(id.text.utf8.count == 24)
            #expect(SessionID(id.text.utf8) == id)
        }
        let text = "ABCDEFGHIJKLMNOPQRSTUVWX"
        #expect(SessionID(text.utf8)?.text == text)
        #expect(SessionID("_-_-_-_-_-_-_-_-_-_-_-_-".utf8)?.text == "_-_-_-_-_-_-_-_-_-_-_-_-")
    }

    @Test func `ids are never described`() {
        #expect("\(id)" == "<session id>")
        #expect(String(reflecting: id) == "<session id>")
        var dumped = ""
        dump(id, to: &dumped)
        #expect(!dumped.contains(id.text) && dumped.utf8.count < 40)
    }

    @Test func `a hundred thousand ids differ`() {
        #expect(Set((0..<100_000).map { _ in SessionID() }).count == 100_000)
    }

    @Test(arguments: [
        "session=ID.a", "a=1; session=ID.a", "session=ID.a; b=2", "a=1;session=ID.a;b=2", "  session=ID.a",
        "session=short.a; session=ID.a", "xsession=1; session=ID.a", "session; session=ID.a",
    ])
    func `a cookie is found among others`(header: String) {
        #expect(read(header.replacing("ID", with: id.text)) == .init(id: id, otherNode: nil))
    }

    @Test func `a cookie is found in a field of its own, as HTTP-2 splits them`() {
        #expect(read("a=1", "session=\(id.text).b", "c=3") == .init(id: id, otherNode: "b"))
    }

    @Test(arguments: [
        "", "session", "session=", "session=.", "session=ID", "session=ID.", "session=ID.a.b", "session=ID.a b",
        "session=IDx.a", "session=xID.a", "session=\"ID.a\"", "Session=ID.a", "sessionID.a", "session=ID,a",
        "session=ID.aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "session=%41BCDEFGHIJKLMNOPQRSTUVWX.a",
        "session=ABCDEFGHIJKLMNOPQRSTUVW=.a", "session=ABCDEFGHIJKLMNOPQRSTUVW\u{e9}.a", "session=\u{0}",
    ])
    func `a malformed cookie is none`(header: String) {
        #expect(read(header.replacing("ID", with: id.text)) == nil)
    }

    @Test func `an oversized cookie is none`() {
        #expect(read("session=" + String(repeating: "A", count: 100_000) + ".a") == nil)
        #expect(read("session=\(id.text)." + String(repeating: "a", count: 100_000)) == nil)
        #expect(read(String(repeating: "a=1;", count: 50_000) + "session=\(id.text).a") != nil)
    }

    @Test func `what is set says where, to whom and how`() {
        var configuration = SessionConfiguration()
        configuration.node = "node-7"
        configuration.cookie.name = "sid"
        configuration.cookie.path = "/shop"
        configuration.cookie.domain = "example.org"
        configuration.cookie.secure = true
        configuration.cookie.sameSite = .strict
        let field = SessionCookie(configuration).set(id)
        #expect(
            field.value
                == "sid=\(id.text).node-7; Path=/shop; Domain=example.org; HttpOnly; Secure; SameSite=Strict")
        #expect(field.indexingStrategy == .disallow)
        #expect(
            SessionCookie(configuration).expire().value
                == "sid=; Path=/shop; Domain=example.org; HttpOnly; Secure; SameSite=Strict; Max-Age=0")
    }
}
