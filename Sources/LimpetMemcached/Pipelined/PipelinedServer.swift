import Limpet
import Logging
import NIOCore
import NIOSSL
import Synchronization

/// One server, as the connections of all event loops see it: which tokens are good, whether it is asked at all, and where
/// it is.
final class PipelinedServer: Sendable {
    /// What all servers have in common.
    struct Settings: Sendable {
        /// How long an operation may take, and a connection to be opened.
        let timeout: TimeAmount
        let credentials: MemcachedCredentials?
        let tls: NIOSSLContext?
        let logger: Logger
        /// Told when a server turns out not to speak meta commands. `nil`: that is a failure.
        let fallBack: (@Sendable (MemcachedAddress) -> Void)?
    }

    /// Why a connection is no more, or could not be opened.
    enum Problem: Sendable {
        /// The server, or somebody between, ended it.
        case ended
        /// No answer in time.
        case timeout
        /// It cannot be reached; with the system's reason.
        case unreachable(String)
        /// The server broke the protocol.
        case broken(MetaReplyProblem)
        /// It does not speak meta commands, or wants a user.
        case refused(String)
        /// The store is shut down.
        case shutDown
        /// The server is at several addresses, and the other connections are to another one: nothing is wrong.
        case elsewhere

        /// What a caller is told.
        var code: StoreError.Code {
            switch self {
            case .ended: .connectionLost
            case .timeout: .timeout
            case .unreachable, .refused, .elsewhere: .unavailable
            case .broken: .corrupt
            case .shutDown: .closed
            }
        }

        var message: String {
            switch self {
            case .ended: "the connection ended before the answer"
            case .timeout: "the server did not answer in time"
            case .unreachable(let reason): "the server cannot be reached: \(reason)"
            case .broken(.endlessLine): "the server answered a line without an end"
            case .broken(.brokenLine): "the server answered a line that is none of the protocol"
            case .broken(.unknownReply): "the server answered something that was not asked"
            case .broken(.valueTooLong): "the server announced a value that is too long"
            case .broken(.valueNotEnded): "the server answered a value of another length than announced"
            case .refused(let reason): reason
            case .shutDown: "the store was shut down"
            case .elsewhere: "the server moves"
            }
        }
    }

    private struct State {
        /// Attempts and connections that failed in a row.
        var failures = 0
        var retryAt = NIODeadline.uptimeNanoseconds(0)
        var isProbing = false
        /// Connections that are open, all to `address`.
        var open = 0
        var address: SocketAddress?
        /// Whether the last connection ended at the first meta command.
        var endedAtNoop = false
        var isAnswering = true
        /// Whether the log knows already that the server is asked in a wrong way.
        var wasRefused = false
        /// Whether the last failure was one of the protocol.
        var wasBroken = false

        /// - Returns: whether that is news.
        mutating func fail(_ problem: Problem) -> Bool {
            failures += 1
            retryAt = .now() + PipelinedServer.pause(after: failures)
            var isRefused = false
            wasBroken = false
            switch problem {
            case .refused: isRefused = true
            case .broken: wasBroken = true
            default: break
            }
            defer {
                isAnswering = false
                wasRefused = wasRefused || isRefused
            }
            return isAnswering || isRefused && !wasRefused
        }
    }

    /// The first pause is that long at most, and each next one twice that, up to the longest: a node that finds its server
    /// back within half a second has asked it twice a second meanwhile.
    private static let firstPause = TimeAmount.milliseconds(20)
    private static let longestPause = TimeAmount.milliseconds(500)

    let endpoint: MemcachedAddress
    let settings: Settings
    private let state = Locked(State())
    /// Begins at random: a token of another store is worth nothing here.
    private let currentGeneration = Atomic(UInt64.random(in: 0...UInt64.max / 2))

    init(_ endpoint: MemcachedAddress, _ settings: Settings) {
        self.endpoint = endpoint
        self.settings = settings
    }

    /// Changes whenever a connection to the server is opened or lost: memcached counts its tokens from 1 again when it is
    /// started, and nobody else says that it was.
    ///
    /// A token carries the generation in which it was asked for. So one that an old process gave is void when the first
    /// connection to a new process is open, also on connections that still seem to be well.
    var generation: UInt64 { currentGeneration.load(ordering: .acquiring) }

