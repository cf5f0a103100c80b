import HTTPTypes
import Limpet

/// All nodes, clients and servers of one simulation.
final class SimulatedCluster: Sendable {
    private static let shared = "shared"

    let recorder: Recorder
    private let scenario: Scenario
    private let loop: SimulationLoop
    private let trace: SimulationTrace
    private let network: SimulatedNetwork
    private let nodes: [SimulatedNode]
    private let jars: [CookieJar]
    private let attributes: [String]
    private let configuration: SessionConfiguration
    private let random: Locked<SeededRandom>
    private let clientsLeft: Locked<(count: Int, waiter: (@Sendable () -> Void)?)>

    init(_ scenario: Scenario, loop: SimulationLoop, trace: SimulationTrace) {
        self.scenario = scenario
        self.loop = loop
        self.trace = trace
        var configuration = SessionConfiguration()
        configuration.mode = scenario.mode
        configuration.lock.scope = scenario.kind.isLocked ? .cluster : .node
        configuration.maxInactive = .seconds(scenario.maxInactive)
        configuration.saveInterval = .seconds(scenario.saveInterval)
        configuration.peerPoll = scenario.peerPoll.duration
        configuration.store.kind = .memcached
        configuration.store.whenUnavailable = scenario.whenUnavailable
        self.configuration = configuration
        let recorder = Recorder(loop: loop, trace: trace)
        self.recorder = recorder
        let network = SimulatedNetwork(
            loop: loop, trace: trace, servers: scenario.servers, tellsTokens: scenario.tellsTokens,
            timeout: VirtualTime(configuration.store.timeout), trouble: scenario.trouble,
            random: SeededRandom(seed: scenario.seed, stream: 1))
        self.network = network
        nodes = (0..<scenario.nodes).map { index in
            var configuration = configuration
            configuration.node = ["a", "b", "c"][index]
            return SimulatedNode(
                configuration: configuration, wallOffset: scenario.skews.isEmpty ? 0 : scenario.skews[index],
                broken: scenario.broken, network: network, recorder: recorder)
        }
        jars = scenario.plans.map { _ in CookieJar() }
        attributes = scenario.plans.indices.map { "x\($0)" } + [Self.shared]
        random = Locked(SeededRandom(seed: scenario.seed, stream: 2))
        clientsLeft = Locked((scenario.plans.count, nil))
    }

    /// The whole simulation: the faults on time, the end of all trouble, and what is left then.
    func run() async {
        await withDiscardingTaskGroup { group in
            for node in nodes { start(node, &group) }
            for client in scenario.plans.indices { group.addTask { await self.run(client: client) } }
            for fault in timeline() {
                await sleep(until: fault.time)
                guard fault.restart else {
                    fault.action()
                    continue
                }
                start(nodes[fault.node], &group)
            }
            await waitForClients()
            network.heal()
            for (index, node) in nodes.enumerated() where !isGone(index) {
                node.resume()
                start(node, &group)
            }
            // Whatever was under way is over, and every watch has seen it.
            await sleep(until: loop.now + (scenario.kind == .slow ? .seconds(1) : .seconds(6)) + staleness)
            // A session that is asked for is no orphan.
            let leavesOrphans =
                scenario.kind == .orphans || scenario.kind == .draining && scenario.seed.isMultiple(of: 2)
            if !leavesOrphans { await audit() }
            if scenario.isSeenToTheEnd { await sleep(until: loop.now + longestLife + .seconds(30)) }
            finish()
        }
    }

    /// Starts a node, if it does not run.
    private func start(_ node: SimulatedNode, _ group: inout DiscardingTaskGroup) {
        guard let start = node.start() else { return }
        group.addTask {
            do { try await node.run(start) } catch { fatalError("the scenario's configuration cannot be: \(error)") }
        }
    }

    /// Whether a node dies for good.
    private func isGone(_ node: Int) -> Bool {
        scenario.faults.contains { fault in
            if case .crash(node, .never) = fault.kind { true } else { false }
        }
    }

    /// How long a session and its keys live at most after its last request.
    private var longestLife: VirtualTime {
        let limits = scenario.plans.flatMap(\.steps).map { step in
            if case .limit(let seconds) = step.action { seconds } else { 0 }
        }
        let limit = max(scenario.maxInactive, limits.max() ?? 0)
        return .seconds(Double(limit + scenario.saveInterval + 10))
    }

