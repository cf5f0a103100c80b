import Limpet
import LimpetMemcached
import LimpetServer
import Logging
import ServiceLifecycle

extension SessionKey<Int> { static var visits: Self { Self("visits") } }

let (configuration, http, memcached) = await ConfigurationFile.loadOrExit(
    CommandLine.arguments.dropFirst().first,
    SessionConfiguration.self, HTTP2ServerConfiguration.self, MemcachedConfiguration.self)
let logger = Logger(label: "counter")
let store = try configuration.store.make(memcached: memcached, logger: logger)
let sessions = try SessionManager(store: store, configuration: configuration, logger: logger)
let handler = sessions.middleware { request, session in
    session[.visits, default: 0] += 1
    return .text("visits: \(session[.visits, default: 0])\n")
}
let server = try HTTP2Server(configuration: http, logger: logger, handler: handler)
await ServiceGroup(services: [store, sessions, server], logger: logger).runOrExit()
