import Foundation
import HTTPTypes
import LimpetServer
import Testing

@Suite struct `A request` {
    private func request(_ path: String) -> ServerRequest {
        ServerRequest(head: HTTPRequest(method: .get, scheme: "http", authority: "test", path: path))
    }

    @Test(arguments: [("/hold?ms=5", "/hold"), ("/", "/"), ("/a%20b?", "/a%20b"), ("/?a?b", "/")])
    func `has a path that ends before the query`(target: String, path: String) {
        #expect(request(target).path == path)
    }

    @Test(arguments: [
        ("/hold?ms=5", "5"), ("/?a=1&ms=2&ms=3", "2"), ("/?ms", ""), ("/?ms=", ""), ("/?m%73=x", "x"),
        ("/?ms=a%20b+c%2Bd", "a b c+d"), ("/?ms=100%", "100%"), ("/?ms=%zz%4", "%zz%4"), ("/?ms=a=b", "a=b"),
        ("/?ms=%C3%A4", "ä"), ("/?&&ms=1", "1"),
    ])
    func `tells a query parameter`(target: String, value: String) {
        #expect(request(target).query("ms") == value)
    }

    @Test(arguments: ["/", "/?", "/?a=ms", "/ms=1", "/?mss=1"])
    func `has no query parameter that was not sent`(target: String) {
        #expect(request(target).query("ms") == nil)
    }

    @Test func `hands out its body up to a limit`() async throws {
        let body = RequestBody([1, 2, 3])
        #expect(try await body.collect(upTo: 3) == [1, 2, 3])
        await #expect { try await body.collect(upTo: 2) } throws: { ($0 as? ServerError)?.code == .bodyTooLarge }
    }
}
