import HTTPTypes
public import Limpet

extension SessionManager {
    /// Makes a handler of the server from one that uses a session.
    ///
    /// A request that could not have its session is answered with ``SessionError/status`` and `Retry-After`, without the
    /// reason: it stands in the log. What a request may do with its session, `lock.rules` says: ``Session/access``.
    public func middleware(
        _ handler: @escaping @Sendable (ServerRequest, Session) async throws -> ServerResponse
    ) -> HTTP2Server.Handler {
        { request in
            do {
                return try await self.withSession(request.head, \.fields) { session in
                    try await handler(request, session)
                }
            } catch let error as SessionError {
                var response = ServerResponse.text("the session is not available\n", status: error.status)
                if let seconds = error.retryAfterSeconds { response.fields[.retryAfter] = "\(seconds)" }
                return response
            }
        }
    }
}
