import CMemcached
import Limpet

#if canImport(Glibc)
    import Glibc
#elseif canImport(Darwin)
    import Darwin
#endif

/// One connection to one server: a handle of libmemcached. The only file that calls it.
///
/// It blocks, and is used by one thread. `~Copyable` and not `Sendable`: it is made, used and freed by the thread that
/// ``MemcachedLane`` starts for it.
///
/// ```
///          a read, or a first read before a write, is answered
///   closed ───────────────────────────────────────────────────▶ open ──┐
///     ▲                                                           │ ▲   │ an answer of the protocol
///     └───────── anything else: generation + 1, tokens void ──────┘ └───┘
/// ```
///
/// A write is sent only while the connection is open. So a failure before that surely had no effect, and the first write
/// on a new connection cannot meet a server other than the one that was reached.
struct MemcachedHandle: ~Copyable {
    /// What a server cannot hold whatever its settings: memcached's largest item size is 1 GiB (`-I`, memcached(1)).
    private static let largestValue = 1 << 30
    /// How often a `put` starts over that meets a key that comes and goes between its two commands.
    private static let putAttempts = 8

    private let client: UnsafeMutablePointer<memcached_st>
    /// Where libmemcached puts what it reads. Ours, so that its `count` can be set before a fetch: see ``read(_:)``.
    private let result: UnsafeMutablePointer<memcached_result_st>
    private let credentials: MemcachedCredentials?
    private var isOpen = false
    /// Which connection this is. Begins at random: a token of another store is worth nothing here.
    private(set) var generation = UInt64.random(in: 0...UInt64.max / 2)
    private var names: [UInt8] = []
    private var starts: [UnsafePointer<CChar>?] = []
    private var lengths: [Int] = []

    /// Makes a handle, without connecting it.
    ///
    /// - Parameter options: have been checked with ``problem(ofOptions:)``.
    init(
        _ address: MemcachedAddress, timeout: Duration, options: String, credentials: MemcachedCredentials? = nil
    ) {
        self.credentials = credentials
        client = Self.make([address], timeout: timeout, options: options)
        result = .allocate(capacity: 1)
        // The memory is ours, and uninitialised for C to fill: it is given back in `deinit`, after C's own part of it.
        let created = memcached_result_create(client, result)
        precondition(created != nil, "out of memory")
    }

    deinit {
        memcached_result_free(result)
        result.deallocate()
        memcached_free(client)
    }

    // MARK: Reading

    /// Reads keys in one round trip.
    ///
    /// - Returns: as many entries as keys, in order.
    mutating func read(_ keys: [String]) throws(StoreError) -> [StoreEntry?] {
        if !isOpen, let credentials { try authenticate(credentials) }
        names.removeAll(keepingCapacity: true)
        lengths.removeAll(keepingCapacity: true)
        for key in keys {
            let start = names.count
            names.append(contentsOf: key.utf8)
            lengths.append(names.count - start)
        }
        let status = names.withUnsafeBytes { names in
            starts.removeAll(keepingCapacity: true)
            var start = 0
            for length in lengths {
                // Within `names`, which stays in place until the closure's end; libmemcached copies what it sends.
                starts.append(names.baseAddress?.advanced(by: start).assumingMemoryBound(to: CChar.self))
                start += length
            }
            return memcached_mget(client, starts, lengths, keys.count)
        }
        guard status == MEMCACHED_SUCCESS else { throw fail(status, mayHaveTakenEffect: false) }
        return try fetch(keys.count)
    }

    /// Takes the replies of a read. memcached answers the keys that it has in the order in which they were asked: a reply
    /// for any other key, or out of order, belongs to another call.
    private mutating func fetch(_ count: Int) throws(StoreError) -> [StoreEntry?] {
        var entries = [StoreEntry?](repeating: nil, count: count)
        var next = 0
        var start = 0
        // With a count of 0 libmemcached 1.1.4 turns an error of the server into "not found" (fetch.cc). With any other it
        // tells both apart: the end of the replies is END, whether there were any or not.
        result.pointee.count = 1
        while true {
            var status = MEMCACHED_SUCCESS
            guard memcached_fetch_result(client, result, &status) != nil else {
                guard status == MEMCACHED_END else { throw fail(status, mayHaveTakenEffect: false) }
                isOpen = true
                return entries
            }
            while next < count, !isResult(start, lengths[next]) {
                start += lengths[next]
                next += 1
            }
            // A token of 0: the server counts none (-C), or a proxy leaves them out.
            guard next < count, memcached_result_cas(result) != 0 else {
                throw fail(MEMCACHED_PROTOCOL_ERROR, mayHaveTakenEffect: false)
            }
            let token = StoreToken(value: memcached_result_cas(result), generation: generation)
            // Points into `result`, and is copied before the next call that uses it.
            let bytes = UnsafeRawBufferPointer(
                start: memcached_result_value(result), count: memcached_result_length(result))
            entries[next] = StoreEntry(bytes: Array(bytes), token: token)
            start += lengths[next]
            next += 1
        }
    }

