import NIOCore

/// The first words on a connection: says who we are, asks whether the server speaks meta commands as we need them, and what
/// it takes. A value: it is told the replies, and tells what to send.
///
/// ```
///   (set: user and password) ──▶ get ──▶ mn, mg, stats settings ──▶ the server's limits
/// ```
///
/// The `get` comes first and alone, so that a proxy that closes the connection at a command which it does not know is told
/// from a server that is down.
struct MetaHandshake: Sendable {
    /// What a server takes, as far as it says so.
    struct Limits: Equatable, Sendable {
        /// The largest item, with its key and what memcached adds to it; `nil` if the server does not tell.
        var itemSize: Int?
        /// Whether the server makes room for new values, so that it does not run out of it.
        var evicts = false

        /// 1 GiB, memcached's own limit.
        static let largestItem = 1 << 30
        /// What an item needs beside key and value (memcached 1.6: 48 bytes of header, 8 of token, 3 of line ends), and a
        /// little more, for other versions.
        private static let itemOverhead = 96

        /// Whether a value is too large, or so near to it that it may be.
        func isTooLarge(_ request: MetaRequest) -> Bool {
            guard case .put(let bytes, let key, _, _) = request else { return false }
            return bytes.count + key.utf8.count + Self.itemOverhead > itemSize ?? Self.largestItem
        }

        /// Whether a `ms` that fails would delete the old value: see ``MetaRequest/writeKeeping(to:)``.
        var mayDestroy: Bool { itemSize == nil || !evicts }
    }

    enum Outcome: Equatable, Sendable {
        /// The connection may be used.
        case open(Limits)
        /// The server is of another kind: one that does not speak meta commands, or not with marks in all replies.
        case notMeta
        /// It is asked for a user and a password, and there is none.
        case unauthenticated
        /// It refuses the user or the password.
        case refusedUser
    }

    private enum Step {
        case user, greeting, noop, miss, settings
    }

    /// A key that nobody uses.
    private let key = "limpet:hello:" + String(UInt64.random(in: .min ... .max), radix: 36)
    private let credentials: MemcachedCredentials?
    private var step = Step.greeting
    private var limits = Limits()

    init(credentials: MemcachedCredentials?) {
        self.credentials = credentials
    }

    /// Whether the server has answered the `get`, and not yet what followed.
    var hasGreeted: Bool { step == .noop }

    /// Begins.
    mutating func start(_ buffer: inout ByteBuffer) {
        guard let credentials else { return greet(&buffer) }
        step = .user
        // What is asked for is any `set` (protocol.txt, "Authentication"). One that has expired already: a server that asks
        // nobody for a password must not keep it as a value.
        buffer.writeString("set \(key) 0 -1 \(credentials.text.utf8.count)\r\n\(credentials.text)\r\n")
    }

    private mutating func greet(_ buffer: inout ByteBuffer) {
        step = .greeting
        buffer.writeString("get \(key)\r\n")
    }

    /// Takes a reply.
    ///
    /// - Returns: how it ended; `nil` if it goes on.
    /// - Throws: at a reply that answers nothing that was asked.
    mutating func receive(_ reply: MetaReply, _ buffer: inout ByteBuffer) throws(MetaReplyProblem) -> Outcome? {
        switch (step, reply.kind) {
        case (.user, .done): greet(&buffer)
        case (.user, .refusal): return .refusedUser
        case (.greeting, .end):
            step = .noop
            buffer.writeString("mn\r\nmg \(key) O1\r\nstats settings\r\n")
        case (.greeting, .refusal(.unauthenticated)): return .unauthenticated
        case (.noop, .noop): step = .miss
        case (.noop, .refusal), (.miss, .refusal): return .notMeta
        case (.miss, .miss):
            // The protocol leaves it to a server whether a miss carries the mark: without it, it is not told whose miss it is.
            guard reply.mark == 1 else { return .notMeta }
            step = .settings
        case (.settings, .statistic(let name, let value)):
            // Whatever it says: no server takes more (`-I`, memcached(1)), and none is to make us wait for more.
            if name == "item_size_max" {
                limits.itemSize = Int(value).flatMap { $0 > 0 ? min($0, Limits.largestItem) : nil }
            }
            if name == "evictions" { limits.evicts = value == "on" }
        case (.settings, .end): return .open(limits)
        case (.settings, .refusal): return .open(Limits())
        default: throw .unknownReply
        }
        return nil
    }
}

/// Who a node is for memcached's text authentication (`-Y`).
struct MemcachedCredentials: Sendable, Hashable, CustomStringConvertible {
    let user: String
    let password: String

    /// No password belongs into a log.
    var description: String { "user \(user)" }

    /// As memcached takes them.
    var text: String { "\(user) \(password)" }
}