    private var staleness: VirtualTime {
        // A copy is trusted as long as the last two polls saw nothing, or never.
        scenario.mode == .roaming || scenario.kind.isLocked || scenario.saveInterval == 0
            ? .zero : scenario.peerPoll + scenario.peerPoll
    }

    // MARK: Faults

    private struct Moment {
        let time: VirtualTime
        let node: Int
        var restart = false
        var action: @Sendable () -> Void = {}
    }

    private func timeline() -> [Moment] {
        var moments: [Moment] = []
        for fault in scenario.joinedFaults {
            switch fault.kind {
            case .crash(let node, let length):
                moments.append(Moment(time: fault.time, node: node) { [nodes] in nodes[node].kill() })
                if length != .never { moments.append(Moment(time: fault.time + length, node: node, restart: true)) }
            case .drain(let node, let length):
                moments.append(Moment(time: fault.time, node: node) { [nodes] in nodes[node].drain() })
                moments.append(Moment(time: fault.time + length, node: node, restart: true))
            case .stop(let node, let length):
                moments.append(Moment(time: fault.time, node: node) { [nodes] in nodes[node].stop() })
                moments.append(
                    Moment(time: fault.time + .milliseconds(1000), node: node) { [nodes] in
                        nodes[node].giveUpIfStopped()
                    })
                moments.append(Moment(time: fault.time + length, node: node) { [nodes] in nodes[node].resume() })
            case .stepClock(let node, let milliseconds):
                moments.append(
                    Moment(time: fault.time, node: node) { [nodes] in nodes[node].stepWallClock(by: milliseconds) })
            case .cut(let node, let server, let length):
                moments.append(
                    Moment(time: fault.time, node: node) { [network, nodes] in
                        network.cut(nodes[node].name, from: server, true)
                    })
                moments.append(
                    Moment(time: fault.time + length, node: node) { [network, nodes] in
                        network.cut(nodes[node].name, from: server, false)
                    })
            case .outage(let server, let length, let refuses, let loses):
                moments.append(
                    Moment(time: fault.time, node: 0) { [network] in
                        network.silence(server, refuses ? .refuses : .isMute)
                    })
                moments.append(
                    Moment(time: fault.time + length, node: 0) { [self] in
                        if loses { loseMemory(of: server) }
                        network.silence(server, nil)
                    })
            case .restart(let server):
                moments.append(Moment(time: fault.time, node: 0) { [self] in loseMemory(of: server) })
            case .evict(let key, let number):
                moments.append(Moment(time: fault.time, node: 0) { [self] in evict(key, number) })
            case .evictAll(let prefixes):
                moments.append(Moment(time: fault.time, node: 0) { [self] in evictAll(prefixes) })
            }
        }
        // The order of those at one time is the order in which they were written.
        return moments.enumerated().sorted { ($0.element.time, $0.offset) < ($1.element.time, $1.offset) }
            .map(\.element)
    }

    /// When nodes that go on without the store may do so.
    private var outages: [History.Outage] {
        guard scenario.whenUnavailable == .local, scenario.mode == .sticky else { return [] }
        return scenario.joinedFaults.compactMap { fault in
            switch fault.kind {
            case .outage(let server, let length, _, _):
                History.Outage(server: server, isComplete: true, begin: fault.time, end: fault.time + length)
            case .cut(_, let server, let length):
                History.Outage(server: server, isComplete: false, begin: fault.time, end: fault.time + length)
            default: nil
            }
        }
    }

    private func loseMemory(of server: Int) {
        trace.note(loop.now, UInt64(server), line: "server \(server) loses its memory")
        network.servers[server].restart()
        recorder.withHistory {
            $0.losses.append(
                History.Loss(
                    time: loop.now, since: scenario.beginOfSilence(of: server, before: loop.now), server: server))
        }
    }

    private func evict(_ prefix: String, _ number: Int) {
        let keys = keys(beginningWith: [prefix])
        guard !keys.isEmpty else { return }
        let (server, key) = keys[number % keys.count]
        evict(key, from: server)
    }

    private func evictAll(_ prefixes: [String]) {
        for (server, key) in keys(beginningWith: prefixes) { evict(key, from: server) }
    }

    private func keys(beginningWith prefixes: [String]) -> [(SimulatedServer, StoreKey)] {
        network.servers.flatMap { server in
            server.values(at: loop.now).map { (server, StoreKey($0.name, placement: .server(server.number))) }
        }.filter { _, key in prefixes.contains { key.shortName.hasPrefix($0) } }
    }

