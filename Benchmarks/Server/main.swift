import HTTPTypes
import Limpet
import LimpetServer
import Logging
import NIOCore
import ServiceLifecycle
import UnixSignals

// Answers "Hello, World!", 1 MiB of zeroes for /large, or how long the body was that came. The server's keys configure it,
// as environment variables: SERVER_PORT, SERVER_THREADS …
let configuration = await ConfigurationFile.loadOrExit(nil, HTTP2ServerConfiguration.self)
let logger = Logger(label: "benchmark")
let large = ServerResponse(status: .ok, body: ResponseBody([UInt8](repeating: 0, count: 1 << 20)))
let server = try HTTP2Server(configuration: configuration, logger: logger) { request in
    if request.method == .post {
        var count = 0
        for try await piece in request.body { count += piece.readableBytes }
        return .text("\(count)\n")
    }
    return request.path == "/large" ? large : .text("Hello, World!\n")
}
try await ServiceGroup(services: [server], gracefulShutdownSignals: [.sigterm, .sigint], logger: logger).run()
