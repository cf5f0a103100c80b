import Dispatch
import Limpet
import Logging
import Synchronization

#if canImport(Glibc)
    import Glibc
#elseif canImport(Darwin)
    import Darwin
#endif

/// A thread that does the operations of its callers, one after the other, on a connection of its own.
///
/// Whatever waits when it comes to look is taken at once, so that reads of many callers share a round trip: the longer
/// the server takes, the more are read together.
final class MemcachedLane: Sendable {
    /// What a thread needs to work, and the pool to see it end.
    struct Settings: Sendable {
        let options: String
        /// How long an operation may take, in the queue or on the connection.
        let timeout: Duration
        let credentials: MemcachedCredentials?
        /// How many keys are read together at most.
        let keysOfRead: Int
        let logger: Logger
    }

    private struct State {
        var waiting: [MemcachedJob] = []
        var added = 0
        var isAsleep = false
        var isClosed = false
        var hasEnded = false
        var observers: [CheckedContinuation<Void, Never>] = []
    }

    private let address: MemcachedAddress
    private let settings: Settings
    private let state = Locked(State())
    private let wake = DispatchSemaphore(value: 0)
    private let roundTripsOfReads = Atomic(0)

    /// How many times keys were read, of however many callers at once.
    var readCount: Int { roundTripsOfReads.load(ordering: .relaxed) }

    /// How many jobs were taken since the start.
    var addedCount: Int { state.withLock { $0.added } }

    init(_ address: MemcachedAddress, _ settings: Settings) {
        self.address = address
        self.settings = settings
    }

    /// Starts the thread. It ends after ``close()``, and keeps the lane alive until then.
    func start() throws(StoreError) {
        let lane = Unmanaged.passRetained(self)
        #if canImport(Darwin)
            var thread: pthread_t?
        #else
            var thread = pthread_t()
        #endif
        // The thread takes over the reference that was retained above, exactly once; if there is no thread, it is
        // released here.
        let status = pthread_create(
            &thread, nil,
            { argument in
                #if canImport(Darwin)
                    Unmanaged<MemcachedLane>.fromOpaque(argument).takeRetainedValue().run()
                #else
                    if let argument { Unmanaged<MemcachedLane>.fromOpaque(argument).takeRetainedValue().run() }
                #endif
                return nil
            }, lane.toOpaque())
        guard status == 0 else {
            lane.release()
            throw StoreError(.unavailable, "the system has no thread for a connection", mayHaveTakenEffect: false)
        }
        #if canImport(Darwin)
            if let thread { pthread_detach(thread) }
        #else
            pthread_detach(thread)
        #endif
    }

    /// Takes a job, which is answered in any case.
    func add(_ job: MemcachedJob) {
        let (isClosed, wakes) = state.withLock { state in
            guard !state.isClosed else { return (true, false) }
            state.waiting.append(job)
            state.added += 1
            defer { state.isAsleep = false }
            return (false, state.isAsleep)
        }
        if isClosed { job.fail(StoreError(.closed, "the store was shut down", mayHaveTakenEffect: false)) }
        if wakes { wake.signal() }
    }

    /// Takes no more jobs. The thread ends when it has done those that wait.
    func close() {
        let wakes = state.withLock { state in
            state.isClosed = true
            defer { state.isAsleep = false }
            return state.isAsleep
        }
        if wakes { wake.signal() }
    }

    /// Waits until the thread has ended.
    func waitUntilEnded() async {
        await withCheckedContinuation { continuation in
            let hasEnded = state.withLock { state in
                if !state.hasEnded { state.observers.append(continuation) }
                return state.hasEnded
            }
            if hasEnded { continuation.resume() }
        }
    }

    // MARK: On the thread

    private func run() {
        var worker = MemcachedWorker(address, settings)
        var jobs: [MemcachedJob] = []
        while take(&jobs) {
            worker.work(jobs)
            roundTripsOfReads.store(worker.readCount, ordering: .relaxed)
            jobs.removeAll(keepingCapacity: true)
        }
        let observers = state.withLock { state in
            state.hasEnded = true
            defer { state.observers = [] }
            return state.observers
        }
        for observer in observers { observer.resume() }
    }

    /// Waits for jobs and takes all of them.
    ///
    /// - Returns: `false` if none will come any more.
    private func take(_ jobs: inout [MemcachedJob]) -> Bool {
        while true {
            let isOver = state.withLock { state in
                swap(&state.waiting, &jobs)
                state.isAsleep = jobs.isEmpty && !state.isClosed
                return jobs.isEmpty && state.isClosed
            }
            if isOver { return false }
            if !jobs.isEmpty { return true }
            wake.wait()
        }
    }
}

/// What a lane's thread does: jobs on a handle. Made and used on that thread alone.
struct MemcachedWorker: ~Copyable {
    /// How many jobs are done before their callers are told. Telling them wakes a thread of theirs, which costs as much
    /// as a write itself, and wakes it once for all that are told together.
    private static let answersTogether = 16

