import DequeModule
import Limpet
import NIOCore

/// An object that is confined to an event loop, in the hands of a task that may run elsewhere.
struct LoopReference<Object: AnyObject>: Sendable {
    private let object: NIOLoopBound<Object>

    /// To be made on the event loop.
    init(_ object: Object, _ eventLoop: any EventLoop) {
        self.object = NIOLoopBound(object, eventLoop: eventLoop)
    }

    /// The object, if the caller runs on its event loop.
    var ifOnLoop: Object? { object.eventLoop.inEventLoop ? object.value : nil }

    /// The object; traps elsewhere than on its event loop.
    var value: Object { object.value }

    /// Does something with the object: at once on its event loop, soon from elsewhere.
    func run(_ body: @escaping @Sendable (Object) -> Void) {
        if let value = ifOnLoop { return body(value) }
        object.eventLoop.execute { [object] in body(object.value) }
    }

    /// Suspends until the object resumes the continuation.
    ///
    /// - Parameters:
    ///   - register: gives the object the continuation, with a name for it.
    ///   - cancel: makes the object resume the continuation of this name, if it still has it: the task was cancelled.
    /// - Throws: what the continuation is resumed with; `CancellationError`.
    nonisolated(nonsending) func suspend<Value: Sendable>(
        _ register: @escaping @Sendable (Object, Waiter<Value>) -> Void,
        cancel: @escaping @Sendable (Object, WaiterName) -> Void
    ) async throws -> Value {
        let name = WaiterName()
        // Says whether the cancellation was first on the loop: it finds nothing to resume then.
        let isCancelled = Locked(false)
        return try await withTaskCancellationHandler {
            try await withCheckedThrowingContinuation { continuation in
                run { object in
                    if isCancelled.withLock({ $0 }) { return continuation.resume(throwing: CancellationError()) }
                    register(object, Waiter(name: name, continuation: continuation))
                }
            }
        } onCancel: {
            isCancelled.withLock { $0 = true }
            run { cancel($0, name) }
        }
    }
}

/// Tells those who wait apart.
final class WaiterName: Sendable {}

/// A task that waits for something to happen on an event loop.
struct Waiter<Value: Sendable>: Sendable {
    let name: WaiterName
    let continuation: CheckedContinuation<Value, any Error>
}

extension Deque {
    /// Lets one of those who wait go, because its task was cancelled.
    mutating func cancel<Value>(_ name: WaiterName) where Element == Waiter<Value> {
        guard let index = firstIndex(where: { $0.name === name }) else { return }
        remove(at: index).continuation.resume(throwing: CancellationError())
    }

    /// Lets all go that wait.
    mutating func resumeAll<Value>(with result: Result<Value, any Error>) where Element == Waiter<Value> {
        while let waiter = popFirst() { waiter.continuation.resume(with: result) }
    }
}