    /// Whether the reply is for the name at this place.
    private func isResult(_ start: Int, _ length: Int) -> Bool {
        guard memcached_result_key_length(result) == length else { return false }
        // Both have `length` bytes: the names by construction, the result by the line above.
        return names.withUnsafeBytes { names in
            guard let name = names.baseAddress, let key = memcached_result_key_value(result) else { return false }
            return memcmp(name + start, key, length) == 0
        }
    }

    // MARK: Writing

    /// Writes a value, if the condition holds. libmemcached does not tell the new token.
    ///
    /// Never with `set`: one whose value is too large, or finds no memory, destroys the old value (memcached 1.6.18);
    /// `replace`, `add` and `cas` keep it.
    mutating func put(
        _ bytes: [UInt8], _ key: String, _ timeToLive: Duration, if condition: StoreCondition
    ) throws(StoreError) -> Bool {
        guard bytes.count <= Self.largestValue else { throw Self.tooLarge }
        var token: UInt64 = 0
        if case .unchanged(let since) = condition {
            guard since.generation == generation, since.value != 0 else { return false }
            token = since.value
        }
        try open()
        switch condition {
        case .absent: return try store(memcached_add, bytes, key, timeToLive)
        case .unchanged:
            let expiration = MemcachedTime.expiration(timeToLive)
            let status = withBytes(bytes, key) { key, keyLength, value, length in
                memcached_cas(client, key, keyLength, value, length, expiration, 0, token)
            }
            return try accept(status, refusals: [MEMCACHED_DATA_EXISTS, MEMCACHED_NOTFOUND])
        case .always:
            for _ in 0..<Self.putAttempts {
                if try store(memcached_replace, bytes, key, timeToLive) { return true }
                if try store(memcached_add, bytes, key, timeToLive) { return true }
            }
            throw StoreError(.unavailable, "the key comes and goes while it is written", mayHaveTakenEffect: false)
        }
    }

    /// Adds to a counter.
    ///
    /// - Returns: the sum, or `nil` if there is none.
    mutating func increment(_ key: String, by amount: UInt64) throws(StoreError) -> UInt64? {
        try open()
        var sum: UInt64 = 0
        let status = withBytes([], key) { key, length, _, _ in
            memcached_increment_by_key(client, key, length, key, length, amount, &sum)
        }
        if status == MEMCACHED_CLIENT_ERROR {
            _ = fail(status, mayHaveTakenEffect: false)
            throw StoreError(.corrupt, "a counter holds no number", mayHaveTakenEffect: false)
        }
        return try accept(status, refusals: [MEMCACHED_NOTFOUND]) ? sum : nil
    }

    /// Starts a time to live anew.
    mutating func touch(_ key: String, _ timeToLive: Duration) throws(StoreError) -> Bool {
        try open()
        let expiration = MemcachedTime.expiration(timeToLive)
        let status = withBytes([], key) { key, length, _, _ in
            memcached_touch(client, key, length, expiration)
        }
        return try accept(status, refusals: [MEMCACHED_NOTFOUND])
    }

    /// Deletes a key.
    mutating func delete(_ key: String, ifUnchangedSince token: StoreToken?) throws(StoreError) -> StoreDelete {
        guard let token else {
            try open()
            let status = withBytes([], key) { key, length, _, _ in memcached_delete(client, key, length, 0) }
            return try accept(status, refusals: [MEMCACHED_NOTFOUND]) ? .deleted : .absent
        }
        guard token.generation == generation, token.value != 0 else { return .conflict }
        try open()
        // A value that expired before it was written: in the text protocol, a deletion if unchanged.
        let status = withBytes([], key) { key, keyLength, value, length in
            memcached_cas(client, key, keyLength, value, length, -1, 0, token.value)
        }
        if status == MEMCACHED_NOTFOUND { return .absent }
        return try accept(status, refusals: [MEMCACHED_DATA_EXISTS]) ? .deleted : .conflict
    }

    private typealias Store = (
        UnsafeMutablePointer<memcached_st>?, UnsafePointer<CChar>?, Int, UnsafePointer<CChar>?, Int, time_t, UInt32
    ) -> memcached_return_t

