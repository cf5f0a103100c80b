import Limpet

/// The memory of one server of the simulated store: what a memcached would hold.
///
/// It is **authoritative**, until it loses what it has.
final class SimulatedServer: Sendable {
    struct Value: Sendable {
        var bytes: [UInt8]
        var token: UInt64
        var expires: VirtualTime
    }

    fileprivate struct State {
        var values: [String: Value] = [:]
        /// Like memcached, a server that was restarted counts from 1 again.
        var lastToken: UInt64 = 0
        var starts = 1
    }

    let number: Int
    private let state = Locked(State())

    init(number: Int) {
        self.number = number
    }

    /// How often the server was started: a connection ends with each.
    var starts: Int { state.withLock { $0.starts } }

    /// Loses everything.
    func restart() {
        state.withLock { state in
            state.values = [:]
            state.lastToken = 0
            state.starts += 1
        }
    }

    /// Loses one value, as an eviction does.
    func evict(_ name: String) -> Bool {
        state.withLock { $0.values.removeValue(forKey: name) != nil }
    }

    /// What is there, in the order of the names.
    func values(at now: VirtualTime) -> [(name: String, value: Value)] {
        state.withLock { state in
            state.values.filter { $1.expires > now }.sorted { $0.key < $1.key }.map { ($0.key, $0.value) }
        }
    }

    func get(_ name: String, at now: VirtualTime) -> Value? {
        state.withLock { $0.value(name, now) }
    }

    enum Condition: Sendable {
        case absent, always
        case token(UInt64)
    }

    /// - Returns: the new token; `nil` if the condition does not hold.
    func put(
        _ bytes: [UInt8], _ name: String, until expires: VirtualTime, if condition: Condition, at now: VirtualTime
    ) -> UInt64? {
        state.withLock { state in
            let old = state.value(name, now)
            switch condition {
            case .absent: guard old == nil else { return nil }
            case .token(let token): guard old?.token == token else { return nil }
            case .always: break
            }
            state.lastToken += 1
            state.values[name] = Value(bytes: bytes, token: state.lastToken, expires: expires)
            return state.lastToken
        }
    }

    func increment(_ name: String, by amount: UInt64, at now: VirtualTime) -> Result<UInt64?, StoreError> {
        state.withLock { state in
            guard var value = state.value(name, now) else { return .success(nil) }
            guard let number = UInt64(String(decoding: value.bytes, as: UTF8.self)) else {
                return .failure(StoreError(.corrupt, "a counter holds no number", mayHaveTakenEffect: false))
            }
            value.bytes = Array(String(number &+ amount).utf8)
            state.lastToken += 1
            value.token = state.lastToken
            state.values[name] = value
            return .success(number &+ amount)
        }
    }

    func touch(_ name: String, until expires: VirtualTime, at now: VirtualTime) -> Bool {
        state.withLock { state in
            guard state.value(name, now) != nil else { return false }
            state.values[name]?.expires = expires
            return true
        }
    }

    func delete(_ name: String, token: UInt64?, at now: VirtualTime) -> StoreDelete {
        state.withLock { state in
            guard let value = state.value(name, now) else { return .absent }
            if let token, value.token != token { return .conflict }
            state.values[name] = nil
            return .deleted
        }
    }
}

extension SimulatedServer.State {
    fileprivate func value(_ name: String, _ now: VirtualTime) -> SimulatedServer.Value? {
        guard let value = values[name], value.expires > now else { return nil }
        return value
    }
}
