import Limpet

/// Where an answer goes: a caller that waits. Every reply is resumed exactly once, by whoever took the call or refused it.
struct Reply<Value: Sendable>: Sendable {
    #if DEBUG
        private typealias Continuation = CheckedContinuation<Value, Never>
    #else
        // Without the allocation of a checked one. Each call is held in one place at a time, and taken out of it to be
        // answered; a debug build, which the tests are, traps at a second answer and tells of a missing one.
        private typealias Continuation = UnsafeContinuation<Value, Never>
    #endif

    private let continuation: Continuation

    private init(_ continuation: Continuation) {
        self.continuation = continuation
    }

    /// Waits until the reply that the body is given is resumed.
    nonisolated(nonsending) static func wait(_ body: (Reply<Value>) -> Void) async -> Value {
        #if DEBUG
            await withCheckedContinuation { body(Reply($0)) }
        #else
            await withUnsafeContinuation { body(Reply($0)) }
        #endif
    }

    func resume(_ value: Value) {
        continuation.resume(returning: value)
    }
}

/// What became of an operation.
typealias Answer<Value> = Result<Value, StoreError>
