package import Limpet

/// The simulated servers as one process reaches them: over a network that takes its time, loses messages and answers, and
/// delivers some long after their sender gave them up.
package final class SimulatedStore: SharedStore {
    private let network: SimulatedNetwork
    private let process: SimulatedProcess

    init(_ network: SimulatedNetwork, process: SimulatedProcess) {
        self.network = network
        self.process = process
    }

    package var serverCount: Int { network.servers.count }

    package func server(ofGroup group: String) -> Int { Int(group.stableHash % UInt64(network.servers.count)) }

    private func server(of key: StoreKey) -> SimulatedServer {
        switch key.placement {
        case .group(let group): network.servers[server(ofGroup: group)]
        case .server(let number): network.servers[number]
        }
    }

    /// What a process that has ended sees, until it notices.
    private static let dead = StoreError(.closed, "the process has ended", mayHaveTakenEffect: false)

    package func get(_ keys: [StoreKey]) async -> [Result<StoreEntry?, StoreError>] {
        guard !keys.isEmpty else { return [] }
        var legs: [(server: SimulatedServer, indices: [Int])] = []
        for (index, key) in keys.enumerated() {
            let server = server(of: key)
            if let leg = legs.firstIndex(where: { $0.server === server }) {
                legs[leg].indices.append(index)
            } else {
                legs.append((server, [index]))
            }
        }
        let gathered = Gathered(count: keys.count, legs: legs.count)
        let results: [Result<StoreEntry?, StoreError>]? = await process.wait { answer in
            for leg in legs {
                let read: [@Sendable (VirtualTime, UInt64) -> Result<StoreEntry?, StoreError>] = leg.indices.map {
                    index in
                    let name = keys[index].name
                    return { [server = leg.server] now, connection in
                        .success(
                            server.get(name, at: now).map { value in
                                StoreEntry(
                                    bytes: value.bytes, token: StoreToken(value: value.token, generation: connection))
                            })
                    }
                }
                send("get", leg.indices.map { keys[$0] }, to: leg.server, read) { outcome in
                    gathered.add(leg.indices, outcome)
                    if let results = gathered.complete { answer(results) }
                }
            }
        }
        return results ?? keys.map { _ in .failure(Self.dead) }
    }

    package func put(
        _ bytes: [UInt8], for key: StoreKey, timeToLive: Duration, if condition: StoreCondition
    ) async throws(StoreError) -> StorePut {
        let server = server(of: key)
        let expected: SimulatedServer.Condition
        switch condition {
        case .absent: expected = .absent
        case .always: expected = .always
        case .unchanged(let token):
            // A token of another connection is not sent.
            guard token.generation == process.connection(to: server) else { return .conflict }
            expected = .token(token.value)
        }
        let (network, tellsTokens) = (network, network.tellsTokens)
        return try await call("put", key, to: server) { now, connection in
            let token = server.put(bytes, key.name, until: network.expiry(timeToLive), if: expected, at: now)
            guard let token else { return .success(.conflict) }
            return .success(.stored(tellsTokens ? StoreToken(value: token, generation: connection) : nil))
        }
    }

    package func increment(_ keys: [StoreKey], by amount: UInt64) async throws(StoreError) -> [UInt64?] {
        guard let first = keys.first else { return [] }
        let server = server(of: first)
        let steps: [@Sendable (VirtualTime, UInt64) -> Result<UInt64?, StoreError>] = keys.map { key in
            { now, _ in server.increment(key.name, by: amount, at: now) }
        }
        let results: Result<[Result<UInt64?, StoreError>], StoreError>? = await process.wait { answer in
            send("increment", keys, to: server, steps, answer)
        }
        guard let results else { throw Self.dead }
        var numbers: [UInt64?] = []
        for result in try results.get() { numbers.append(try result.get()) }
        return numbers
    }

    package func touch(_ key: StoreKey, timeToLive: Duration) async throws(StoreError) -> Bool {
        let (network, server) = (network, server(of: key))
        return try await call("touch", key, to: server) { now, _ in
            .success(server.touch(key.name, until: network.expiry(timeToLive), at: now))
        }
    }

    package func delete(_ key: StoreKey, ifUnchangedSince token: StoreToken?) async throws(StoreError) -> StoreDelete {
        let server = server(of: key)
        if let token, token.generation != process.connection(to: server) { return .conflict }
        return try await call("delete", key, to: server) { now, _ in
            .success(server.delete(key.name, token: token?.value, at: now))
        }
    }

    private func call<Answer: Sendable>(
        _ kind: String, _ key: StoreKey, to server: SimulatedServer,
        _ effect: @escaping @Sendable (VirtualTime, UInt64) -> Result<Answer, StoreError>
    ) async throws(StoreError) -> Answer {
        let outcome: Result<[Result<Answer, StoreError>], StoreError>? = await process.wait { answer in
            send(kind, [key], to: server, [effect], answer)
        }
        guard let outcome else { throw Self.dead }
        return try outcome.get()[0].get()
    }

    // MARK: Messages

    /// Sends one message, whose steps take effect one after the other, each at a moment of its own.
    private func send<Step: Sendable>(
        _ kind: String, _ keys: [StoreKey], to server: SimulatedServer,
        _ steps: [@Sendable (VirtualTime, UInt64) -> Result<Step, StoreError>],
        _ answer: @escaping @Sendable (Result<[Result<Step, StoreError>], StoreError>) -> Void
    ) {
        let (network, process, loop) = (network, process, network.loop)
        let isRead = kind == "get"
        let connection = process.connection(to: server)
        let label = "\(process.name).\(process.start) \(kind)"
        let fail: @Sendable (StoreError.Code, String, Bool) -> Void = { code, message, isAmbiguous in
            answer(.failure(StoreError(code, message, mayHaveTakenEffect: isAmbiguous && !isRead)))
        }
        let there: VirtualTime?
        let back: VirtualTime?
        switch network.fate(from: process.name, to: server.number) {
        case .refused:
            network.trace.note(loop.now, label.stableHash, 1, line: "\(label) \(keys.shortNames): refused")
            process.loseConnection(to: server)
            loop.after(network.delay()) { fail(.unavailable, "the server refuses connections", false) }
            return
        case .lost: (there, back) = (nil, nil)
        case .unanswered(let time): (there, back) = (time, nil)
        case .answered(let first, let second): (there, back) = (first, second)
        }
        // Whatever comes first: the answer or the end of the patience.
        let timer = loop.after(network.timeout) {
            network.trace.note(loop.now, label.stableHash, 2, line: "\(label) \(keys.shortNames): timed out")
            process.loseConnection(to: server)
            fail(.timeout, "no answer in time", true)
        }
        guard let there else { return }
        let message = Message(steps: steps, keys: keys, connection: connection, starts: server.starts)
        message.run(on: server, network: network, label: label, at: loop.now + there) { outcome in
            guard let back else { return }
            loop.after(back) {
                loop.cancel(timer)
                if case .failure = outcome { process.loseConnection(to: server) }
                answer(outcome.mapError { StoreError($0.code, $0.message, mayHaveTakenEffect: !isRead) })
            }
        }
    }
}

