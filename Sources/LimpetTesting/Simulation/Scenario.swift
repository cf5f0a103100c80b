package import Limpet

/// What happens in a simulation, apart from how long each message takes: the cluster, what clients do, and what goes wrong.
package struct Scenario: Sendable {
    /// What a family of scenarios is about.
    package enum Kind: String, CaseIterable, Sendable {
        /// Clients stay with their node; nothing goes wrong.
        case sticky
        /// The balancer sends some requests to other nodes.
        case straying
        /// The same with one session, while some of the store's answers take longer than several polls.
        case slow
        /// Messages to the store and its answers are lost or late.
        case timeouts
        /// Nodes die, and come back under their name.
        case crashes
        /// Nodes are stopped for a while, and go on as if nothing had been.
        case pauses
        /// Sessions end because nobody asks for them.
        case idle
        /// Ids change.
        case rotation
        /// A server of the store is restarted, and has lost what it had.
        case memoryLost
        /// The store forgets single keys.
        case evictions
        /// The store forgets many keys at once, as it does when it has no room.
        case floods
        /// A server of the store does not answer for a while, and comes back with its memory or without; or a node does not
        /// reach it.
        case outages
        /// Nodes stop in good order, and come back, while sessions end because nobody asks for them.
        case draining
        /// A node dies for good, and leaves sessions that nobody asks for.
        case orphans
        /// Somebody ends all sessions at once.
        case clearing
        /// The balancer sends each request anywhere.
        case roaming
        /// The same, while messages to the store are lost or late.
        case roamingTimeouts
        /// The same, while nodes die or are stopped.
        case roamingCrashes
        /// The same, while servers of the store lose what they have.
        case roamingMemoryLost
        /// Sessions are locked on all nodes, and the balancer sends some requests to other nodes.
        case locked
        /// The same, while nodes die or are stopped.
        case lockedCrashes
        /// The same, while messages to the store are lost or late.
        case lockedTimeouts
        /// The same, while servers of the store lose what they have, or single keys.
        case lockedMemoryLost
    }

    /// How likely it is that a message to the store or its answer is lost, late, or refused.
    package struct Trouble: Sendable, Hashable {
        package var lost = 0.0
        package var unanswered = 0.0
        package var late = 0.0
        package var refused = 0.0
        package var slow = 0.1
        /// How long a slow message takes at most.
        package var longest = VirtualTime.milliseconds(60)
    }

    /// What one client does, one after the other.
    package struct Plan: Sendable {
        /// Clients with one number share their cookies: tabs of a browser.
        package var jar: Int
        /// Which session this client is in: the one that the first client with this number makes.
        package var session: Int
        package var steps: [Step]
    }

    package struct Step: Sendable {
        /// How long the client waits before it asks.
        package var pause: VirtualTime
        package var action: Action
        /// How long the handler takes.
        package var handling: VirtualTime
        /// A node that the balancer sends the request to whatever its cookie says.
        package var node: Int?
    }

    package enum Action: Sendable, Hashable {
        case read
        /// Sets the client's own attribute to a value that nothing else was ever set to.
        case write
        /// The same with an attribute that all clients write.
        case writeShared
        case writeBoth
        case remove
        case invalidate
        case rotate
        case writeAndRotate
        /// Changes how long the session lives without a request, in seconds.
        case limit(Int)
        /// The handler writes, and fails.
        case writeAndFail
        /// Ends all sessions of the cluster.
        case clear
    }

    package struct Fault: Sendable {
        package var time: VirtualTime
        package var kind: Kind

        package enum Kind: Sendable {
            /// Never to come back, if it never ends.
            case crash(node: Int, for: VirtualTime)
            /// The node stops in good order.
            case drain(node: Int, for: VirtualTime)
            case stop(node: Int, for: VirtualTime)
            /// Milliseconds.
            case stepClock(node: Int, by: Int64)
            case cut(node: Int, server: Int, for: VirtualTime)
            /// The server does not answer, or refuses connections, and has its memory or not when it is back.
            case outage(server: Int, for: VirtualTime, refuses: Bool, loses: Bool)
            /// The server is restarted at once.
            case restart(server: Int)
            /// The n-th of the keys that begin so is lost.
            case evict(key: String, number: Int)
            /// All keys that begin with one of these are lost.
            case evictAll(keys: [String])
        }
    }

    package var kind: Kind
    package var seed: UInt64
    package var mode: SessionConfiguration.Mode { kind.isRoaming ? .roaming : .sticky }
    package var nodes = 2
    package var servers = 1
    package var tellsTokens = false
    /// Seconds.
    package var saveInterval = 60
    package var peerPoll = VirtualTime.milliseconds(250)
    /// Seconds.
    package var maxInactive = 1800
    package var whenUnavailable = SessionConfiguration.Store.WhenUnavailable.local
    /// Milliseconds for each node.
    package var skews: [Int64] = []
    package var trouble = Trouble()
    package var plans: [Plan] = []
    package var faults: [Fault] = []
    /// The simulation goes on until all sessions have expired.
    package var isSeenToTheEnd = false
    /// A rule that some nodes do not keep; all of them, if there are no numbers.
    package var broken: Rule?
}