    private var handle: MemcachedHandle
    private let address: MemcachedAddress
    private let settings: MemcachedLane.Settings
    private let clock = SystemClock()
    private var isAnswering = true
    /// Answers of the jobs that were done since the last ones were sent.
    private var answers: [MemcachedAnswer] = []
    private(set) var readCount = 0

    init(_ address: MemcachedAddress, _ settings: MemcachedLane.Settings) {
        self.address = address
        self.settings = settings
        handle = MemcachedHandle(
            address, timeout: settings.timeout, options: settings.options, credentials: settings.credentials)
    }

    /// Does jobs, and answers each.
    mutating func work(_ jobs: [MemcachedJob]) {
        var plan = MemcachedPlan(keysOfRead: settings.keysOfRead)
        for (index, job) in jobs.enumerated() {
            if case .get(let keys, _) = job.work {
                plan.addRead(index, placement: job.placement, keys: keys.count)
            } else {
                plan.addWrite(index, placement: job.placement)
            }
        }
        for step in plan.steps {
            switch step {
            case .reads(let indices): read(indices.map { jobs[$0] })
            case .write(let index): write(jobs[index])
            }
            if answers.count >= Self.answersTogether { sendAnswers() }
        }
        sendAnswers()
    }

    private mutating func sendAnswers() {
        for answer in answers { answer.send() }
        answers.removeAll(keepingCapacity: true)
    }

    private mutating func read(_ jobs: [MemcachedJob]) {
        var reads: [(keys: [String], reply: Reply<Answer<[StoreEntry?]>>)] = []
        reads.reserveCapacity(jobs.count)
        var keys: [String] = []
        for job in jobs {
            guard isInTime(job), case .get(let names, let reply) = job.work else { continue }
            reads.append((names, reply))
            keys.append(contentsOf: names)
        }
        guard !keys.isEmpty else { return }
        readCount += 1
        do throws(StoreError) {
            let entries = try handle.read(keys)
            noteAnswer()
            var start = 0
            for read in reads {
                answers.append(.get(read.reply, .success(Array(entries[start..<start + read.keys.count]))))
                start += read.keys.count
            }
        } catch {
            noteFailure(error)
            for read in reads { answers.append(.get(read.reply, .failure(error))) }
        }
    }

    private mutating func write(_ job: MemcachedJob) {
        guard isInTime(job) else { return }
        switch job.work {
        case .get: break  // Reads are planned as such.
        case .put(let bytes, let key, let timeToLive, let condition, let reply):
            let result = result { handle throws(StoreError) in
                try handle.put(bytes, key, timeToLive, if: condition) ? StorePut.stored(nil) : .conflict
            }
            answers.append(.put(reply, result))
        case .increment(let keys, let amount, let reply):
            let result = result { handle throws(StoreError) in try handle.increment(keys, by: amount) }
            answers.append(.increment(reply, result))
        case .touch(let key, let timeToLive, let reply):
            let result = result { handle throws(StoreError) in try handle.touch(key, timeToLive) }
            answers.append(.touch(reply, result))
        case .delete(let key, let token, let reply):
            let result = result { handle throws(StoreError) in try handle.delete(key, ifUnchangedSince: token) }
            answers.append(.delete(reply, result))
        }
    }

    private mutating func result<Value>(
        _ body: (inout MemcachedHandle) throws(StoreError) -> Value
    ) -> Answer<Value> {
        let generation = handle.generation
        do throws(StoreError) {
            let value = try body(&handle)
            noteAnswer()
            return .success(value)
        } catch {
            // A refused value is an answer; a failure of the connection has ended its generation.
            if handle.generation != generation { noteFailure(error) }
            return .failure(error)
        }
    }

    /// Gives up a job whose time passed while it waited: a server that does not answer must not make its callers wait
    /// for one another.
    private func isInTime(_ job: MemcachedJob) -> Bool {
        guard clock.monotonicNanoseconds() > job.deadline else { return true }
        job.fail(
            StoreError(.unavailable, "the time passed before the operation was sent", mayHaveTakenEffect: false))
        return false
    }

    private mutating func noteAnswer() {
        guard !isAnswering else { return }
        isAnswering = true
        settings.logger.notice(
            "a memcached server answers again", metadata: ["server": "\(address.description)"])
    }

    private mutating func noteFailure(_ error: StoreError) {
        guard isAnswering else { return }
        isAnswering = false
        settings.logger.warning(
            "a memcached server does not answer",
            metadata: ["server": "\(address.description)", "error": "\(error)"])
    }
}

extension MemcachedHandle {
    /// Adds to counters, in order.
    fileprivate mutating func increment(_ keys: [String], by amount: UInt64) throws(StoreError) -> [UInt64?] {
        var sums: [UInt64?] = []
        sums.reserveCapacity(keys.count)
        for key in keys {
            do throws(StoreError) {
                sums.append(try increment(key, by: amount))
            } catch {
                // What was added before stays added.
                let isPartial = sums.contains { $0 != nil }
                throw StoreError(
                    error.code, error.message, mayHaveTakenEffect: error.mayHaveTakenEffect || isPartial)
            }
        }
        return sums
    }
}
