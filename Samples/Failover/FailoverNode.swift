import ArgumentParser
import Limpet
import LimpetMemcached
import LimpetServer
import Logging
import ServiceLifecycle

/// One node of the failover sample: two of these, a memcached and a balancer are a cluster.
@main
struct FailoverNode: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "failover-node", abstract: "One node of a cluster that shares its sessions.")

    @Option(name: .customLong("config"), help: "The JSON file to configure the node with.")
    var file: String

    func run() async throws {
        let (configuration, http, memcached) = await ConfigurationFile.loadOrExit(
            file, SessionConfiguration.self, HTTP2ServerConfiguration.self, MemcachedConfiguration.self)
        let logger = Logger(label: "failover-node")
        let store = try configuration.store.make(memcached: memcached, logger: logger)
        let sessions = try SessionManager(store: store, configuration: configuration, logger: logger)
        let routes = Routes(sessions: sessions)
        let server = try HTTP2Server(configuration: http, logger: logger, handler: routes.answer)
        await ServiceGroup(services: [store, sessions, server], logger: logger).runOrExit()
    }
}
