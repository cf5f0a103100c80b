import NIOCore

#if canImport(Glibc)
    import Glibc
#elseif canImport(Darwin)
    import Darwin
#endif

/// What a server listens on, and how it is named.
enum ListenAddress: Sendable, CustomStringConvertible {
    case tcp(host: String, port: Int)
    case unix(path: String)

    init(_ configuration: HTTP2ServerConfiguration) {
        if configuration.unixSocket.isEmpty {
            self = .tcp(host: configuration.host, port: configuration.port)
        } else {
            self = .unix(path: configuration.unixSocket)
        }
    }

    var description: String {
        switch self {
        case .tcp(let host, let port): host.contains(":") ? "[\(host)]:\(port)" : "\(host):\(port)"
        case .unix(let path): "unix:\(path)"
        }
    }

    /// Says in one line why the address cannot be listened on.
    func error(_ error: any Error) -> ServerError {
        switch error {
        case let error as ServerError:
            return error
        case is SocketAddressError.UnknownHost:
            return self.error(.addressUnavailable, "the host name is not known")
        case let error as IOError:
            return self.error(errno: error.errnoCode, error)
        default:
            return self.error(.cannotListen, "\(error)")
        }
    }

    func error(_ code: ServerError.Code, _ reason: String) -> ServerError {
        ServerError(code, "cannot listen on \(self): \(reason)")
    }

    private func error(errno: CInt, _ error: IOError) -> ServerError {
        switch (self, errno) {
        case (.tcp, EADDRINUSE): self.error(.addressInUse, "the port is in use")
        case (.unix, EADDRINUSE): self.error(.addressInUse, "another process listens on it")
        case (.tcp, EACCES): self.error(.permissionDenied, "no permission for this port")
        // EPERM and EROFS: file systems where nobody may make a file.
        case (.unix, EACCES), (.unix, EPERM), (.unix, EROFS):
            self.error(.permissionDenied, "no permission to make this file")
        case (.tcp, EADDRNOTAVAIL): self.error(.addressUnavailable, "not an address of this machine")
        case (.unix, ENOENT), (.unix, ENOTDIR): self.error(.addressUnavailable, "there is no such directory")
        default: self.error(.cannotListen, "\(error)")
        }
    }
}
