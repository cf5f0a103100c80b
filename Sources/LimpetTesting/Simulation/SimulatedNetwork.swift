import Limpet

/// What lies between the nodes and the store's servers, and what befalls it: how long messages take, and which are lost.
final class SimulatedNetwork: Sendable {
    /// How a server does not answer.
    enum Silence: Sendable { case refuses, isMute }

    /// No message is on its way for longer.
    static let longestDelay = VirtualTime.seconds(5)

    /// What becomes of one message to a server and of its answer.
    enum Fate: Sendable {
        case answered(there: VirtualTime, back: VirtualTime)
        /// The server does not get it.
        case lost
        /// The server gets it, nobody gets the answer; `there` may be long after the time-out.
        case unanswered(there: VirtualTime)
        /// The server says at once that it is not there.
        case refused
    }

    fileprivate struct State {
        var random: SeededRandom
        var trouble: Scenario.Trouble
        var silent: [Int: Silence] = [:]
        var cut: Set<Link> = []
        var isHealed = false
    }

    fileprivate struct Link: Hashable { let node: String; let server: Int }

    let loop: SimulationLoop
    let trace: SimulationTrace
    let servers: [SimulatedServer]
    let tellsTokens: Bool
    /// How long a node waits for an answer.
    let timeout: VirtualTime
    private let state: Locked<State>

    init(
        loop: SimulationLoop, trace: SimulationTrace, servers: Int, tellsTokens: Bool, timeout: VirtualTime,
        trouble: Scenario.Trouble, random: SeededRandom
    ) {
        self.loop = loop
        self.trace = trace
        self.servers = (0..<servers).map { SimulatedServer(number: $0) }
        self.tellsTokens = tellsTokens
        self.timeout = timeout
        state = Locked(State(random: random, trouble: trouble))
    }

    /// From now on every message is answered, soon.
    func heal() {
        state.withLock { state in
            state.silent = [:]
            state.cut = []
            state.trouble = Scenario.Trouble()
        }
    }

    func silence(_ server: Int, _ silence: Silence?) {
        state.withLock { $0.silent[server] = silence }
    }

    func cut(_ node: String, from server: Int, _ isCut: Bool) {
        state.withLock { state in
            let link = Link(node: node, server: server)
            if isCut { state.cut.insert(link) } else { state.cut.remove(link) }
        }
    }

    func fate(from node: String, to server: Int) -> Fate {
        state.withLock { state in
            let isCut = state.cut.contains(Link(node: node, server: server))
            switch state.silent[server] {
            case .refuses: return .refused
            case .isMute: return state.lost()
            case nil: if isCut { return state.lost() }
            }
            let trouble = state.trouble
            if state.random.chance(trouble.lost) { return .lost }
            if state.random.chance(trouble.unanswered) { return .unanswered(there: state.delay()) }
            if state.random.chance(trouble.late) {
                return .unanswered(there: state.random.pick(.milliseconds(200)...(.seconds(4))))
            }
            if state.random.chance(trouble.refused) { return .refused }
            return .answered(there: state.delay(), back: state.delay())
        }
    }

    /// How long a message takes, or what lies between the reads of two keys of one message.
    func server(ofGroup group: String) -> Int { Int(group.stableHash % UInt64(servers.count)) }

    func delay() -> VirtualTime { state.withLock { $0.delay() } }

    /// Where a message of many keys pauses on its way, and for how long, if it does.
    func pause(within keys: Int) -> (after: Int, length: VirtualTime)? {
        state.withLock { state in
            guard state.random.chance(0.3) else { return nil }
            return (state.random.pick(1...keys - 1), state.delay())
        }
    }

    /// memcached counts whole seconds on a clock that ticks once a second, and the store asks for one more than is wanted.
    func expiry(_ timeToLive: Duration) -> VirtualTime {
        state.withLock { state in
            let seconds = (VirtualTime(timeToLive).nanoseconds + 999_999_999) / 1_000_000_000
            return loop.now + VirtualTime(nanoseconds: seconds * 1_000_000_000)
                + state.random.pick(.zero ... .seconds(1))
        }
    }
}

extension SimulatedNetwork.State {
    /// Mostly below a millisecond; now and then what a busy machine or a lost packet costs.
    fileprivate mutating func delay() -> VirtualTime {
        if random.chance(trouble.slow) { return random.pick(.milliseconds(1)...trouble.longest) }
        return random.pick(.milliseconds(0.05)...(.milliseconds(0.8)))
    }

    /// A message that is on its way while the network is cut is repeated by the system, and may arrive when it is whole again.
    fileprivate mutating func lost() -> SimulatedNetwork.Fate {
        random.chance(0.3) ? .unanswered(there: random.pick(.milliseconds(300)...SimulatedNetwork.longestDelay)) : .lost
    }
}
