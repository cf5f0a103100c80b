import HTTPTypes
import Testing

@testable import LimpetServer

/// RFC 9113, sections 8.3 to 8.5: pseudo-header fields and CONNECT.
@Suite struct `Request pseudo-header fields` {
    private static let malformed = Reaction.streamError(1, .protocolError)
    private static let method = (":method", "GET")
    private static let scheme = (":scheme", "http")
    private static let authority = (":authority", "test")
    private static let path = (":path", "/")

    private func reaction(_ fields: (String, String)...) throws -> Reaction {
        try LimpetServerTests.reaction(to: .headers(1, fields))
    }

    // MARK: 8.3

    @Test(arguments: [":unknown", ":", ":status", ":Path", ":protocol"])
    func `RFC 9113 8.3: a pseudo-header field that no request has is malformed`(name: String) throws {
        #expect(try reaction(Self.method, Self.scheme, Self.authority, Self.path, (name, "1")) == Self.malformed)
        #expect(try reaction((name, "1"), Self.method, Self.scheme, Self.authority, Self.path) == Self.malformed)
    }

    @Test func `RFC 9113 8.3: a pseudo-header field behind a regular one is malformed`() throws {
        #expect(try reaction(Self.method, Self.scheme, Self.authority, ("x", "1"), Self.path) == Self.malformed)
        #expect(try reaction(("x", "1"), Self.method, Self.scheme, Self.authority, Self.path) == Self.malformed)
    }

    @Test(arguments: [method, scheme, authority, path])
    func `RFC 9113 8.3: a pseudo-header field that comes twice is malformed`(field: (String, String)) throws {
        #expect(try reaction(Self.method, Self.scheme, Self.authority, Self.path, field) == Self.malformed)
    }

    // MARK: 8.3.1

    @Test func `RFC 9113 8.3.1: a request has method, scheme and path`() throws {
        #expect(try reaction(Self.scheme, Self.authority, Self.path) == Self.malformed)
        #expect(try reaction(Self.method, Self.authority, Self.path) == Self.malformed)
        #expect(try reaction(Self.method, Self.scheme, Self.authority) == Self.malformed)
        #expect(try reaction() == Self.malformed)
    }

    @Test(arguments: ["", " ", "G T", "GET ", "G\0T", "GÄT", "GET,POST"])
    func `RFC 9113 8.3.1: a method is a token`(method: String) throws {
        #expect(try reaction((":method", method), Self.scheme, Self.authority, Self.path) == Self.malformed)
    }

    @Test(arguments: ["", "1http", "ht tp", "http:", "h\u{e4}ttp"])
    func `RFC 9113 8.3.1: a scheme is one of a URI`(scheme: String) throws {
        #expect(try reaction(Self.method, (":scheme", scheme), Self.authority, Self.path) == Self.malformed)
    }

