import Limpet

/// One operation of a caller that waits for a lane to do it.
struct MemcachedJob: Sendable {
    enum Work: Sendable {
        case get([String], Reply<Answer<[StoreEntry?]>>)
        case put([UInt8], String, Duration, StoreCondition, Reply<Answer<StorePut>>)
        case increment([String], UInt64, Reply<Answer<[UInt64?]>>)
        case touch(String, Duration, Reply<Answer<Bool>>)
        case delete(String, StoreToken?, Reply<Answer<StoreDelete>>)
    }

    let work: Work
    /// What the keys have in common: operations with the same placement keep their order.
    let placement: Int
    /// On the monotonic clock, in nanoseconds: not begun by then, the job is given up.
    let deadline: UInt64

    /// Answers with a failure, whatever was asked.
    func fail(_ error: StoreError) {
        switch work {
        case .get(_, let reply): reply.resume(.failure(error))
        case .put(_, _, _, _, let reply): reply.resume(.failure(error))
        case .increment(_, _, let reply): reply.resume(.failure(error))
        case .touch(_, _, let reply): reply.resume(.failure(error))
        case .delete(_, _, let reply): reply.resume(.failure(error))
        }
    }
}

/// What became of a job, before its caller is told.
enum MemcachedAnswer: Sendable {
    case get(Reply<Answer<[StoreEntry?]>>, Answer<[StoreEntry?]>)
    case put(Reply<Answer<StorePut>>, Answer<StorePut>)
    case increment(Reply<Answer<[UInt64?]>>, Answer<[UInt64?]>)
    case touch(Reply<Answer<Bool>>, Answer<Bool>)
    case delete(Reply<Answer<StoreDelete>>, Answer<StoreDelete>)

    /// Tells the caller.
    func send() {
        switch self {
        case .get(let reply, let result): reply.resume(result)
        case .put(let reply, let result): reply.resume(result)
        case .increment(let reply, let result): reply.resume(result)
        case .touch(let reply, let result): reply.resume(result)
        case .delete(let reply, let result): reply.resume(result)
        }
    }
}

/// In which order a lane does the jobs that wait for it, and which reads go out together.
///
/// A read joins the reads before it, past the writes in between, unless one of these has its placement: so the operations
/// of one session keep their order, and reads of many sessions share a round trip however many writes are among them.
struct MemcachedPlan {
    enum Step: Equatable {
        /// The jobs with these numbers read together.
        case reads([Int])
        /// The job with this number writes.
        case write(Int)
    }

    private(set) var steps: [Step] = []
    /// The last step of reads, and how many keys it reads.
    private var reads: (step: Int, keys: Int)?
    /// The placements that are written after that step.
    private var written: Set<Int> = []
    private let keysOfRead: Int

    /// - Parameter keysOfRead: how many keys are read together at most, but for a single job with more.
    init(keysOfRead: Int) {
        self.keysOfRead = keysOfRead
    }

    mutating func addRead(_ job: Int, placement: Int, keys: Int) {
        if let last = reads, last.keys + keys <= keysOfRead, !written.contains(placement),
            case .reads(var jobs) = steps[last.step]
        {
            steps[last.step] = .reads([])  // So that the array is not copied.
            jobs.append(job)
            steps[last.step] = .reads(jobs)
            reads = (last.step, last.keys + keys)
        } else {
            reads = (steps.count, keys)
            steps.append(.reads([job]))
            written.removeAll(keepingCapacity: true)
        }
    }

    mutating func addWrite(_ job: Int, placement: Int) {
        steps.append(.write(job))
        written.insert(placement)
    }

}
