import NIOCore
import NIOPosix

#if canImport(Glibc)
    import Glibc
#elseif canImport(Darwin)
    import Darwin
#endif

/// The file through which a Unix socket is found. The kernel leaves it behind when a process ends without removing it.
struct UnixSocketFile: Sendable {
    /// Bytes of a path that the kernel takes: `sun_path` of `sockaddr_un`, less the byte that ends it.
    static let maxPathBytes = MemoryLayout.size(ofValue: sockaddr_un().sun_path) - 1

    let path: String

    /// Removes a socket on which nobody listens any more.
    ///
    /// - Throws: ``ServerError`` if somebody does, or the file is something else; `IOError`.
    func replaceStale(on eventLoop: any EventLoop) async throws {
        var status = stat()
        // What is not there, or cannot be looked at, is left to `bind`, which says what is wrong.
        guard lstat(path, &status) == 0 else { return }
        let address = ListenAddress.unix(path: path)
        guard status.st_mode & S_IFMT == S_IFSOCK else {
            throw address.error(.addressInUse, "the file is there and no socket")
        }
        do {
            let channel = try await ClientBootstrap(group: eventLoop).connect(unixDomainSocketPath: path).get()
            try await channel.close().get()
        } catch let error as IOError where error.errnoCode == ECONNREFUSED {
            guard unlink(path) == 0 || errno == ENOENT else { throw IOError(errnoCode: errno, reason: "unlink") }
            return
        } catch let error as IOError where error.errnoCode == ENOENT {
            // Removed by whom it belonged to.
            return
        }
        throw address.error(.addressInUse, "another process listens on it")
    }
}
