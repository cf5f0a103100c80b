import HTTPTypes
import Testing

@testable import LimpetServer

@Suite struct `The head of a response` {
    private func fields(_ response: ServerResponse, isAnswerToHead: Bool = false) -> (fields: [String], hasBody: Bool) {
        var block = FieldBlock()
        let hasBody = block.write(
            response, bodyLength: response.body.length, isAnswerToHead: isAnswerToHead, date: Array("now".utf8))
        var rest = block.bytes[...]
        let fields = block.entries.map { entry in
            let name = String(decoding: rest.prefix(entry.nameLength), as: UTF8.self)
            rest = rest.dropFirst(entry.nameLength)
            let value = String(decoding: rest.prefix(entry.valueLength), as: UTF8.self)
            rest = rest.dropFirst(entry.valueLength)
            return "\(name): \(value)"
        }
        #expect(rest.isEmpty)
        return (fields, hasBody)
    }

    @Test func `has a length and a date`() {
        let head = fields(.text("hello"))
        #expect(
            head.fields == [
                ":status: 200", "content-type: text/plain; charset=utf-8", "content-length: 5", "date: now",
            ])
        #expect(head.hasBody)
    }

    @Test func `keeps the date that the handler set`() {
        #expect(
            fields(ServerResponse(status: .ok, fields: [.date: "then"])).fields == [
                ":status: 200", "date: then", "content-length: 0",
            ])
    }

    @Test func `tells the true length whatever the handler says`() {
        let response = ServerResponse(status: .ok, fields: [.contentLength: "7"], body: ResponseBody("hello"))
        #expect(fields(response).fields == [":status: 200", "content-length: 5", "date: now"])
    }

    @Test func `answers HEAD like GET without the content`() {
        let head = fields(.text("hello"), isAnswerToHead: true)
        #expect(head.fields.contains("content-length: 5"))
        #expect(!head.hasBody)
        let counted = ServerResponse(status: .ok, fields: [.contentLength: "1000000"])
        #expect(fields(counted, isAnswerToHead: true).fields.contains("content-length: 1000000"))
    }

    @Test(arguments: [(204, nil), (205, "content-length: 0"), (304, nil)] as [(Int, String?)])
    func `has no content where the status forbids it`(status: Int, length: String?) {
        let head = fields(ServerResponse(status: .init(code: status), body: ResponseBody("hello")))
        #expect(head.fields == [":status: \(status)"] + (length.map { [$0] } ?? []) + ["date: now"])
        #expect(!head.hasBody)
    }

    @Test func `keeps the length that 304 tells of what it stands for`() {
        let response = ServerResponse(status: .notModified, fields: [.contentLength: "9"])
        #expect(fields(response).fields == [":status: 304", "content-length: 9", "date: now"])
    }

    @Test func `drops the fields that belong to an HTTP/1 connection`() throws {
        var response = ServerResponse(status: .ok, fields: [.connection: "close", .upgrade: "x", .server: "limpet"])
        for name in ["Keep-Alive", "Proxy-Connection", "Transfer-Encoding"] {
            response.fields[try #require(HTTPField.Name(name))] = "x"
        }
        #expect(fields(response).fields == [":status: 200", "server: limpet", "content-length: 0", "date: now"])
    }

    @Test func `marks a field that no compression table may hold`() {
        var response = ServerResponse(status: .ok)
        var cookie = HTTPField(name: .setCookie, value: "a=b")
        cookie.indexingStrategy = .disallow
        response.fields.append(cookie)
        var block = FieldBlock()
        _ = block.write(response, bodyLength: 0, isAnswerToHead: false, date: [])
        #expect(block.entries.map(\.isNeverIndexed) == [false, true, false, false])
    }

    @Test func `tells no length of a body that is still to be written`() {
        let head = fields(ServerResponse(status: .ok, body: .written { _ in }))
        #expect(head.fields == [":status: 200", "date: now"])
        #expect(head.hasBody)
        #expect(
            fields(ServerResponse(status: .ok, body: .written(length: 9) { _ in })).fields[1] == "content-length: 9")
    }

    @Test func `has its date in the format of RFC 9110`() {
        var dates = DateCache()
        // The example of section 5.6.7.
        #expect(String(decoding: dates.date(at: 784_111_777), as: UTF8.self) == "Sun, 06 Nov 1994 08:49:37 GMT")
        #expect(String(decoding: dates.date(at: 784_111_778), as: UTF8.self) == "Sun, 06 Nov 1994 08:49:38 GMT")
    }
}
