import HTTPTypes
import Limpet
import LimpetServer
import Logging
import ServiceLifecycle
import UnixSignals

// Answers "Hello, World!", 1 MiB of zeroes for /large, or the body that came. SERVER_PORT, SERVER_THREADS and SERVER_HOST configure it.
let configuration = await ConfigurationFile.loadOrExit(nil, HTTP2ServerConfiguration.self)
let logger = Logger(label: "benchmark")
let large = ServerResponse(status: .ok, body: ResponseBody([UInt8](repeating: 0, count: 1 << 20)))
let server = try HTTP2Server(configuration: configuration, logger: logger) { request in
    if request.method == .post {
        return ServerResponse(status: .ok, body: ResponseBody(try await request.body.collect(upTo: 1 << 20)))
    }
    return request.path == "/large" ? large : .text("Hello, World!\n")
}
try await ServiceGroup(services: [server], gracefulShutdownSignals: [.sigterm, .sigint], logger: logger).run()