extension Scenario.Kind {
    var isRoaming: Bool {
        switch self {
        case .roaming, .roamingTimeouts, .roamingCrashes, .roamingMemoryLost: true
        default: false
        }
    }

    /// A session is locked on all nodes.
    var isLocked: Bool {
        switch self {
        case .locked, .lockedCrashes, .lockedTimeouts, .lockedMemoryLost: true
        default: false
        }
    }

    /// Sessions end because nobody asks for them, and everything is seen to its end.
    var isShort: Bool { self == .idle || self == .draining || self == .orphans }

    /// Those whose part of the protocol is there.
    package static let enabled: [Self] = allCases
}

extension Scenario {
    /// The scenario of a seed, of all kinds in turn.
    package init(seed: UInt64, of kinds: [Kind] = Kind.enabled) {
        self.init(kinds[Int(seed % UInt64(kinds.count))], seed: seed)
    }

    /// The scenario of a seed.
    package init(_ kind: Kind, seed: UInt64) {
        var random = SeededRandom(seed: seed, stream: kind.rawValue.stableHash)
        self.kind = kind
        self.seed = seed
        nodes = kind == .sticky ? random.pick(1...2) : random.pick([2, 2, 2, 3])
        servers = random.pick([1, 1, 2])
        tellsTokens = random.chance(0.3)
        saveInterval = random.pick([0, 1, 60, 60])
        // Without the store nodes promise less.
        whenUnavailable = kind == .outages ? random.pick([.local, .reject]) : .reject
        if kind == .slow {
            peerPoll = .milliseconds(20)
            saveInterval = 60
        }
        if kind.isShort {
            // What a dead node leaves has to live until the others notice.
            maxInactive = kind == .idle ? random.pick(2...6) : random.pick(15...25)
            saveInterval = random.pick([0, 1, 3])
            isSeenToTheEnd = true
        }
        skews = (0..<nodes).map { _ in random.chance(0.5) ? Int64(random.pick(-5000...5000)) : 0 }
        addPlans(&random)
        addFaults(&random)
    }

    private mutating func addPlans(_ random: inout SeededRandom) {
        let sessions = kind == .slow ? 1 : random.pick([1, 1, 2])
        let clients = sessions + random.pick(kind == .slow ? 1...2 : 0...2)
        let length = 30 / clients + 1
        for client in 0..<clients {
            let session = client % sessions
            // A second client of a session is another tab, or another device.
            let isTab = client >= sessions && random.chance(0.4)
            let jar = isTab ? session : client
            plans.append(
                Plan(
                    jar: jar, session: session,
                    steps: (0..<random.pick((length / 2)...length)).map { index in
                        step(client, index: index, clients: clients, &random)
                    }))
        }
    }

    private func step(_ client: Int, index: Int, clients: Int, _ random: inout SeededRandom) -> Step {
        let action = index == 0 && client < clients ? .write : self.action(&random)
        var pause = random.pick(.milliseconds(1)...(.milliseconds(120)))
        if random.chance(0.15) { pause = random.pick(.milliseconds(200)...(.seconds(1.5))) }
        if kind.isShort, random.chance(0.15) {
            pause = random.pick(.seconds(1)...(.seconds(Double(maxInactive) * 1.5)))
            if random.chance(0.3) { pause = pause + .seconds(Double(saveInterval) + 12) }
        }
        let strays: Double =
            switch kind {
            case .sticky: 0
            case .straying, .slow, .timeouts, .rotation: 0.3
            case .locked, .lockedCrashes, .lockedTimeouts, .lockedMemoryLost: 0.25
            case .crashes, .pauses, .idle, .draining, .orphans, .memoryLost, .evictions, .floods, .outages,
                .clearing:
                0.15
            case .roaming, .roamingTimeouts, .roamingCrashes, .roamingMemoryLost: 1
            }
        return Step(
            pause: pause, action: action,
            handling: random.chance(0.2) ? random.pick(.milliseconds(1)...(.milliseconds(80))) : .zero,
            node: random.chance(strays) ? random.pick(0...nodes - 1) : nil)
    }