    private func changeGeneration() {
        currentGeneration.wrappingAdd(1, ordering: .acquiringAndReleasing)
    }

    // MARK: Connecting

    enum Admission {
        /// To this address, or wherever the endpoint is. A probe finds out whether a server answers again.
        case connect(SocketAddress?, isProbe: Bool)
        /// The server does not answer, and somebody else asks it, or has just done so.
        case refuse
    }

    /// Asks to open a connection. One that is admitted has to be told of with ``opened(at:isProbe:)`` or
    /// ``failed(_:isProbe:)``.
    func admit(at now: NIODeadline) -> Admission {
        state.withLock { state in
            let isProbe = state.failures > 0
            if isProbe {
                guard !state.isProbing, now >= state.retryAt else { return .refuse }
                state.isProbing = true
            }
            return .connect(state.open > 0 ? state.address : nil, isProbe: isProbe)
        }
    }

    /// A connection answers, and is about to be used.
    ///
    /// - Returns: `false` if others are open to another address: it must not be used, since that may be another server.
    func opened(at address: SocketAddress?, isProbe: Bool) -> Bool {
        let isSame = state.withLock { state in
            if isProbe { state.isProbing = false }
            guard state.open == 0 || state.address == address else { return false }
            state.open += 1
            state.address = address
            state.endedAtNoop = false
            return true
        }
        if isSame { changeGeneration() }
        return isSame
    }

    /// How many answers on a connection prove that the server is well: one, unless it broke the protocol the last time.
    /// Then it may do so again, at some commands and not at others.
    var proof: Int { state.withLock { $0.wasBroken ? 32 : 1 } }

    /// Calls on a connection have been answered: more than a greeting is to be had from the server.
    func proved() {
        let isBack = state.withLock { state in
            state.failures = 0
            state.wasBroken = false
            defer {
                state.isAnswering = true
                state.wasRefused = false
            }
            return !state.isAnswering
        }
        guard isBack else { return }
        settings.logger.notice(
            "a memcached server answers again", metadata: ["server": "\(endpoint.description)"])
    }

    /// An open connection is no more.
    ///
    /// - Parameters:
    ///   - isFailure: whether the server is left alone for a while.
    ///   - wasProved: whether calls were answered on it.
    func lost(_ problem: Problem, isFailure: Bool, wasProved: Bool) {
        changeGeneration()
        let isNews = state.withLock { state in
            state.open -= 1
            guard isFailure else { return false }
            // What many connections meet at the same time is one failure.
            return wasProved && state.failures > 0 ? false : state.fail(problem)
        }
        if isNews { warn(problem) }
    }

    /// A connection could not be opened.
    ///
    /// - Parameter wasAtNoop: whether it ended at the first meta command.
    func failed(_ problem: Problem, isProbe: Bool, wasAtNoop: Bool = false) {
        let isNews = state.withLock { state in
            if isProbe { state.isProbing = false }
            switch problem {
            case .elsewhere, .shutDown: return false
            default: break
            }
            state.endedAtNoop = wasAtNoop
            // One that was begun before the last failure says nothing new.
            return isProbe || state.failures == 0 ? state.fail(problem) : false
        }
        if isNews { warn(problem) }
    }

    /// Whether a connection that ends at its first meta command does so because the server ends all of them there. Two that
    /// were open when a server ended are one end.
    func endsAllAtNoop(isProbe: Bool) -> Bool { state.withLock { $0.endedAtNoop && isProbe } }

    private func warn(_ problem: Problem) {
        settings.logger.warning(
            "a memcached server does not answer",
            metadata: [
                "server": "\(endpoint.description)", "error": "\(problem.code): \(problem.message)",
            ])
    }

    /// Exponential, with jitter: between half of the pause and all of it, so that nodes do not ask together.
    static func pause(after failures: Int) -> TimeAmount {
        let doublings = min(max(failures, 1) - 1, 16)
        let pause = min(firstPause.nanoseconds << doublings, longestPause.nanoseconds)
        return .nanoseconds(Int64.random(in: pause / 2...pause))
    }
}
