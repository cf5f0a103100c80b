import Limpet
import NIOCore

/// Where the answer to a command goes.
enum PipelinedTarget {
    case entry(Reply<[Answer<StoreEntry?>]>)
    case entryOfMany(EntriesOfMany, Int)
    case put(Reply<Answer<StorePut>>)
    case sumOfMany(SumsOfMany, Int)
    case touched(Reply<Answer<Bool>>)
    case deleted(Reply<Answer<StoreDelete>>)

    /// Whether the command changes something: its outcome is unknown if no reply comes.
    private var isWrite: Bool {
        switch self {
        case .entry, .entryOfMany: false
        case .put, .sumOfMany, .touched, .deleted: true
        }
    }

    /// Answers with a failure.
    ///
    /// - Parameter wasSent: whether the server may have the command.
    func fail(_ code: StoreError.Code, _ message: String, wasSent: Bool) {
        let error = StoreError(code, message, mayHaveTakenEffect: wasSent && isWrite)
        switch self {
        case .entry(let reply): reply.resume([.failure(error)])
        case .entryOfMany(let entries, let index): entries.set(index, .failure(error))
        case .put(let reply): reply.resume(.failure(error))
        case .sumOfMany(let sums, let index): sums.set(index, .failure(error))
        case .touched(let reply): reply.resume(.failure(error))
        case .deleted(let reply): reply.resume(.failure(error))
        }
    }

    /// Answers with what the server said.
    ///
    /// - Returns: `false` if it said something that is no answer to this command: nobody has been answered.
    func accept(_ reply: MetaReply, generation: UInt64) -> Bool {
        if case .refusal(let refusal) = reply.kind { return accept(refusal) }
        switch self {
        case .entry(let caller):
            guard let result = Self.entry(reply, generation) else { return false }
            caller.resume([result])
        case .entryOfMany(let entries, let index):
            guard let result = Self.entry(reply, generation) else { return false }
            entries.set(index, result)
        case .put(let caller):
            switch reply.kind {
            case .done:
                let token = reply.token == 0 ? nil : StoreToken(value: reply.token, generation: generation)
                caller.resume(.success(.stored(token)))
            case .notStored, .exists, .notFound: caller.resume(.success(.conflict))
            default: return false
            }
        case .sumOfMany(let sums, let index):
            switch reply.kind {
            case .value(let bytes):
                guard let sum = UInt64(String(decoding: bytes, as: UTF8.self)) else { return false }
                sums.set(index, .success(sum))
            case .notFound: sums.set(index, .success(nil))
            default: return false
            }
        case .touched(let caller):
            switch reply.kind {
            case .done: caller.resume(.success(true))
            case .miss: caller.resume(.success(false))
            default: return false
            }
        case .deleted(let caller):
            switch reply.kind {
            case .done: caller.resume(.success(.deleted))
            case .notFound: caller.resume(.success(.absent))
            case .exists: caller.resume(.success(.conflict))
            default: return false
            }
        }
        return true
    }

    private static func entry(_ reply: MetaReply, _ generation: UInt64) -> Answer<StoreEntry?>? {
        switch reply.kind {
        case .value(let bytes):
            guard reply.token != 0 else {
                return .failure(
                    StoreError(.corrupt, "the server counts no tokens (-C)", mayHaveTakenEffect: false))
            }
            return .success(
                StoreEntry(bytes: bytes, token: StoreToken(value: reply.token, generation: generation)))
        case .miss: return .success(nil)
        default: return nil
        }
    }

    /// A refusal that is an answer: the connection is as good as before.
    private func accept(_ refusal: MetaReply.Refusal) -> Bool {
        switch (self, refusal) {
        case (.put, .tooLarge): fail(.tooLarge, "the value is larger than the server takes", wasSent: false)
        case (.put, .outOfMemory): fail(.outOfMemory, "the server has no room for the value", wasSent: false)
        case (.sumOfMany, .outOfMemory): fail(.outOfMemory, "the server has no room for the sum", wasSent: false)
        case (.sumOfMany, .notANumber): fail(.corrupt, "a counter holds no number", wasSent: false)
        default: return false
        }
        return true
    }
}

/// The answers to a read of many keys, of one server or more: told together, when the last is there.
///
/// Confined to the event loop that reads.
final class EntriesOfMany {
    private var results: [Answer<StoreEntry?>]
    private var left: Int
    private let reply: Reply<[Answer<StoreEntry?>]>

    init(count: Int, _ reply: Reply<[Answer<StoreEntry?>]>) {
        results = Array(repeating: .success(nil), count: count)
        left = count
        self.reply = reply
    }

    func set(_ index: Int, _ result: Answer<StoreEntry?>) {
        results[index] = result
        left -= 1
        if left == 0 { reply.resume(results) }
    }
}

/// The sums of many counters. Confined to the event loop that adds.
final class SumsOfMany {
    private var sums: [UInt64?]
    private var left: Int
    private var error: StoreError?
    private let reply: Reply<Answer<[UInt64?]>>

    init(count: Int, _ reply: Reply<Answer<[UInt64?]>>) {
        sums = Array(repeating: nil, count: count)
        left = count
        self.reply = reply
    }

    func set(_ index: Int, _ result: Answer<UInt64?>) {
        switch result {
        case .success(let sum): sums[index] = sum
        case .failure(let failure):
            let isUnknown = failure.mayHaveTakenEffect || error?.mayHaveTakenEffect ?? false
            error = StoreError(failure.code, failure.message, mayHaveTakenEffect: isUnknown)
        }
        left -= 1
        guard left == 0 else { return }
        guard let error else { return reply.resume(.success(sums)) }
        // What was added stays added.
        let isPartial = sums.contains { $0 != nil }
        reply.resume(
            .failure(
                StoreError(error.code, error.message, mayHaveTakenEffect: error.mayHaveTakenEffect || isPartial)))
    }
}

/// A command that has not been sent yet.
struct WaitingCall {
    let request: MetaRequest
    /// The token that the request's own condition is good for; `nil` if it has none.
    let generation: UInt64?
    let target: PipelinedTarget
    let deadline: NIODeadline
}

/// A command that was sent, and its reply is still to come.
struct PendingCall {
    let target: PipelinedTarget
    /// What the reply has to repeat; `nil` for a command whose replies carry no mark.
    let mark: UInt32?
    /// The server's when the command was written: what a token of the reply is good for.
    let generation: UInt64
    let deadline: NIODeadline
    let size: Int
}