    private func action(_ random: inout SeededRandom) -> Action {
        if kind == .clearing, random.chance(0.06) { return .clear }
        let ending = kind == .rotation ? 0.03 : 0.05
        let rotating = kind == .rotation ? 0.2 : 0.02
        let limiting = kind.isShort ? 0.08 : 0.01
        let number = Double(random.pick(0...999)) / 1000
        switch number {
        case ..<ending: return .invalidate
        case ..<(ending + rotating): return random.chance(0.5) ? .rotate : .writeAndRotate
        case ..<(ending + rotating + limiting): return .limit(kind.isShort ? maxInactive + random.pick(-1...3) : 1000)
        case ..<0.45: return .read
        case ..<0.75: return .write
        case ..<0.85: return .writeShared
        case ..<0.92: return .writeBoth
        case ..<0.96: return .remove
        default: return .writeAndFail
        }
    }

    private func fault(of kind: Kind, _ random: inout SeededRandom) -> Fault.Kind {
        let server = random.pick(0...servers - 1)
        switch kind {
        case .lockedMemoryLost where random.chance(0.7):
            return .evict(key: random.pick(["l/", "l/", "w/", "n/", "c/", "v/"]), number: random.pick(0...1000))
        case .evictions:
            return .evict(
                key: random.pick(["d/", "d/", "v/", "a/", "c/", "b", "g", "m"]), number: random.pick(0...1000))
        case .floods:
            return .evictAll(
                keys: ["d/", "v/", "a/", "c/", "b", "g", "m", "n/", "r/", "o/"].filter { _ in random.chance(0.7) })
        case .outages:
            let length = random.pick(.milliseconds(100)...(.seconds(4)))
            if random.chance(0.3) { return .cut(node: random.pick(0...nodes - 1), server: server, for: length) }
            return .outage(server: server, for: length, refuses: random.chance(0.5), loses: random.chance(0.4))
        default:
            return .restart(server: server)
        }
    }

    private mutating func addFaults(_ random: inout SeededRandom) {
        switch kind {
        case .sticky, .straying, .idle, .rotation, .roaming, .clearing, .locked, .lockedMemoryLost: break
        case .slow: trouble = Trouble(slow: 0.12, longest: .milliseconds(110))
        case .memoryLost, .evictions, .floods, .outages, .roamingMemoryLost: break
        case .orphans:
            faults.append(
                Fault(
                    time: random.pick(.milliseconds(500)...(.seconds(6))),
                    kind: .crash(node: random.pick(0...nodes - 1), for: .never)))
        case .draining:
            for _ in 0..<random.pick(1...2) {
                faults.append(
                    Fault(
                        time: random.pick(.milliseconds(500)...(.seconds(6))),
                        kind: .drain(
                            node: random.pick(0...nodes - 1), for: random.pick(.milliseconds(500)...(.seconds(6))))))
            }
        case .timeouts, .roamingTimeouts, .lockedTimeouts:
            trouble = Trouble(
                lost: random.pick([0, 0.02, 0.05]), unanswered: random.pick([0, 0.03, 0.08]),
                late: random.pick([0, 0.03, 0.08]), refused: random.pick([0, 0, 0.02]), slow: 0.15)
        case .crashes, .pauses, .roamingCrashes, .lockedCrashes:
            for _ in 0..<random.pick(1...3) {
                let node = random.pick(0...nodes - 1)
                let length =
                    random.chance(0.3)
                    ? random.pick(.milliseconds(5)...(.milliseconds(300)))
                    // Longer than the lease of the locks.
                    : random.pick(.milliseconds(300)...(.seconds(kind == .lockedCrashes ? 9 : 4)))
                let stops =
                    kind == .pauses || ((kind == .roamingCrashes || kind == .lockedCrashes) && random.chance(0.5))
                faults.append(
                    Fault(
                        time: random.pick(.milliseconds(20)...(.seconds(3))),
                        kind: stops ? .stop(node: node, for: length) : .crash(node: node, for: length)))
            }
        }
        switch kind {
        case .clearing where random.chance(0.5):
            let time = random.pick(.seconds(1)...(.seconds(4)))
            faults.append(
                Fault(
                    time: time, kind: random.chance(0.7) ? .evict(key: "g", number: 0) : .restart(server: 0)))
        case .memoryLost, .evictions, .floods, .outages, .roamingMemoryLost, .lockedMemoryLost:
            for _ in 0..<random.pick(kind == .evictions || kind == .lockedMemoryLost ? 2...6 : 1...2) {
                faults.append(
                    Fault(time: random.pick(.milliseconds(300)...(.seconds(3))), kind: self.fault(of: kind, &random)))
            }
        default: break
        }
        if kind != .sticky, random.chance(0.1) {
            faults.append(
                Fault(
                    time: random.pick(.milliseconds(20)...(.seconds(3))),
                    kind: .stepClock(node: random.pick(0...nodes - 1), by: Int64(random.pick(-3000...3000)))))
        }
        faults.sort { $0.time < $1.time }
    }
}
