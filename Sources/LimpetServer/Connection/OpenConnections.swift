import Limpet
import NIOCore

/// The connections of a server: what has to be told that it stops, and waited for.
///
/// A connection belongs here until it is closed and all of its handlers have returned.
final class OpenConnections: Sendable {
    private enum Phase { case serving, draining, closing }

    private struct State {
        var channels: [ObjectIdentifier: any Channel] = [:]
        var phase = Phase.serving
        var whenEmpty: EventLoopPromise<Bool>?
    }

    private let state = Locked(State())

    /// How many connections there are.
    var count: Int { state.withLock { $0.channels.count } }

    func add(_ channel: any Channel, for handler: HTTP2ConnectionHandler) {
        let id = ObjectIdentifier(handler)
        let phase = state.withLock { state in
            state.channels[id] = channel
            return state.phase
        }
        // Accepted while the others were told: told now.
        switch phase {
        case .serving: break
        case .draining: channel.pipeline.fireUserInboundEventTriggered(ChannelShouldQuiesceEvent())
        case .closing: channel.close(promise: nil)
        }
    }

    func remove(_ handler: HTTP2ConnectionHandler) {
        let id = ObjectIdentifier(handler)
        let whenEmpty = state.withLock { state -> EventLoopPromise<Bool>? in
            state.channels[id] = nil
            guard state.channels.isEmpty else { return nil }
            defer { state.whenEmpty = nil }
            return state.whenEmpty
        }
        whenEmpty?.succeed(true)
    }

    /// Tells every connection, and those that are just being accepted, to finish its requests and close.
    func drain() {
        let channels = state.withLock { state in
            state.phase = .draining
            return Array(state.channels.values)
        }
        for channel in channels { channel.pipeline.fireUserInboundEventTriggered(ChannelShouldQuiesceEvent()) }
    }

    /// Closes every connection at once.
    func close() {
        let channels = state.withLock { state in
            state.phase = .closing
            return Array(state.channels.values)
        }
        for channel in channels { channel.close(promise: nil) }
    }

    /// Waits until no connection is left. One caller at a time.
    ///
    /// - Returns: `false` if some are left when the time is over.
    func emptied(within timeout: TimeAmount, on eventLoop: any EventLoop) async throws -> Bool {
        let promise = eventLoop.makePromise(of: Bool.self)
        let isEmpty = state.withLock { state in
            if !state.channels.isEmpty { state.whenEmpty = promise }
            return state.channels.isEmpty
        }
        if isEmpty {
            promise.succeed(true)
        } else {
            let timer = eventLoop.scheduleTask(in: timeout) {
                let late = self.state.withLock { state in
                    defer { state.whenEmpty = nil }
                    return state.whenEmpty
                }
                late?.succeed(false)
            }
            promise.futureResult.whenComplete { _ in timer.cancel() }
        }
        return try await promise.futureResult.get()
    }
}
