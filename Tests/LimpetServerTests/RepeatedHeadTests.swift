import HTTPTypes
import Testing

@testable import LimpetServer

@Suite struct `A request on a connection` {
    private typealias Field = (name: String, value: String)

    private static let base: [Field] = [
        (":method", "GET"), (":scheme", "https"), (":authority", "a.example"), (":path", "/one"), ("accept", "*/*"),
        ("user-agent", "a client with a long name"), ("cookie", "session=1"),
    ]

    private static func changed(_ changes: [(Int, Field?)], adding more: [Field] = []) -> [Field] {
        var fields = base.map { Optional($0) }
        for (index, field) in changes { fields[index] = field }
        return fields.compactMap { $0 } + more
    }

    private static func parse(
        _ fields: [Field], with builder: inout RequestHeadBuilder, neverIndexed: Set<String> = []
    ) -> HTTPRequest? {
        builder.begin(isTrailers: false)
        for field in fields {
            let outcome = Array(field.name.utf8).withUnsafeBufferPointer { name in
                Array(field.value.utf8).withUnsafeBufferPointer { value in
                    builder.add(name, value, isNeverIndexed: neverIndexed.contains(field.name))
                }
            }
            guard case .proceed = outcome else { return nil }
        }
        return builder.finish()
    }

    private static let lists: [[Field]] = [
        base, base, changed([(3, (":path", "/two"))]), changed([(3, (":path", "/two")), (6, ("cookie", "session=2"))]),
        changed([(6, nil)]), changed([(5, nil)]), base, changed([], adding: [("x", "y"), ("x", "z")]), base,
        changed([(4, ("accept", "text/html"))]), changed([(4, ("accep", "t*/*"))]), changed([(0, (":method", "POST"))]),
        changed([(2, (":authority", "b.example")), (3, nil)], adding: []), Array(base.prefix(4)), base,
        changed([(2, (":authority", "b.example"))], adding: [("host", "b.example")]),
        changed([(2, (":authority", "b.example"))], adding: [("host", "b.example"), ("x", "y")]),
        changed([], adding: [("long", String(repeating: "x", count: 3000))]), base,
        changed([], adding: (0..<101).map { ("x\($0)", "") }), base,
    ]

    /// What a builder without a past makes of a list.
    private static func fresh(_ fields: [Field]) -> HTTPRequest? {
        var builder = RequestHeadBuilder(limits: ServerLimits())
        let head = parse(fields, with: &builder)
        return builder.isOversized ? nil : head
    }

    @Test func `is read the same whatever came before`() {
        for first in Self.lists {
            for second in Self.lists {
                var builder = RequestHeadBuilder(limits: ServerLimits())
                for list in [first, second, first] {
                    let head = Self.parse(list, with: &builder)
                    #expect((builder.isOversized ? nil : head) == Self.fresh(list))
                }
            }
        }
    }

    @Test func `is read the same after the last one was forgotten`() {
        for first in Self.lists {
            for second in Self.lists {
                var builder = RequestHeadBuilder(limits: ServerLimits())
                for list in [first, second] {
                    let head = Self.parse(list, with: &builder)
                    #expect((builder.isOversized ? nil : head) == Self.fresh(list))
                    builder.forget()
                }
            }
        }
    }

    @Test func `must name the same host in both fields also when one of them is repeated`() {
        var builder = RequestHeadBuilder(limits: ServerLimits())
        let good = Self.changed([], adding: [("host", "a.example")])
        let bad = Self.changed([(2, (":authority", "b.example"))], adding: [("host", "a.example")])
        #expect(Self.parse(good, with: &builder) != nil)
        #expect(Self.parse(bad, with: &builder) == nil)
        #expect(Self.parse(good, with: &builder) != nil)
    }

    @Test func `keeps apart what may be indexed and what may not`() {
        var builder = RequestHeadBuilder(limits: ServerLimits())
        #expect(Self.parse(Self.base, with: &builder)?.headerFields.last?.indexingStrategy == .automatic)
        let secret = Self.parse(Self.base, with: &builder, neverIndexed: ["cookie"])
        #expect(secret?.headerFields.last?.indexingStrategy == .disallow)
        #expect(Self.parse(Self.base, with: &builder)?.headerFields.last?.indexingStrategy == .automatic)
    }
}