/// A message on its way through its steps.
private struct Message<Step: Sendable>: Sendable {
    let steps: [@Sendable (VirtualTime, UInt64) -> Result<Step, StoreError>]
    let keys: [StoreKey]
    let connection: UInt64
    /// A server that was started anew gets nothing that was sent to the old one.
    let starts: Int

    func run(
        on server: SimulatedServer, network: SimulatedNetwork, label: String, at time: VirtualTime, index: Int = 0,
        done: [Result<Step, StoreError>] = [],
        _ finish: @escaping @Sendable (Result<[Result<Step, StoreError>], StoreError>) -> Void
    ) {
        network.loop.at(time) {
            guard server.starts == starts else {
                finish(.failure(StoreError(.connectionLost, "the server was restarted", mayHaveTakenEffect: true)))
                return
            }
            var done = done
            var index = index
            repeat {
                let now = network.loop.now
                let result = steps[index](now, connection)
                network.trace.note(
                    now, label.stableHash, keys[index].name.stableHash,
                    line: "\(label) \([keys[index]].shortNames): \(describe(result))")
                done.append(result)
                index += 1
                guard index < steps.count else { return finish(.success(done)) }
                let gap = network.gap()
                if gap > .zero {
                    run(
                        on: server, network: network, label: label, at: now + gap, index: index, done: done, finish)
                    return
                }
            } while true
        }
    }

    private func describe(_ result: Result<Step, StoreError>) -> String {
        switch result {
        case .failure(let error): "\(error)"
        case .success(let value as StoreEntry?): value.map { "token \($0.token.value)" } ?? "absent"
        case .success(let value): "\(value)"
        }
    }
}

/// The results of a read of several servers, as they come in.
private final class Gathered: Sendable {
    private struct State {
        var results: [Result<StoreEntry?, StoreError>?]
        var missingLegs: Int
    }

    private let state: Locked<State>

    init(count: Int, legs: Int) {
        state = Locked(State(results: Array(repeating: nil, count: count), missingLegs: legs))
    }

    func add(_ indices: [Int], _ outcome: Result<[Result<StoreEntry?, StoreError>], StoreError>) {
        state.withLock { state in
            guard state.results[indices[0]] == nil else { return }
            state.missingLegs -= 1
            for (position, index) in indices.enumerated() {
                switch outcome {
                case .success(let results): state.results[index] = results[position]
                case .failure(let error): state.results[index] = .failure(error)
                }
            }
        }
    }

    /// All results, once they are there.
    var complete: [Result<StoreEntry?, StoreError>]? {
        state.withLock { state in state.missingLegs == 0 ? state.results.compactMap(\.self) : nil }
    }
}

extension [StoreKey] {
    /// The names behind their last colon, without most of the hash.
    var shortNames: String {
        map { key in String(key.shortName.prefix(8)) }.joined(separator: " ")
    }
}
