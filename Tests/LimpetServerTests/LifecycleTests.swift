import Foundation
import InMemoryLogging
import Limpet
import Logging
import NIOCore
import NIOPosix
import ServiceLifecycle
import Testing

@testable import LimpetServer

@Suite(.timeLimit(.minutes(1))) struct `A server that starts and stops` {
    @Test func `finishes the request under way and refuses new ones`() async throws {
        let started = Signal()
        let finish = Signal()
        let served = Locked<[String]>([])
        var limits = ServerLimits()
        // However busy the machine is.
        limits.drainPingTimeout = .minutes(1)
        try await TestServer.run(limits: limits) { request in
            served.withLock { $0.append(request.path) }
            started.send()
            await finish.wait()
            return .text("done")
        } during: { server in
            let client = try await FrameClient.connect(server.port)
            try await client.send(.request(1, "GET", "/first"))
            await started.wait()
            await server.group.triggerGracefulShutdown()

            let notice = try await client.next { $0.kind == .goAway }
            #expect(notice.number(at: 0) == 0x7fff_ffff)
            // Still served: the client may have sent it before it saw the notice.
            try await client.send(.request(3, "GET", "/second"))
            let ping = try await client.next { $0.kind == .ping }
            try await client.send(Frame(kind: .ping, flags: Frame.acknowledgement, payload: ping.payload))
            let last = try await client.next { $0.kind == .goAway }
            #expect(last.number(at: 0) == 3)
            #expect(last.number(at: 4) == 0)
            try await client.send(.request(5, "GET", "/third"))
            finish.send()
            #expect(try await client.contents(of: 2) == [1: Array("done".utf8), 3: Array("done".utf8)])
            #expect(try await client.next() == nil)
            await #expect(throws: (any Error).self) { try await FrameClient.connect(server.port) }
        }
        #expect(served.withLock { $0 } == ["/first", "/second"])
    }

    @Test func `closes an idle connection when it stops`() async throws {
        try await TestServer.run { _ in
            .text("")
        } during: { server in
            let client = try await FrameClient.connect(server.port)
            try await client.send(.request(1))
            _ = try await client.response(1)
            let silent = try await FrameClient.connect(server.port, handshake: false)
            await server.group.triggerGracefulShutdown()
            let ping = try await client.next { $0.kind == .ping && $0.flags == 0 }
            try await client.send(Frame(kind: .ping, flags: Frame.acknowledgement, payload: ping.payload))
            #expect(try await client.next { $0.kind == .goAway }.number(at: 0) == 1)
            #expect(try await client.next() == nil)
            #expect(await silent.rest() == "")
        }
    }

    @Test func `cancels requests that do not finish in time`() async throws {
        let started = Signal()
        let wasCancelled = Locked(false)
        try await TestServer.run(configure: { $0.drainTimeoutSeconds = 0 }) { _ in
            started.send()
            await Signal().wait()
            wasCancelled.withLock { $0 = Task.isCancelled }
            return .text("late")
        } during: { server in
            let client = try await FrameClient.connect(server.port)
            try await client.send(.request(1))
            await started.wait()
            await server.group.triggerGracefulShutdown()
            while try await client.next() != nil {}
        }
        #expect(wasCancelled.withLock { $0 })
    }

    @Test func `says which port is in use`() async throws {
        try await TestServer.run { _ in
            .text("")
        } during: { first in
            var configuration = HTTP2ServerConfiguration()
            configuration.port = first.port
            let second = try HTTP2Server(configuration: configuration, logger: Logger(label: "second")) { _ in .text("")
            }
            await #expect {
                try await second.run()
            } throws: { error in
                (error as? ServerError)?.code == .addressInUse
                    && "\(error)" == "cannot listen on 127.0.0.1:\(first.port): the port is in use"
            }
            await #expect { try await second.boundPort } throws: { ($0 as? ServerError)?.code == .addressInUse }
        }
    }

    @Test func `says that an address is not this machine's`() async throws {
        var configuration = HTTP2ServerConfiguration()
        configuration.host = "192.0.2.1"  // RFC 5737: nobody's.
        let server = try HTTP2Server(configuration: configuration, logger: Logger(label: "test")) { _ in .text("") }
        await #expect { try await server.run() } throws: { ($0 as? ServerError)?.code == .addressUnavailable }
    }

    @Test func `says that a host name is not known`() async throws {
        var configuration = HTTP2ServerConfiguration()
        configuration.host = "host.invalid"  // RFC 6761: in no name service.
        let server = try HTTP2Server(configuration: configuration, logger: Logger(label: "test")) { _ in .text("") }
        await #expect {
            try await server.run()
        } throws: { error in
            (error as? ServerError)?.code == .addressUnavailable
                && "\(error)" == "cannot listen on host.invalid:8080: the host name is not known"
        }
    }

    @Test func `names the last stream also to a client that answers no PING`() async throws {
        var limits = ServerLimits()
        limits.drainPingTimeout = .milliseconds(10)
        let finish = Signal()
        try await TestServer.run(limits: limits) { _ in
            await finish.wait()
            return .text("done")
        } during: { server in
            let client = try await FrameClient.connect(server.port)
            try await client.send(.request(1), Frame(kind: .ping, payload: [UInt8](repeating: 0, count: 8)))
            _ = try await client.next { $0.kind == .ping }
            await server.group.triggerGracefulShutdown()
            #expect(try await client.next { $0.kind == .goAway }.number(at: 0) == 0x7fff_ffff)
            #expect(try await client.next { $0.kind == .goAway }.number(at: 0) == 1)
            finish.send()
            #expect(try await client.contents(of: 1) == [1: Array("done".utf8)])
            #expect(try await client.next() == nil)
        }
    }

    @Test func `stops draining when its task is cancelled, whatever its handlers do`() async throws {
        var limits = ServerLimits()
        limits.cancelTimeout = .milliseconds(10)
        var configuration = HTTP2ServerConfiguration()
        configuration.port = 0
        configuration.drainTimeoutSeconds = 86_400
        let finish = Signal()
        let log = InMemoryLogHandler()
        let server = try HTTP2Server(
            configuration: configuration, limits: limits, logger: Logger(label: "test") { _ in log }
        ) {
            _ in
            // A task of its own does not know that the handler is cancelled.
            await Task { await finish.wait() }.value
            return .text("")
        }
        let group = ServiceGroup(services: [server], logger: Logger(label: "group") { _ in log })
        let task = Task { try await group.run() }
        let client = try await FrameClient.connect(server.boundPort)
        try await client.send(.request(1))
        try await client.send(Frame(kind: .ping, payload: [UInt8](repeating: 0, count: 8)))
        _ = try await client.next { $0.kind == .ping }
        await group.triggerGracefulShutdown()
        _ = try await client.next { $0.kind == .goAway }
        task.cancel()
        while try await client.next() != nil {}
        _ = await task.result
        #expect(log.entries.contains { "\($0.message)" == "request handlers ignore that they are cancelled" })
        finish.send()
    }

    @Test func `stops at once when its task is cancelled`() async throws {
        var configuration = HTTP2ServerConfiguration()
        configuration.port = 0
        let started = Signal()
        let server = try HTTP2Server(configuration: configuration, logger: Logger(label: "test")) { _ in
            started.send()
            await Signal().wait()
            return .text("")
        }
        let task = Task { try await server.run() }
        let client = try await FrameClient.connect(server.boundPort)
        try await client.send(.request(1))
        await started.wait()
        task.cancel()
        while try await client.next() != nil {}
        try await task.value
    }

    @Test(arguments: [2, 4])
    func `answers every request that it takes while connections race its stop`(threads: Int) async throws {
        for _ in 0..<5 {
            let handled = Locked(0)
            let stopped = Locked(ContinuousClock.now)
            let log = try await TestServer.run(configure: { $0.threads = threads }) { _ in
                handled.withLock { $0 += 1 }
                await Task.yield()
                return .text("hello")
            } during: { server in
                let answered = try await withThrowingTaskGroup(of: Int.self) { visitors in
                    for _ in 0..<16 { visitors.addTask { try await visits(server.port) } }
                    while handled.withLock({ $0 }) < 50 { await Task.yield() }
                    stopped.withLock { $0 = .now }
                    await server.group.triggerGracefulShutdown()
                    return try await visitors.reduce(0, +)
                }
                #expect(answered == handled.withLock { $0 })
                return server.log
            }
            // Less than the time to drain: a connection that was forgotten takes all of it, and is logged.
            #expect(stopped.withLock { .now - $0 } < .seconds(8))
            #expect(log.entries.allSatisfy { $0.level < .warning })
        }
    }

    /// Connects and asks, again and again, until nobody listens any more.
    ///
    /// - Returns: how many requests were answered.
    private func visits(_ port: Int) async throws -> Int {
        var answered = 0
        while true {
            do {
                let client = try await FrameClient.connect(port, handshake: false)
                try await client.send(bytes: Frame.preface + Frame.emptySettings.bytes + Frame.request(1).bytes)
                #expect(try await client.response(1).content == Array("hello".utf8))
                answered += 1
                try await client.close()
            } catch is NIOConnectionError {
                return answered
            } catch is FrameClient.ConnectionClosed {
                // Closed before it was asked: see how many were handled.
            } catch is IOError {
                // The same.
            } catch is ChannelError {
                // The same.
            }
        }
    }

    @Test func `keeps its connections from programs that the application starts`() async throws {
        try await TestServer.run { _ in
            .text("")
        } during: { server in
            let client = try await FrameClient.connect(server.port)
            try await client.send(.request(1))
            #expect(try await client.response(1).status == 200)
            let accepted = (3..<1024).filter { isAccepted(Int32($0), port: server.port) }
            #expect(accepted.count == 1)
            for socket in accepted { #expect(fcntl(Int32(socket), F_GETFD) & FD_CLOEXEC != 0) }
        }
    }

    /// Whether this is a connected socket whose own end has this port.
    private func isAccepted(_ socket: Int32, port: Int) -> Bool {
        // Room for an address of any family. It begins with the family; an IPv4 one goes on with the port, big-endian.
        var own = [UInt16](repeating: 0, count: 64)
        var peer = own
        var (ownLength, peerLength) = (socklen_t(128), socklen_t(128))
        // Each call writes at most as many bytes as the array behind it has.
        let isConnected = own.withUnsafeMutableBytes { own in
            peer.withUnsafeMutableBytes { peer in
                getsockname(socket, own.baseAddress?.assumingMemoryBound(to: sockaddr.self), &ownLength) == 0
                    && getpeername(socket, peer.baseAddress?.assumingMemoryBound(to: sockaddr.self), &peerLength) == 0
            }
        }
        return isConnected && own[0] == UInt16(AF_INET) && Int(UInt16(bigEndian: own[1])) == port
    }

    @Test func `ends the wait for its port when the waiter is cancelled`() async throws {
        let server = try HTTP2Server(logger: Logger(label: "test")) { _ in .text("") }
        let waiter = Task { try await server.boundPort }
        waiter.cancel()
        await #expect(throws: CancellationError.self) { try await waiter.value }
    }
}
