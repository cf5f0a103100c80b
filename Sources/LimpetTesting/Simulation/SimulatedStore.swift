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

    package func server(ofGroup group: String) -> Int { network.server(ofGroup: group) }

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
                let (server, indices) = leg
                let message = message("get", indices.map { keys[$0] }, to: server) { key, now, connection in
                    .success(
                        server.get(key.name, at: now).map { value in
                            StoreEntry(
                                bytes: value.bytes, token: StoreToken(value: value.token, generation: connection))
                        })
                }
                send(message) { (outcome: Result<[Result<StoreEntry?, StoreError>], StoreError>) in
                    gathered.add(indices, outcome)
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
        return try await call("put", key, to: server) { key, now, connection in
            let token = server.put(bytes, key.name, until: network.expiry(timeToLive), if: expected, at: now)
            guard let token else { return .success(.conflict) }
            return .success(.stored(tellsTokens ? StoreToken(value: token, generation: connection) : nil))
        }
    }

    package func increment(_ keys: [StoreKey], by amount: UInt64) async throws(StoreError) -> [UInt64?] {
        guard let first = keys.first else { return [] }
        let server = server(of: first)
        let message = message("increment", keys, to: server) { key, now, _ in
            server.increment(key.name, by: amount, at: now)
        }
        let results: Result<[Result<UInt64?, StoreError>], StoreError>? = await process.wait { answer in
            send(message, answer)
        }
        guard let results else { throw Self.dead }
        var numbers: [UInt64?] = []
        for result in try results.get() { numbers.append(try result.get()) }
        return numbers
    }

    package func touch(_ key: StoreKey, timeToLive: Duration) async throws(StoreError) -> Bool {
        let (network, server) = (network, server(of: key))
        return try await call("touch", key, to: server) { key, now, _ in
            .success(server.touch(key.name, until: network.expiry(timeToLive), at: now))
        }
    }

    package func delete(_ key: StoreKey, ifUnchangedSince token: StoreToken?) async throws(StoreError) -> StoreDelete {
        let server = server(of: key)
        if let token, token.generation != process.connection(to: server) { return .conflict }
        return try await call("delete", key, to: server) { key, now, _ in
            .success(server.delete(key.name, token: token?.value, at: now))
        }
    }

    private func call<Answer: Sendable>(
        _ kind: String, _ key: StoreKey, to server: SimulatedServer, _ effect: @escaping Message<Answer>.Effect
    ) async throws(StoreError) -> Answer {
        let message = message(kind, [key], to: server, effect)
        let outcome: Result<[Result<Answer, StoreError>], StoreError>? = await process.wait { answer in
            send(message, answer)
        }
        guard let outcome else { throw Self.dead }
        return try outcome.get()[0].get()
    }

    // MARK: Messages

    private func message<Answer: Sendable>(
        _ kind: String, _ keys: [StoreKey], to server: SimulatedServer, _ effect: @escaping Message<Answer>.Effect
    ) -> Message<Answer> {
        Message(
            label: "\(process.name).\(process.start) \(kind)", isRead: kind == "get", keys: keys, server: server,
            serverStarts: server.starts, connection: process.connection(to: server), network: network, effect: effect)
    }

    private func send<Answer: Sendable>(
        _ message: Message<Answer>, _ answer: @escaping @Sendable (Message<Answer>.Outcome) -> Void
    ) {
        let (network, process, loop, server) = (network, process, network.loop, message.server)
        let there: VirtualTime?
        let back: VirtualTime?
        switch network.fate(from: process.name, to: server.number) {
        case .refused:
            message.note("refused")
            process.loseConnection(to: server)
            loop.after(network.delay()) {
                answer(.failure(StoreError(.unavailable, "the server is not there", mayHaveTakenEffect: false)))
            }
            return
        case .lost: (there, back) = (nil, nil)
        case .unanswered(let time): (there, back) = (time, nil)
        case .answered(let first, let second): (there, back) = (first, second)
        }
        // Whatever comes first: the answer or the end of the patience.
        let timer = loop.after(network.timeout) {
            message.note("timed out")
            process.loseConnection(to: server)
            answer(.failure(StoreError(.timeout, "no answer in time", mayHaveTakenEffect: !message.isRead)))
        }
        guard let there else { return }
        message.arrive(at: loop.now + there) { outcome in
            guard let back else { return }
            loop.after(back) {
                loop.cancel(timer)
                if case .failure = outcome { process.loseConnection(to: server) }
                answer(outcome)
            }
        }
    }
}

/// A message on its way: it takes effect key by key, in order, at one moment or at several.
private struct Message<Answer: Sendable>: Sendable {
    typealias Effect = @Sendable (StoreKey, VirtualTime, _ connection: UInt64) -> Result<Answer, StoreError>
    typealias Outcome = Result<[Result<Answer, StoreError>], StoreError>

    let label: String
    let isRead: Bool
    let keys: [StoreKey]
    let server: SimulatedServer
    /// A server that was started anew gets nothing that was sent to the old one.
    let serverStarts: Int
    let connection: UInt64
    let network: SimulatedNetwork
    let effect: Effect

    func note(_ what: String) {
        network.trace.note(network.loop.now, label.stableHash, line: "\(label) \(keys.prefix(4).shortNames): \(what)")
    }

    func arrive(
        at time: VirtualTime, done: [Result<Answer, StoreError>] = [], _ finish: @escaping @Sendable (Outcome) -> Void
    ) {
        // Others' messages may come between two keys: now and then somewhere, and not at every key of hundreds.
        let pause = keys.count > done.count + 1 ? network.pause(within: keys.count - done.count) : nil
        network.loop.at(time) {
            guard server.starts == serverStarts else {
                let error = StoreError(.connectionLost, "the server was restarted", mayHaveTakenEffect: !isRead)
                return finish(.failure(error))
            }
            var done = done
            let end = pause.map { done.count + $0.after } ?? keys.count
            while done.count < end { done.append(takeEffect(keys[done.count], at: time)) }
            if let pause { arrive(at: time + pause.length, done: done, finish) } else { finish(.success(done)) }
        }
    }

    private func takeEffect(_ key: StoreKey, at time: VirtualTime) -> Result<Answer, StoreError> {
        let result = effect(key, time, connection)
        network.trace.note(
            time, label.stableHash, key.name.stableHash, line: "\(label) \([key].shortNames): \(describe(result))")
        return result
    }

    private func describe(_ result: Result<Answer, StoreError>) -> String {
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

extension Collection<StoreKey> {
    /// The names behind their last colon, without most of the hash.
    var shortNames: String {
        map { key in String(key.shortName.prefix(8)) }.joined(separator: " ")
    }
}
