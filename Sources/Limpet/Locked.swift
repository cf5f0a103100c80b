#if LIMPET_THREAD_SANITIZER
    #if canImport(Glibc)
        import Glibc
    #elseif canImport(Darwin)
        import Darwin
    #endif
#else
    package import Synchronization
#endif

/// A value that one thread at a time can reach.
///
/// It is the standard library's `Mutex`; under the thread sanitizer (`LIMPET_THREAD_SANITIZER`) a lock of the system: the
/// sanitizer cannot see into a contended `Mutex`, which waits in code that is not instrumented, and reports races that are
/// none.
package struct Locked<Value: ~Copyable>: ~Copyable, Sendable {
    #if LIMPET_THREAD_SANITIZER
        @usableFromInline let storage: SystemLock<Value>

        /// Guards a value.
        package init(_ value: consuming sending Value) {
            storage = SystemLock(value)
        }
    #else
        @usableFromInline let storage: Mutex<Value>

        /// Guards a value.
        @inlinable package init(_ value: consuming sending Value) {
            storage = Mutex(value)
        }
    #endif

    /// Reaches the value.
    @inlinable package borrowing func withLock<Result: ~Copyable, Failure: Error>(
        _ body: (inout sending Value) throws(Failure) -> sending Result
    ) throws(Failure) -> sending Result {
        try storage.withLock(body)
    }
}

#if LIMPET_THREAD_SANITIZER
    /// A lock of the system, and what it guards.
    // The value is touched only between lock and unlock.
    @usableFromInline final class SystemLock<Value: ~Copyable>: @unchecked Sendable {
        private let lock = UnsafeMutablePointer<pthread_mutex_t>.allocate(capacity: 1)
        private var value: Value

        init(_ value: consuming sending Value) {
            self.value = value
            let status = pthread_mutex_init(lock, nil)
            precondition(status == 0, "the system has no lock")
        }

        deinit {
            pthread_mutex_destroy(lock)
            lock.deallocate()
        }

        @usableFromInline func withLock<Result: ~Copyable, Failure: Error>(
            _ body: (inout sending Value) throws(Failure) -> sending Result
        ) throws(Failure) -> sending Result {
            pthread_mutex_lock(lock)
            defer { pthread_mutex_unlock(lock) }
            return try body(&value)
        }
    }
#endif
