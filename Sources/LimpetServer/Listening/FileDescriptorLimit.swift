import Logging
import NIOCore

#if canImport(Glibc)
    import Glibc
#elseif canImport(Darwin)
    import Darwin
#endif

/// How many files and sockets the process may have open (`RLIMIT_NOFILE`).
///
/// The soft limit is 1024 on most systems, so that old programs that call `select` survive; the hard limit is what the
/// process may raise it to.
struct FileDescriptorLimit: Equatable {
    var soft: Int
    let hard: Int

    /// Descriptors for what is no connection: those of each event loop (epoll, a timer and an event), the listening
    /// socket, connections to the store, log files, and what the application opens.
    static func reserve(threads: Int) -> Int { 128 + 4 * threads }

    /// Raises the soft limit to what connections need, as far as it goes.
    ///
    /// - Returns: how many connections there can be.
    mutating func raise(forConnections connections: Int, threads: Int) -> Int {
        let reserve = Self.reserve(threads: threads)
        soft = max(soft, min(hard, connections + reserve))
        return max(1, min(connections, soft - reserve))
    }

    /// Raises the limit of this process.
    ///
    /// - Returns: how many connections there can be: fewer than asked for if the hard limit is too low, which is logged.
    static func raiseProcessLimit(forConnections connections: Int, threads: Int, logger: Logger) throws -> Int {
        var limits = rlimit()
        #if canImport(Glibc)
            let resource = __rlimit_resource_t(RLIMIT_NOFILE.rawValue)
        #else
            let resource = RLIMIT_NOFILE
        #endif
        guard getrlimit(resource, &limits) == 0 else { throw IOError(errnoCode: errno, reason: "getrlimit") }
        var limit = FileDescriptorLimit(soft: Int(clamping: limits.rlim_cur), hard: Int(clamping: limits.rlim_max))
        let before = limit
        let possible = limit.raise(forConnections: connections, threads: threads)
        if limit != before {
            limits.rlim_cur = rlim_t(limit.soft)
            guard setrlimit(resource, &limits) == 0 else { throw IOError(errnoCode: errno, reason: "setrlimit") }
        }
        if possible < connections {
            logger.warning(
                "the hard limit of open files is too low for server.maxConnections",
                metadata: ["limit": "\(limit.hard)", "wanted": "\(connections)", "possible": "\(possible)"])
        }
        return possible
    }
}
