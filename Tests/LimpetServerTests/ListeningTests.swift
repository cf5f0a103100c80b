import Foundation
import InMemoryLogging
import Limpet
import Logging
import NIOCore
import NIOPosix
import Testing

@testable import LimpetServer

@Suite(.timeLimit(.minutes(1))) struct `A server on a Unix socket` {
    private func curl(_ path: String) async throws -> ToolResult {
        try await runTool(
            "curl", ["-sS", "--max-time", "20", "--http2-prior-knowledge", "--unix-socket", path, "http://test/"])
    }

    private func error(_ path: String) async throws -> ServerError? {
        var configuration = HTTP2ServerConfiguration()
        configuration.unixSocket = path
        let server = try HTTP2Server(configuration: configuration, logger: Logger(label: "test")) { _ in .text("") }
        return await #expect(throws: ServerError.self) { try await server.run() }
    }

    @Test func `serves, and removes the file when it stops`() async throws {
        try await withTemporaryDirectory { directory in
            let path = directory.appending(path: "socket").path
            try await TestServer.run(configure: { $0.unixSocket = path }) { _ in
                .text("hello")
            } during: { server in
                #expect(server.port == 0)
                let curl = try await curl(path)
                #expect(curl.output == "hello", "\(curl.errors)")
                #expect(server.log.entries.contains { $0.metadata["address"] == "unix:\(path)" })
            }
            #expect(!FileManager.default.fileExists(atPath: path))
        }
    }

    @Test func `replaces a socket that a dead process left`() async throws {
        try await withTemporaryDirectory { directory in
            let path = directory.appending(path: "socket").path
            let dead = try await ServerBootstrap(group: MultiThreadedEventLoopGroup.singleton)
                .bind(unixDomainSocketPath: path + ".new").get()
            // Under another name: SwiftNIO removes the one that it knows.
            try FileManager.default.moveItem(atPath: path + ".new", toPath: path)
            try await dead.close().get()
            #expect(FileManager.default.fileExists(atPath: path))
            try await TestServer.run(configure: { $0.unixSocket = path }) { _ in
                .text("hello")
            } during: { _ in
                let curl = try await curl(path)
                #expect(curl.output == "hello", "\(curl.errors)")
            }
        }
    }

    @Test func `leaves a socket alone on which another listens`() async throws {
        try await withTemporaryDirectory { directory in
            let path = directory.appending(path: "socket").path
            try await TestServer.run(configure: { $0.unixSocket = path }) { _ in
                .text("first")
            } during: { _ in
                let error = try await error(path)
                #expect(error?.code == .addressInUse)
                #expect(error?.message == "cannot listen on unix:\(path): another process listens on it")
                let curl = try await curl(path)
                #expect(curl.output == "first", "\(curl.errors)")
            }
        }
    }

    @Test func `leaves alone what is no socket`() async throws {
        try await withTemporaryDirectory { directory in
            let file = directory.appending(path: "file")
            try Data("precious".utf8).write(to: file)
            #expect(try await error(file.path)?.code == .addressInUse)
            #expect(try Data(contentsOf: file) == Data("precious".utf8))
            #expect(try await error(file.path + "/socket")?.code == .addressUnavailable)
            #expect(try await error(directory.path + "/missing/socket")?.code == .addressUnavailable)
        }
    }

    @Test func `says that it may not make the file`() async throws {
        // Nobody makes files in the kernel's own file system, root included.
        let error = try await error("/sys/limpet-test")
        #expect(error?.code == .permissionDenied)
        #expect(error?.message == "cannot listen on unix:/sys/limpet-test: no permission to make this file")
    }
}

@Suite struct `What a server says when it cannot listen` {
    @Test(arguments: [
        (EADDRINUSE, ServerError.Code.addressInUse, "the port is in use"),
        (EACCES, .permissionDenied, "no permission for this port"),
        (EADDRNOTAVAIL, .addressUnavailable, "not an address of this machine"),
    ])
    func `on a port`(errno: Int32, code: ServerError.Code, reason: String) {
        let address = ListenAddress.tcp(host: "::1", port: 80)
        let error = address.error(IOError(errnoCode: errno, reason: "bind"))
        #expect(error == ServerError(code, "cannot listen on [::1]:80: \(reason)"))
    }

    @Test(arguments: [
        (EACCES, ServerError.Code.permissionDenied, "no permission to make this file"),
        (EROFS, .permissionDenied, "no permission to make this file"),
        (ENOENT, .addressUnavailable, "there is no such directory"),
    ])
    func `on a Unix socket`(errno: Int32, code: ServerError.Code, reason: String) {
        let error = ListenAddress.unix(path: "/a/b").error(IOError(errnoCode: errno, reason: "bind"))
        #expect(error == ServerError(code, "cannot listen on unix:/a/b: \(reason)"))
    }
}