    @Test(arguments: ["http", "https", "HTTP"])
    func `RFC 9113 8.3.1: http and https are served`(scheme: String) throws {
        #expect(
            try reaction(Self.method, (":scheme", scheme), Self.authority, Self.path) == .response(1, status: 200))
    }

    @Test(arguments: ["", "index", "?", "*", "http://test/", "/a b", "/a\0", "/a\n", "//\u{7f}", "/a#b", "/#"])
    func `RFC 9113 8.3.1: a path begins with a slash and is one of a URI`(path: String) throws {
        #expect(try reaction(Self.method, Self.scheme, Self.authority, (":path", path)) == Self.malformed)
    }

    @Test(arguments: ["/", "/?", "//", "/a%20b?c=d/e", "/a;b=c"])
    func `RFC 9113 8.3.1: paths of URIs are served`(path: String) throws {
        #expect(try reaction(Self.method, Self.scheme, Self.authority, (":path", path)) == .response(1, status: 200))
    }

    @Test(arguments: ["index", "*"])
    func `RFC 9113 8.3.1: a path begins with a slash whatever the scheme`(path: String) throws {
        #expect(try reaction(Self.method, (":scheme", "ftp"), Self.authority, (":path", path)) == Self.malformed)
    }

    @Test func `RFC 9110 9.3.7: OPTIONS may ask for the whole server`() throws {
        #expect(
            try reaction((":method", "OPTIONS"), Self.scheme, Self.authority, (":path", "*"))
                == .response(1, status: 200))
        // The path may come before the method.
        #expect(
            try reaction((":path", "*"), Self.scheme, Self.authority, (":method", "OPTIONS"))
                == .response(1, status: 200))
    }

    @Test(arguments: ["user@test", "user:secret@test", "@test", "a@b@test"])
    func `RFC 9113 8.3.1: an authority with userinfo is malformed`(authority: String) throws {
        #expect(try reaction(Self.method, Self.scheme, (":authority", authority), Self.path) == Self.malformed)
        #expect(try reaction(Self.method, Self.scheme, Self.path, ("host", authority)) == Self.malformed)
    }

    @Test(arguments: ["", "a b", "a/b", "a?b", "a#b", "\u{e4}", "a\\b", "test:x", "test:99999", "[::1", "::1"])
    func `RFC 9113 8.3.1: an authority is host and port`(authority: String) throws {
        #expect(try reaction(Self.method, Self.scheme, (":authority", authority), Self.path) == Self.malformed)
    }

    @Test(arguments: ["test", "test:80", "test:", "127.0.0.1:8080", "[::1]", "[::1]:8080", "a.b-c_d~e", "%41"])
    func `RFC 9113 8.3.1: authorities of URIs are served`(authority: String) throws {
        #expect(
            try reaction(Self.method, Self.scheme, (":authority", authority), Self.path) == .response(1, status: 200))
    }

    @Test(arguments: [("test", "other"), ("test:80", "test:81"), ("test", "test.")])
    func `RFC 9113 8.3.1: Host that differs from the authority is malformed`(authority: String, host: String) throws {
        #expect(
            try reaction(Self.method, Self.scheme, (":authority", authority), Self.path, ("host", host))
                == Self.malformed)
    }

    @Test(arguments: [("test", "test"), ("test", "TEST"), ("test:80", "test"), ("test", "test:80"), ("test:", "test")])
    func `RFC 9113 8.3.1: Host may say the same as the authority`(authority: String, host: String) throws {
        #expect(
            try reaction(Self.method, Self.scheme, (":authority", authority), Self.path, ("host", host))
                == .response(1, status: 200))
    }

    @Test func `RFC 9113 8.3.1: Host may stand for the authority, once`() throws {
        #expect(try reaction(Self.method, Self.scheme, Self.path, ("host", "test")) == .response(1, status: 200))
        #expect(
            try reaction(Self.method, Self.scheme, Self.path, ("host", "test"), ("host", "test")) == Self.malformed)
    }

    @Test func `RFC 9110 7.2: a request without authority and Host is malformed`() throws {
        #expect(try reaction(Self.method, Self.scheme, Self.path) == Self.malformed)
    }

    // MARK: 8.5

    private static let connect = (":method", "CONNECT")

    @Test func `RFC 9113 8.5: CONNECT has no scheme and no path`() throws {
        let authority = (":authority", "test:443")
        #expect(try reaction(Self.connect, authority, Self.scheme) == Self.malformed)
        #expect(try reaction(Self.connect, authority, Self.path) == Self.malformed)
        #expect(try reaction(Self.connect, Self.scheme, authority, Self.path) == Self.malformed)
    }

    @Test func `RFC 9113 8.5: CONNECT has an authority with a port`() throws {
        #expect(try reaction(Self.connect) == Self.malformed)
        #expect(try reaction(Self.connect, ("host", "test:443")) == Self.malformed)
        for authority in ["test", "test:", ":443", "test:0", "test:65536"] {
            #expect(try reaction(Self.connect, (":authority", authority)) == Self.malformed)
        }
    }

    @Test func `RFC 9110 9.3.6: a server that does not tunnel answers CONNECT 501`() throws {
        #expect(try reaction(Self.connect, (":authority", "test:443")) == .response(1, status: 501))
        let connection = try RawConnection()
        try connection.send(.headers(1, [Self.connect, (":authority", "test:443")], endStream: false))
        let frames = try connection.take()
        #expect(frames.first?.status == 501)
        #expect(frames.last?.kind == .resetStream)
        #expect(frames.last?.number(at: 0) == WireCode.noError.rawValue)
        try connection.send(.data(1, [1, 2, 3], endStream: false))
        #expect(try connection.reaction() == .nothing)
        try connection.finish()
    }

    @Test func `RFC 8441 4: an extended CONNECT that was not offered is malformed`() throws {
        #expect(
            try reaction(Self.connect, (":protocol", "websocket"), Self.scheme, Self.authority, Self.path)
                == Self.malformed)
    }
}