    private func evict(_ key: StoreKey, from server: SimulatedServer) {
        trace.note(loop.now, key.name.stableHash, line: "\([key].shortNames) is evicted")
        _ = server.evict(key.name)
        let name = key.shortName
        guard name.hasPrefix("d/") || name.hasPrefix("v/") else { return }
        recorder.withHistory {
            $0.losses.append(
                History.Loss(
                    time: loop.now, server: server.number, id: String(name.dropFirst(2)), isEpoch: name.hasPrefix("v/"))
            )
        }
    }

    private func sleep(until time: VirtualTime) async {
        await withCheckedContinuation { continuation in loop.at(time) { continuation.resume() } }
    }

    // MARK: Clients

    private func waitForClients() async {
        await withCheckedContinuation { continuation in
            let areDone = clientsLeft.withLock { left in
                left.waiter = { continuation.resume() }
                return left.count == 0
            }
            if areDone { continuation.resume() }
        }
    }

    private func run(client: Int) async {
        let plan = scenario.plans[client]
        let jar = jars[plan.jar]
        if client != plan.session, plan.jar == client { await copyCookie(to: jar, from: jars[plan.session]) }
        for step in plan.steps {
            await sleep(until: loop.now + step.pause)
            await perform(step, client: client, jar: plan.jar)
        }
        let waiter = clientsLeft.withLock { left in
            left.count -= 1
            return left.count == 0 ? left.waiter : nil
        }
        waiter?()
    }

    /// Waits a while for the session's first client to have it.
    private func copyCookie(to jar: CookieJar, from origin: CookieJar) async {
        for _ in 0..<100 where jar.value == nil {
            await sleep(until: loop.now + .milliseconds(20))
            jar.value = origin.value
        }
    }

    /// Where the balancer sends a request; `nil` if no node is up.
    private func route(_ cookie: CookieJar, _ choice: Int?) -> SimulatedNode? {
        if let choice, nodes[choice].isUp { return nodes[choice] }
        if let route = cookie.route, let home = nodes.first(where: { $0.name == route }), home.isUp { return home }
        let up = nodes.filter(\.isUp)
        return up.isEmpty ? nil : random.withLock { $0.pick(up) }
    }

    private func perform(_ step: Scenario.Step, client: Int, jar number: Int) async {
        let jar = jars[number]
        guard let node = route(jar, step.node) else { return }
        var operation = History.Operation()
        operation.client = client
        operation.jar = number
        operation.jarIsSequential = scenario.plans.count { $0.jar == number } <= 1
        if step.action == .clear { return await clear(node) }
        describe(step.action, client: client, in: &operation)
        await ask(node, operation, jar: jar, step: step)
    }

    private func clear(_ node: SimulatedNode) async {
        let begin = loop.now
        let isDone = await node.clear()
        let end = loop.now
        trace.note(end, node.name.stableHash, line: "\(node.name) cleared since \(begin): \(isDone)")
        recorder.withHistory {
            $0.clears.append(History.Clear(invoked: begin, answered: isDone ? end : .never))
        }
    }

    private func describe(_ action: Scenario.Action, client: Int, in operation: inout History.Operation) {
        let own = "x\(client)"
        switch action {
        case .read, .clear: break
        case .write, .writeAndFail, .writeAndRotate:
            operation.writes = [History.Write(own, recorder.nextValue())]
        case .writeShared: operation.writes = [History.Write(Self.shared, recorder.nextValue())]
        case .writeBoth:
            operation.writes = [
                History.Write(own, recorder.nextValue()), History.Write(Self.shared, recorder.nextValue()),
            ]
        case .remove: operation.writes = [History.Write(own, nil)]
        case .invalidate: operation.invalidates = true
        case .rotate: break
        case .limit(let seconds): operation.limit = seconds
        }
        operation.rotates = action == .rotate || action == .writeAndRotate
    }