@Suite(.timeLimit(.minutes(1))) struct `The number of connections` {
    @Test func `is bounded: more are closed at once`() async throws {
        try await TestServer.run(configure: { $0.maxConnections = 2 }) { _ in
            .text("hello")
        } during: { server in
            var clients: [FrameClient] = []
            for _ in 0..<2 {
                let client = try await FrameClient.connect(server.port)
                try await client.send(.request(1))
                #expect(try await client.response(1).status == 200)
                clients.append(client)
            }
            for _ in 0..<3 {
                let refused = try await FrameClient.connect(server.port, handshake: false)
                #expect(try await refused.next() == nil)
            }
            #expect(server.log.entries.filter { "\($0.message)".contains("there are too many") }.count == 1)
            try await clients.removeLast().close()
            // The server learns of the end in its own time.
            while try await isRefused(server.port) {}
            try await clients[0].send(.request(3))
            #expect(try await clients[0].response(3).status == 200)
        }
    }

    private func isRefused(_ port: Int) async throws -> Bool {
        let client = try await FrameClient.connect(port, handshake: false)
        do {
            try await client.send(bytes: Frame.preface)
            try await client.send(.emptySettings)
        } catch is IOError {
            return true
        } catch is ChannelError {
            return true
        }
        return try await client.next() == nil
    }

    @Test func `is counted in and out, and told once a minute when it is too high`() {
        var admission = ConnectionAdmission(limit: 2)
        let now = NIODeadline.now()
        #expect(admission.admit(now: now) == .admitted)
        #expect(admission.admit(now: now) == .admitted)
        #expect(admission.admit(now: now) == .refusedWithWarning)
        #expect(admission.admit(now: now + .seconds(59)) == .refused)
        #expect(admission.admit(now: now + .seconds(60)) == .refusedWithWarning)
        #expect(admission.open == 2)
        admission.leave()
        #expect(admission.admit(now: now + .seconds(61)) == .admitted)
        #expect(admission.admit(now: now + .seconds(61)) == .refused)
    }

    @Test func `raises the limit of open files as far as it needs and may`() {
        var enough = FileDescriptorLimit(soft: 50_000, hard: 50_000)
        #expect(enough.raise(forConnections: 20_000, threads: 2) == 20_000)
        #expect(enough.soft == 50_000)
        var low = FileDescriptorLimit(soft: 1024, hard: 524_288)
        #expect(low.raise(forConnections: 20_000, threads: 2) == 20_000)
        #expect(low.soft == 20_000 + FileDescriptorLimit.reserve(threads: 2))
        var lowest = FileDescriptorLimit(soft: 1024, hard: 4096)
        #expect(lowest.raise(forConnections: 20_000, threads: 2) == 4096 - FileDescriptorLimit.reserve(threads: 2))
        #expect(lowest.soft == 4096)
    }

    @Test func `is what the process may have open`() throws {
        let possible = try FileDescriptorLimit.raiseProcessLimit(
            forConnections: 2000, threads: 1, logger: Logger(label: "test"))
        var limit = rlimit()
        #expect(getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0)
        let reserve = FileDescriptorLimit.reserve(threads: 1)
        #expect(possible == min(2000, Int(clamping: limit.rlim_max) - reserve))
        #expect(Int(clamping: limit.rlim_cur) >= possible + reserve)
    }
}

@Suite(.timeLimit(.minutes(1))) struct `A listener that stops` {
    @Test func `accepts first who has connected`() async throws {
        let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
        let accepted = Locked(0)
        let channel = try await ServerBootstrap(group: group)
            .serverChannelOption(.backlog, value: Listener.backlog)
            .childChannelInitializer { channel in
                accepted.withLock { $0 += 1 }
                return channel.eventLoop.makeSucceededVoidFuture()
            }
            .bind(host: "127.0.0.1", port: 0).get()
        let proceed = DispatchSemaphore(value: 0)
        group.next().execute { proceed.wait() }
        // The kernel connects them, while the listener's loop is busy.
        var clients: [FrameClient] = []
        for _ in 0..<100 {
            clients.append(try await FrameClient.connect(channel.localAddress?.port ?? 0, handshake: false))
        }
        Listener(channel, configured: .tcp(host: "127.0.0.1", port: 0)).stop()
        proceed.signal()
        try await channel.closeFuture.get()
        #expect(accepted.withLock { $0 } == 100)
        try await group.shutdownGracefully()
    }
}