    private mutating func store(
        _ command: Store, _ bytes: [UInt8], _ key: String, _ timeToLive: Duration
    ) throws(StoreError) -> Bool {
        let expiration = MemcachedTime.expiration(timeToLive)
        let status = withBytes(bytes, key) { key, keyLength, value, length in
            command(client, key, keyLength, value, length, expiration, 0)
        }
        return try accept(status, refusals: [MEMCACHED_NOTSTORED])
    }

    /// Lends a key and a value to C for the time of one call, which copies both.
    private func withBytes(
        _ bytes: [UInt8], _ key: String,
        _ body: (UnsafePointer<CChar>?, Int, UnsafePointer<CChar>?, Int) -> memcached_return_t
    ) -> memcached_return_t {
        var key = key
        return key.withUTF8 { key in
            bytes.withUnsafeBytes { bytes in
                key.withMemoryRebound(to: CChar.self) { key in
                    body(
                        key.baseAddress, key.count, bytes.baseAddress?.assumingMemoryBound(to: CChar.self), bytes.count)
                }
            }
        }
    }

    // MARK: The connection

    /// Tells the server who this is: any `set` with user and password (protocol.txt, "Authentication"). One that has expired
    /// already: a server that asks nobody for a password must not keep it as a value.
    private mutating func authenticate(_ credentials: MemcachedCredentials) throws(StoreError) {
        let status = withBytes(Array(credentials.text.utf8), "limpet:hello") { key, keyLength, value, length in
            memcached_set(client, key, keyLength, value, length, -1, 0)
        }
        guard status != MEMCACHED_SUCCESS else { return }
        let failure = fail(status, mayHaveTakenEffect: false)
        guard status == MEMCACHED_CLIENT_ERROR else { throw failure }
        throw StoreError(
            .unavailable, "the server refuses the user or the password (memcached.user, memcached.password)",
            mayHaveTakenEffect: false)
    }

    /// Makes sure that the server answers, before a write is sent.
    private mutating func open() throws(StoreError) {
        if !isOpen { _ = try read(["limpet"]) }
    }

    /// Tells whether a write was done or refused; anything else is a failure.
    private mutating func accept(
        _ status: memcached_return_t, refusals: [memcached_return_t]
    ) throws(StoreError) -> Bool {
        switch status {
        case MEMCACHED_SUCCESS: return true
        case MEMCACHED_E2BIG: throw Self.tooLarge
        case MEMCACHED_SERVER_MEMORY_ALLOCATION_FAILURE:
            throw StoreError(.outOfMemory, "the server has no room for the value", mayHaveTakenEffect: false)
        default:
            if refusals.contains(status) { return false }
            throw fail(status, mayHaveTakenEffect: true)
        }
    }

    private static let tooLarge = StoreError(
        .tooLarge, "the value is larger than the server takes", mayHaveTakenEffect: false)

    /// Closes the connection, so that a reply that is still to come is never read by another call, and makes its tokens
    /// void.
    private mutating func fail(_ status: memcached_return_t, mayHaveTakenEffect: Bool) -> StoreError {
        let wasOpen = isOpen
        isOpen = false
        generation &+= 1
        let last = memcached_last_error(client)
        memcached_quit(client)
        let statuses = [status, last]
        if statuses.contains(MEMCACHED_TIMEOUT) {
            return StoreError(.timeout, "the server did not answer in time", mayHaveTakenEffect: mayHaveTakenEffect)
        }
        switch status {
        case MEMCACHED_PROTOCOL_ERROR, MEMCACHED_UNKNOWN_READ_FAILURE, MEMCACHED_PARTIAL_READ, MEMCACHED_ERROR,
            MEMCACHED_CLIENT_ERROR:
            return StoreError(
                .corrupt, "the server answered something that cannot be", mayHaveTakenEffect: mayHaveTakenEffect)
        case MEMCACHED_SERVER_ERROR, MEMCACHED_SERVER_MEMORY_ALLOCATION_FAILURE:
            return StoreError(.unavailable, "the server reports an error", mayHaveTakenEffect: mayHaveTakenEffect)
        default:
            if wasOpen {
                return StoreError(
                    .connectionLost, "the connection ended before the answer", mayHaveTakenEffect: mayHaveTakenEffect)
            }
            return StoreError(.unavailable, "the server cannot be reached", mayHaveTakenEffect: mayHaveTakenEffect)
        }
    }
}

// MARK: - Options and placement

