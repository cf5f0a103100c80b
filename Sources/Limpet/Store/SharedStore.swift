public import ServiceLifecycle

/// The store that all nodes share: a handful of key-value primitives, over which the whole coherence protocol is
/// written once (see <doc:Coherence>).
///
/// The store is **authoritative**: what it holds is the truth, copies in a node's memory are not.
///
/// Bytes in, bytes out: a store knows no cookie, lock or codec. What is *not* an error is a value: a key that is absent
/// or expired, and a condition that does not hold. A thrown ``StoreError`` means that the machine failed, and its
/// ``StoreError/mayHaveTakenEffect`` tells whether a write may have happened, or may still happen. **A store that cannot
/// be reached never answers "absent".**
///
/// An operation ends by itself, within the store's time-out; a task that is cancelled meanwhile gets its answer all the same.
///
/// To write a store of your own, conform to this protocol and run `StoreContract` of `LimpetTesting` against it.
public protocol SharedStore: Service {
    /// How many servers there are, each with a memory of its own: at least 1.
    var serverCount: Int { get }

    /// The number of the server that the keys of this group live on, below ``serverCount``. Always the same.
    func server(ofGroup group: String) -> Int

    /// Reads keys, each for itself, in one round trip for each server.
    ///
    /// - Returns: as many results as there are keys, in their order. `nil` is a key that is absent or expired; a failure
    ///   is a key whose server could not be asked, while the others were.
    func get(_ keys: [StoreKey]) async -> [Result<StoreEntry?, StoreError>]

    /// Writes one value, if the condition holds.
    ///
    /// - Parameters:
    ///   - bytes: the value, at most what the store takes (``StoreError/Code/tooLarge`` beyond it; the old value stays).
    ///   - timeToLive: how long the value is kept *at least*, rounded up to whole seconds. A store may keep it a second or
    ///     two longer. Always more than zero.
    /// - Returns: ``StorePut/conflict`` if the condition does not hold: the key exists (`.absent`), has another token, is
    ///   gone, or the token is no longer good for this connection (`.unchanged`).
    func put(
        _ bytes: [UInt8], for key: StoreKey, timeToLive: Duration, if condition: StoreCondition
    ) async throws(StoreError) -> StorePut

    /// Adds `amount` to counters that exist, in order. All keys have the same placement.
    ///
    /// A counter is a value that holds an unsigned decimal number of 64 bits in ASCII; it is made with
    /// ``put(_:for:timeToLive:if:)`` and keeps its time to live. A value that is no number throws
    /// ``StoreError/Code/corrupt``.
    ///
    /// - Returns: the new numbers, in order; `nil` for a counter that does not exist.
    func increment(_ keys: [StoreKey], by amount: UInt64) async throws(StoreError) -> [UInt64?]

    /// Starts the time to live of a key anew. Does not change its token.
    ///
    /// - Returns: whether the key exists.
    func touch(_ key: StoreKey, timeToLive: Duration) async throws(StoreError) -> Bool

    /// Deletes a key, if the condition holds.
    ///
    /// - Parameter token: the key is deleted only while its value is unchanged since this token was read; `nil` deletes it
    ///   whatever it holds.
    /// - Returns: ``StoreDelete/deleted``, ``StoreDelete/absent``, or ``StoreDelete/conflict`` if the token is not current.
    func delete(_ key: StoreKey, ifUnchangedSince token: StoreToken?) async throws(StoreError) -> StoreDelete
}

extension SharedStore {
    /// One, unless the store says otherwise.
    public var serverCount: Int { 1 }

    /// The only server's number, unless the store says otherwise.
    public func server(ofGroup group: String) -> Int { 0 }

    /// Runs until graceful shutdown. A store with connections or threads of its own ends them here.
    public func run() async throws {
        try await gracefulShutdown()
    }
}

/// The name of a value, and where it lives. A name is always used with the same placement.
public struct StoreKey: Sendable, Hashable {
    /// Which of a store's servers holds a key.
    public enum Placement: Sendable, Hashable {
        /// All keys with the same group live on one server: all keys of a session have the session's hash as their group.
        case group(String)
        /// The server with this number, in the order of the configuration, from 0.
        case server(Int)
    }

    /// 1 to 250 bytes of printable ASCII without a space.
    public let name: String
    /// Where the key lives.
    public let placement: Placement

    /// Names a key. A name that no store takes (empty, over 250 bytes, with a space or a control character) is refused
    /// when it is used, with ``StoreError/Code/invalidKey``.
    public init(_ name: String, placement: Placement) {
        self.name = name
        self.placement = placement
    }

    /// Whether every store takes this name: 1 to 250 bytes of printable ASCII without a space.
    public var isValid: Bool {
        let bytes = name.utf8
        return (1...250).contains(bytes.count) && bytes.allSatisfy { (0x21...0x7E).contains($0) }
    }
}

/// A value as it was read, with the token that names this state of it.
public struct StoreEntry: Sendable, Hashable {
    /// The value.
    public let bytes: [UInt8]
    /// What a conditional write gives back, to write only if nobody else has written since.
    public let token: StoreToken

    /// Makes an entry: for stores.
    public init(bytes: [UInt8], token: StoreToken) {
        self.bytes = bytes
        self.token = token
    }
}

/// The state of one value in the store. Opaque: only the store that gave it can say what it means, and only as long as
/// the connection lives that it was read on.
public struct StoreToken: Sendable, Hashable {
    /// What the server calls this state.
    public let value: UInt64
    /// Which connection, or start of the server, the value belongs to.
    public let generation: UInt64

    /// Makes a token: for stores.
    public init(value: UInt64, generation: UInt64) {
        self.value = value
        self.generation = generation
    }
}

/// When a value is written.
public enum StoreCondition: Sendable, Hashable {
    /// Only if the key does not exist.
    case absent
    /// Only if the value is the one that was read with this token.
    case unchanged(since: StoreToken)
    /// Always.
    case always
}

/// What became of a write.
public enum StorePut: Sendable, Hashable {
    /// Written; with the token of the new value, if the store tells it.
    case stored(StoreToken?)
    /// Not written: the condition did not hold.
    case conflict
}

/// What became of a deletion.
public enum StoreDelete: Sendable, Hashable {
    /// Deleted.
    case deleted
    /// There was nothing to delete.
    case absent
    /// Not deleted: the value is not the one that the token names.
    case conflict
}
