import HTTPTypes
import Tracing

/// Runs a handler in a span that continues the client's trace (W3C `traceparent`, or whatever the tracer reads), up to the head of
/// the response. `ServiceContext.current` has it while the handler runs.
///
/// Attributes by OpenTelemetry's conventions for HTTP; the path without its query.
func traced(_ handler: @escaping HTTP2Server.Handler, by tracer: any Tracer) -> HTTP2Server.Handler {
    { request in
        var context = ServiceContext.topLevel
        tracer.extract(request.fields, into: &context, using: FieldExtractor())
        return try await tracer.withSpan(request.method.rawValue, context: context, ofKind: .server) { span in
            span.attributes["http.request.method"] = request.method.rawValue
            span.attributes["url.path"] = request.path
            span.attributes["url.scheme"] = request.head.scheme ?? "http"
            span.attributes["network.protocol.version"] = "2"
            let response = try await handler(request)
            span.attributes["http.response.status_code"] = response.status.code
            if response.status.code >= 500 { span.setStatus(SpanStatus(code: .error)) }
            return response
        }
    }
}

private struct FieldExtractor: Extractor {
    func extract(key: String, from fields: HTTPFields) -> String? {
        HTTPField.Name(key).flatMap { fields[$0] }
    }
}
