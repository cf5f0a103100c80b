public import Limpet
public import Logging

extension SessionConfiguration.Store {
    /// Makes the store that `store.kind` names.
    ///
    /// - Parameters:
    ///   - memcached: where memcached is, if it is that.
    ///   - logger: is told when a server stops answering, and when it answers again.
    /// - Throws: as the store's own initializer does.
    public func make(memcached: MemcachedConfiguration, logger: Logger) throws -> any SharedStore {
        switch kind {
        case .memory: MemoryStore()
        case .memcached: try MemcachedStore(configuration: memcached, timeout: timeout, logger: logger)
        }
    }
}