    private func ask(
        _ node: SimulatedNode, _ operation: History.Operation, jar: CookieJar, step: Scenario.Step
    ) async {
        var operation = operation
        operation.node = node.name
        operation.invoked = loop.now
        operation.presented = jar.id
        var fields: HTTPFields = [:]
        if let cookie = jar.value { fields[.cookie] = "session=\(cookie)" }
        let number = recorder.begin(operation)
        trace.note(
            loop.now, UInt64(number), (jar.value ?? "").stableHash,
            line: "#\(number) client \(operation.client) → \(node.name): \(step.action) \(operation.writes.described) "
                + "[\((jar.id ?? "").prefix(4)).\(jar.route ?? "")]")
        let reply = await node.request(
            SimulatedNode.Request(
                number: number, fields: fields, client: operation.client, step: step, attributes: attributes))
        let now = loop.now
        recorder.change(number) { operation in
            operation.answered = now
            switch reply {
            case .nothing: operation.outcome = .unknown
            case .failure(let outcome, let error):
                operation.outcome = outcome
                operation.error = error
            case .answer(let fields):
                operation.outcome = .answered
                let (cookie, isExpired) = CookieJar.read(fields)
                operation.given = cookie?.split(separator: ".").first.map(String.init)
                operation.expiredCookie = isExpired
                // The removal of what is not there changes nothing.
                operation.writes.removeAll { $0.value == nil && operation.read[$0.attribute] == nil }
                if isExpired { jar.value = nil } else if let cookie { jar.value = cookie }
            }
        }
        let told = recorder.history.operations[number]
        trace.note(
            now, UInt64(number), told.read.values.reduce(UInt64(told.read.count)) { $0 &+ UInt64($1) &* 0x9E37 },
            line: "#\(number) \(told.outcome) \(told.found ? "found \(told.read.sorted { $0.key < $1.key })" : "none") "
                + "\(told.given.map { "→ \($0.prefix(4)).\(jar.route ?? "")" } ?? "") \(told.error ?? "")")
    }

    // MARK: The end

    /// Every session that a client has is read on every node, as a client would that the balancer sends there.
    private func audit() async {
        for (index, jar) in jars.enumerated() where jar.value != nil {
            let copy = CookieJar()
            copy.value = jar.value
            for node in nodes where node.isUp {
                var operation = History.Operation()
                operation.client = 100 + index
                operation.jar = 100 + index
                await ask(
                    node, operation, jar: copy,
                    step: Scenario.Step(pause: .zero, action: .read, handling: .zero, node: nil))
            }
        }
    }

    private func finish() {
        let now = loop.now
        recorder.withHistory { history in
            history.end = now
            history.bounds.isLinearizable = scenario.mode == .roaming || scenario.kind.isLocked
            history.bounds.isAtomic = scenario.kind.isLocked
            history.bounds.staleness = staleness
            history.bounds.maxInactive = .seconds(Double(scenario.maxInactive))
            history.bounds.saveInterval = .seconds(Double(scenario.saveInterval))
            history.bounds.lateness = SimulatedNetwork.longestDelay
            history.bounds.isSeenToTheEnd = scenario.isSeenToTheEnd
            history.bounds.clockSteps = scenario.faults.reduce(.zero) { sum, fault in
                guard case .stepClock(_, let milliseconds) = fault.kind else { return sum }
                return sum + .milliseconds(Double(abs(milliseconds)))
            }
            // What nodes tell, and the keys, name sessions by their fingerprints; clients know them by their ids.
            let ids = ids(history)
            for index in history.events.indices {
                if let id = ids[history.events[index].id] { history.events[index].id = id }
            }
            for index in history.losses.indices {
                if let id = history.losses[index].id { history.losses[index].id = ids[id] ?? id }
            }
            history.outages = outages
            for (fingerprint, id) in ids { history.servers[id] = network.server(ofGroup: fingerprint) }
            history.keys = keysLeft(ids)
        }
        for node in nodes { node.kill() }
    }

    /// The ids that clients had, by their fingerprints.
    private func ids(_ history: History) -> [String: String] {
        var ids: [String: String] = [:]
        for operation in history.operations {
            for text in [operation.presented, operation.given].compactMap(\.self) {
                if let id = SessionID(text.utf8) { ids[SessionFingerprint(id).description] = text }
            }
        }
        return ids
    }

    /// The sessions' keys that the servers still hold.
    private func keysLeft(_ ids: [String: String]) -> [History.Key] {
        network.servers.flatMap { server in
            server.values(at: loop.now).compactMap { name, value in
                let short = StoreKey(name, placement: .server(0)).shortName.split(separator: "/", maxSplits: 1)
                guard let kind = short.first, ["d", "v", "a"].contains(kind), let hash = short.last else { return nil }
                if kind == "d", StoredValue(bytes: value.bytes) != .record { return nil }
                return History.Key(name: String(kind), id: ids[String(hash)], expires: value.expires)
            }
        }
    }
}

extension [History.Write] {
    var described: String {
        map { "\($0.attribute)=\($0.value.map(String.init) ?? "nil")" }.joined(separator: " ")
    }
}
