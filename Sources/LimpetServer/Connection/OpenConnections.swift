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

    /// - Parameter handler: the channel's handler that takes it off again.
    func add(_ channel: any Channel, for handler: AnyObject) {
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

    func remove(_ handler: AnyObject) {
        let id = ObjectIdentifier(handler)
        let whenEmpty = state.withLock { state -> EventLoopPromise<Bool>? in
            state.channels[id] = nil
            guard state.channels.isEmpty else { return nil }
            defer { state.whenEmpty = nil }
            return state.whenEmpty
        }
        whenEmpty?.succeed(true)
    }

    /// Tells every connection, and those that are just being accepted, to finish its requests and close, and waits
    /// until they have.
    ///
    /// - Returns: `false` if some are left when the time is over, or ``close()`` was called.
    func drain(within timeout: TimeAmount, on eventLoop: any EventLoop) async throws -> Bool {
        let channels = state.withLock { state -> [any Channel]? in
            guard state.phase == .serving else { return nil }
            state.phase = .draining
            return Array(state.channels.values)
        }
        guard let channels else { return false }
        for channel in channels { channel.pipeline.fireUserInboundEventTriggered(ChannelShouldQuiesceEvent()) }
        return try await emptied(during: .draining, within: timeout, on: eventLoop)
    }

    /// Closes every connection at once, and ends the wait of ``drain(within:on:)``.
    func close() {
        let (channels, drained) = state.withLock { state -> ([any Channel], EventLoopPromise<Bool>?) in
            // What was added since is closed as well.
            guard state.phase != .closing else { return ([], nil) }
            state.phase = .closing
            defer { state.whenEmpty = nil }
            return (Array(state.channels.values), state.whenEmpty)
        }
        for channel in channels { channel.close(promise: nil) }
        drained?.succeed(false)
    }

    /// Waits until no connection is left of those that were closed.
    ///
    /// - Returns: `false` if some are left when the time is over.
    func closed(within timeout: TimeAmount, on eventLoop: any EventLoop) async throws -> Bool {
        try await emptied(during: .closing, within: timeout, on: eventLoop)
    }

    /// One caller at a time.
    private func emptied(
        during phase: Phase, within timeout: TimeAmount, on eventLoop: any EventLoop
    ) async throws -> Bool {
        let promise = eventLoop.makePromise(of: Bool.self)
        let known = state.withLock { state -> Bool? in
            if state.channels.isEmpty { return true }
            guard state.phase == phase else { return false }
            state.whenEmpty = promise
            return nil
        }
        if let known {
            promise.succeed(known)
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