extension MemcachedHandle {
    /// Makes a handle of libmemcached for these servers, in this order.
    fileprivate static func make(
        _ addresses: [MemcachedAddress], timeout: Duration, options: String
    ) -> UnsafeMutablePointer<memcached_st> {
        // Later options win over earlier ones: an operator's over ours.
        let milliseconds = max(1, timeout / .milliseconds(1))
        let text =
            "--CONNECT-TIMEOUT=\(Int32(milliseconds)) --POLL-TIMEOUT=\(Int32(milliseconds)) --RETRY-TIMEOUT=0"
            + (options.isEmpty ? "" : " \(options)")
        guard let handle = memcached(text, text.utf8.count) else {
            preconditionFailure("options that were checked are refused, or out of memory")
        }
        let upper = options.uppercased()
        var behaviors: [(memcached_behavior_t, UInt64)] = [
            (MEMCACHED_BEHAVIOR_SUPPORT_CAS, 1), (MEMCACHED_BEHAVIOR_TCP_NODELAY, 1),
            (MEMCACHED_BEHAVIOR_VERIFY_KEY, 1),
        ]
        if !upper.contains("--DISTRIBUTION=") && !upper.contains("--HASH=") {
            behaviors.append((MEMCACHED_BEHAVIOR_KETAMA_WEIGHTED, 1))
        }
        for (behavior, value) in behaviors {
            let status = memcached_behavior_set(handle, behavior, value)
            precondition(status == MEMCACHED_SUCCESS, "libmemcached refuses one of its own behaviors")
        }
        for address in addresses {
            let weight = UInt32(address.weight)
            let status =
                switch address.endpoint {
                case .host(let host, let port): memcached_server_add_with_weight(handle, host, port, weight)
                case .socket(let path): memcached_server_add_unix_socket_with_weight(handle, path, weight)
                }
            precondition(status == MEMCACHED_SUCCESS, "out of memory")
        }
        return handle
    }

    /// What is wrong with a text of options, as the end of a sentence; `nil` if nothing is.
    static func problem(ofOptions options: String) -> String? {
        guard !options.isEmpty else { return nil }
        var message = [CChar](repeating: 0, count: 512)
        let status = libmemcached_check_configuration(options, options.utf8.count, &message, message.count)
        guard status == MEMCACHED_SUCCESS, let handle = memcached(options, options.utf8.count) else {
            let text = message.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }
            return text.isEmpty ? "libmemcached cannot read it" : String(decoding: text, as: UTF8.self)
        }
        defer { memcached_free(handle) }
        let refused: [(memcached_behavior_t, String)] = [
            (MEMCACHED_BEHAVIOR_BINARY_PROTOCOL, "the binary protocol has no deletion if unchanged"),
            (MEMCACHED_BEHAVIOR_BUFFER_REQUESTS, "a buffered write is not acknowledged"),
            (MEMCACHED_BEHAVIOR_NOREPLY, "a write without a reply is not acknowledged"),
            (MEMCACHED_BEHAVIOR_USE_UDP, "UDP has no replies to writes"),
            (MEMCACHED_BEHAVIOR_NUMBER_OF_REPLICAS, "replicas are not compared and swapped together"),
            (MEMCACHED_BEHAVIOR_AUTO_EJECT_HOSTS, "nodes would disagree about where a session lives"),
            (MEMCACHED_BEHAVIOR_SORT_HOSTS, "servers are numbered in the order of memcached.servers"),
            (MEMCACHED_BEHAVIOR_HASH_WITH_PREFIX_KEY, "sessions are placed by their own hash"),
        ]
        for (behavior, reason) in refused where memcached_behavior_get(handle, behavior) != 0 { return reason }
        if memcached_behavior_get(handle, MEMCACHED_BEHAVIOR_DISTRIBUTION)
            == UInt64(MEMCACHED_DISTRIBUTION_RANDOM.rawValue)
        {
            return "a key would be looked for on another server than it was put on"
        }
        if memcached_server_count(handle) > 0 { return "servers belong in memcached.servers" }
        if memcached_callback_get(handle, MEMCACHED_CALLBACK_PREFIX_KEY, nil) != nil {
            return "a namespace belongs in store.prefix"
        }
        return nil
    }
}

/// Which server a group's keys live on: what libmemcached's own clients would choose for a key with the group's text.
final class MemcachedPlacement: @unchecked Sendable {
    // Never changed between `init` and `deinit`, and only asked for hashes: `memcached_generate_hash` reads the handle
    // (hash.cc; its only writing path needs ejected servers, which are refused). So any thread may ask.
    private let client: UnsafeMutablePointer<memcached_st>
    /// How many there are.
    let servers: Int

    /// - Parameter options: have been checked with ``MemcachedHandle/problem(ofOptions:)``.
    init(_ addresses: [MemcachedAddress], options: String) {
        client = MemcachedHandle.make(addresses, timeout: .seconds(1), options: options)
        servers = addresses.count
    }

    deinit { memcached_free(client) }

    /// The number of the server, in the order of the configuration.
    func server(ofGroup group: String) -> Int {
        servers == 1 ? 0 : Int(memcached_generate_hash(client, group, group.utf8.count))
    }
}
