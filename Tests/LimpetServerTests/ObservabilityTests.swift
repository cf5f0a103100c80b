import HTTPTypes
import InMemoryLogging
import InMemoryTracing
import Limpet
import Logging
import Metrics
import MetricsTestKit
import NIOCore
import Testing
import Tracing

@testable import LimpetServer

@Suite(.timeLimit(.minutes(1))) struct `Who watches the server` {
    @Test func `reads a line for each request, without its query`() async throws {
        try await TestServer.run(configure: { $0.accessLog = true }) { request in
            switch request.path {
            case "/written": ServerResponse(status: .ok, body: .written { try await $0.write("four") })
            case "/missing": ServerResponse(status: .notFound)
            default: .text("hello")
            }
        } during: { server in
            let client = try await FrameClient.connect(server.port)
            for (index, path) in ["/?secret=1", "/written", "/missing"].enumerated() {
                let fields = [("x-request-id", "r\(index)")]
                try await client.send(.request(UInt32(2 * index + 1), "GET", path, fields: fields))
                _ = try await client.response(UInt32(2 * index + 1))
            }
            try await client.send(
                .request(7, "PUT", "/large", fields: [("content-length", "9999999")], endStream: false))
            _ = try await client.response(7)
            let lines = server.log.entries.filter { "\($0.message)" == "request" }.map(\.metadata)
            #expect(lines.map { $0["path"] } == ["/", "/written", "/missing", "/large"])
            #expect(lines.map { $0["method"] } == ["GET", "GET", "GET", "PUT"])
            #expect(lines.map { $0["status"] } == ["200", "200", "404", "413"])
            #expect(lines.map { $0["bytes"] } == ["5", "4", "0", "23"])
            #expect(lines.prefix(3).map { $0["request-id"] } == ["r0", "r1", "r2"])
            #expect(lines.allSatisfy { Int("\($0["microseconds"] ?? "")") != nil })
            #expect(!"\(server.log.entries)".contains("secret"))
        }
    }

    @Test func `reads no line unless asked`() async throws {
        try await TestServer.run { _ in
            .text("hello")
        } during: { server in
            let client = try await FrameClient.connect(server.port)
            try await client.send(.request(1))
            _ = try await client.response(1)
            #expect(server.log.entries.allSatisfy { "\($0.message)" != "request" })
        }
    }

    @Test(arguments: ["abc-1", "A.b_c:d+e/f=", String(repeating: "x", count: 80)])
    func `finds the client's request id in the metadata of logs`(id: String) {
        let name = HTTPField.Name("x-request-id")
        #expect(name.map { RequestID([$0: id], number: 1).text } == id)
    }

    @Test(arguments: ["", "a b", "a\"b", "ä", String(repeating: "x", count: 81)])
    func `finds a number in place of a request id that is not sane`(id: String) {
        let name = HTTPField.Name("request-id")
        #expect(name.map { RequestID([$0: id], number: 0xabc).text } == "0000000000000abc")
    }

    @Test func `finds the request id in what the handler logs`() async throws {
        struct Broken: Error {}
        try await TestServer.run { request in
            request.logger.warning("custom")
            throw Broken()
        } during: { server in
            let client = try await FrameClient.connect(server.port)
            try await client.send(.request(1, fields: [("request-id", "mine")]))
            _ = try await client.response(1)
            let ids = server.log.entries.filter { $0.level >= .warning }.map { $0.metadata["request-id"] }
            #expect(ids == ["mine", "mine"])
        }
    }

    @Test func `counts`() async throws {
        let metrics = TestMetrics()
        var limits = ServerLimits()
        limits.tick = .milliseconds(5)
        try await TestServer.run(limits: limits, metrics: metrics) { request in
            if request.path == "/wait" { await Signal().wait() }
            return request.path == "/missing" ? ServerResponse(status: .notFound) : .text("hello")
        } during: { server in
            let client = try await FrameClient.connect(server.port)
            try await client.send(
                .request(1), .request(3, "GET", "/missing"), .request(5, "GET", "/wait"), .reset(5),
                .request(7, fields: (0..<101).map { ("x-\($0)", "") }))
            _ = try await client.response(7)
            try await client.send(.request(9, "GET", "/wait"), .request(11, fields: [("UPPER", "case")]))
            _ = try await client.next { $0.kind == .resetStream }
            while metrics.meters.allSatisfy({ $0.label != "limpet_server_streams" || $0.values.last != 1 }) {
                await Task.yield()
            }
            try await client.close()
            let total = { (label: String, dimensions: [(String, String)]) -> Int64 in
                metrics.counters.filter { $0.label == label && $0.dimensions.map(\.1) == dimensions.map(\.1) }
                    .reduce(0) { $0 + $1.totalValue }
            }
            let requests = "limpet_server_requests_total"
            // The end of the handler that has lost its connection is told last.
            while total(requests, [("status", "none")]) < 2 { await Task.yield() }
            #expect(try metrics.expectMeter("limpet_server_connections").values.last == 0)
            #expect(try metrics.expectMeter("limpet_server_streams").values.last == 0)
            #expect(total(requests, [("status", "2xx")]) == 1)
            #expect(total(requests, [("status", "4xx")]) == 2)
            #expect(total("limpet_server_connections_total", []) == 1)
            #expect(total("limpet_server_limit_hits_total", [("limit", "header-list")]) == 1)
            #expect(total("limpet_server_resets_total", [("by", "client")]) == 1)
            #expect(total("limpet_server_resets_total", [("by", "server")]) == 1)
            #expect(total("limpet_server_received_bytes_total", []) > 100)
            #expect(total("limpet_server_sent_bytes_total", []) > 100)
            let durations = try metrics.expectTimer("limpet_server_request_duration_seconds")
            #expect(durations.values.count == 5)
            #expect(durations.values.allSatisfy { $0 > 0 })
        }
    }

    @Test func `sees a span that continues the client's trace`() async throws {
        let tracer = InMemoryTracer()
        let inside = Locked<InMemorySpanContext?>(nil)
        try await TestServer.run(tracer: tracer) { request in
            inside.withLock { $0 = ServiceContext.current?.inMemorySpanContext }
            await Task.yield()
            return ServerResponse(status: request.path == "/fails" ? .internalServerError : .ok)
        } during: { server in
            let client = try await FrameClient.connect(server.port)
            let trace = [("in-memory-trace-id", "trace-1"), ("in-memory-span-id", "span-1")]
            try await client.send(.request(1, "GET", "/a?secret=1", fields: trace))
            _ = try await client.response(1)
            try await client.send(.request(3, "GET", "/fails"))
            _ = try await client.response(3)
        }
        let spans = tracer.finishedSpans
        #expect(spans.map(\.operationName) == ["GET", "GET"])
        #expect(spans.map(\.kind) == [.server, .server])
        #expect(spans.first?.traceID == "trace-1")
        #expect(spans.first?.parentSpanID == "span-1")
        #expect(spans.last?.parentSpanID == nil)
        #expect(spans.first?.attributes["url.path"]?.toSpanAttribute() == "/a")
        #expect(spans.first?.attributes["http.response.status_code"]?.toSpanAttribute() == 200)
        #expect(spans.map { $0.status?.code == .error } == [false, true])
        #expect(inside.withLock { $0?.traceID } == spans.last?.traceID)
    }
}
