import Foundation
import HTTPTypes
import Limpet
import Logging
import NIOCore
import Testing

@testable import LimpetServer

extension SessionKey<Int> { fileprivate static var visits: Self { Self("visits") } }

@Suite(.timeLimit(.minutes(2))) struct `A browser` {
    /// A page that counts twice, one request after the other, and shows what it was told.
    private static let page = """
        <!doctype html><title>Visits</title><body></body><script>
        for (let i = 0; i < 2; i++) {
            const request = new XMLHttpRequest();
            request.open("POST", "/count", false);
            request.send();
            document.body.append(request.status + ":" + request.responseText + ";");
        }
        </script>
        """

    @Test func `keeps its session over TLS`() async throws {
        var configuration = SessionConfiguration()
        configuration.cookie.secure = true
        let logger = Logger(label: "test")
        let sessions = try SessionManager(
            store: MemoryStore(), configuration: configuration, logger: logger)
        let count = sessions.middleware { _, session in
            session[.visits, default: 0] += 1
            return .text("\(session[.visits, default: 0])")
        }
        try await TestServer.runWithTLS { request in
            if request.path == "/count" { return try await count(request) }
            return ServerResponse(
                status: .ok, fields: [.contentType: "text/html; charset=utf-8"],
                body: ResponseBody(Array(Self.page.utf8)))
        } during: { server, _ in
            try await withTemporaryDirectory { directory in
                let chromium = try await runTool(
                    "chromium",
                    [
                        "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
                        "--no-first-run", "--disable-background-networking", "--disable-component-update",
                        "--disable-sync", "--no-proxy-server",
                        "--user-data-dir=\(directory.path)", "--ignore-certificate-errors",
                        "--dump-dom", "https://localhost:\(server.port)/",
                    ])
                #expect(chromium.output.contains("200:1;200:2;"), "\(chromium.output)\(chromium.errors)")
            }
        }
    }
}
