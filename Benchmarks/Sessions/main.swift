import Dispatch
import HTTPTypes
import Limpet
import Logging

/// What a session costs a request, without a server around it.
///
/// `BenchmarkSessions read|shared|commit|none|lock COUNT`: a sticky read of one attribute, the same beside other readers, a dirty
/// commit to the store in memory, a request without a cookie, or nothing but the entering and leaving of a session that nobody else
/// is in; prints nanoseconds a request. Under callgrind or memcheck, the difference between two counts is what the requests between
/// them cost.
///
/// `BenchmarkSessions page COUNT`: so many pages, each of 50 requests at once with handlers of a millisecond.
extension SessionKey<Int> {
    static var visits: Self { Self("visits") }
}

struct Answer {
    var fields: HTTPFields = [:]
}

let arguments = CommandLine.arguments
let kinds = ["read", "shared", "commit", "none", "lock", "page"]
guard arguments.count == 3, let count = Int(arguments[2]), kinds.contains(arguments[1]) else {
    fatalError("usage: BenchmarkSessions \(kinds.joined(separator: "|")) COUNT")
}

@concurrent func measure() async throws {
    var configuration = SessionConfiguration()
    // One poll, before anything is measured, has to do: the node does not run, so that nothing else is counted.
    configuration.peerPoll = .seconds(60)
    let sessions = try SessionManager(
        store: MemoryStore(), configuration: configuration, logger: Logger(label: "benchmark"))
    let created = try await sessions.withSession([:], \Answer.fields) { session in
        session[.visits] = 1
        return Answer()
    }
    // What a browser sends beside the cookie.
    var fields: HTTPFields = [
        .userAgent: "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0", .accept: "text/html",
        .acceptLanguage: "en", .acceptEncoding: "gzip, deflate, br",
    ]
    guard let cookie = created.fields[.setCookie]?.split(separator: ";").first else { fatalError("no cookie") }
    fields[.cookie] = "theme=dark; \(cookie)"
    // Trusted from the first poll on, for two of its intervals.
    await sessions.poll()
    switch arguments[1] {
    case "none": fields[.cookie] = nil
    case "page": return try await measurePages(sessions, fields)
    case "lock": return measureLock()
    case "shared": return try await measureShared(sessions, fields)
    default: break
    }
    let isCommit = arguments[1] == "commit"
    let start = ContinuousClock.now
    for _ in 0..<count {
        let answer = try await sessions.withSession(fields, \Answer.fields) { session in
            if isCommit {
                session[.visits, default: 0] += 1
            } else {
                precondition(session[.visits] != 2)
            }
            return Answer()
        }
        precondition(answer.fields.isEmpty)
    }
    report(ContinuousClock.now - start)
    precondition(isCommit || arguments[1] == "none" || sessions.statistics.localHits == count)
}

@concurrent func measureShared(_ sessions: SessionManager, _ fields: HTTPFields) async throws {
    let start = ContinuousClock.now
    for _ in 0..<count {
        let answer = try await sessions.withReadOnlySession(fields, \Answer.fields) { session in
            precondition(session[.visits] == 1)
            return Answer()
        }
        precondition(answer.fields.isEmpty)
    }
    report(ContinuousClock.now - start)
    precondition(sessions.statistics.localHits == count)
}

func measureLock() {
    let locks = SessionLocks(SessionConfiguration().lock, clock: SystemClock(), statistics: SessionStatistics())
    let id = SessionID()
    let start = ContinuousClock.now
    for _ in 0..<count { precondition(locks.tryEnter(id) != nil) }
    report(ContinuousClock.now - start)
    precondition(locks.enteredCount == 0)
}

func report(_ elapsed: Duration) {
    print("\(arguments[1]): \(Int(elapsed / .nanoseconds(1)) / count) ns a request")
}

/// What a request of a page does with the session.
struct PageRequest: Sendable {
    var access: SessionAccess
    /// Whose time is reported.
    var isMeasured: Bool
}

/// 45 requests that need little of a session, and five that write it: how long the 45 take.
@concurrent func measurePages(_ sessions: SessionManager, _ fields: HTTPFields) async throws {
    func page(_ name: String, _ access: SessionAccess, writers: Int) async throws {
        var requests = (0..<45).map { _ in PageRequest(access: access, isMeasured: true) }
        // Spread over the page.
        for writer in 0..<writers {
            requests.insert(PageRequest(access: .write, isMeasured: false), at: writer * 10 + 5)
        }
        var times: [Duration] = []
        for _ in 0..<count {
            try await withThrowingTaskGroup(of: Duration?.self) { group in
                let start = ContinuousClock.now
                for request in requests {
                    group.addTask {
                        try await run(request.access)
                        return request.isMeasured ? ContinuousClock.now - start : nil
                    }
                }
                for try await time in group where time != nil { times.append(time ?? .zero) }
            }
        }
        times.sort()
        let text = [times[times.count / 2], times[times.count * 99 / 100]].map { time in
            "\((time / .microseconds(100)).rounded() / 10) ms"
        }
        print(
            "page, 45 × \(name)\(writers > 0 ? " beside \(writers) that write" : ""): median \(text[0]), 99 % \(text[1])"
        )
    }
    @Sendable func run(_ access: SessionAccess) async throws {
        switch access {
        case .none:
            try await Task.sleep(for: .milliseconds(1))
        case .read:
            _ = try await sessions.withReadOnlySession(fields, \Answer.fields) { session in
                precondition(session[.visits] != nil)
                try await Task.sleep(for: .milliseconds(1))
                return Answer()
            }
        case .write:
            _ = try await sessions.withSession(fields, \Answer.fields) { session in
                session[.visits, default: 0] += 1
                try await Task.sleep(for: .milliseconds(1))
                return Answer()
            }
        }
    }
    for writers in [0, 5] {
        try await page("none", .none, writers: writers)
        try await page("read", .read, writers: writers)
        try await page("write", .write, writers: writers)
    }
}

// valgrind 3.19 does not survive a main thread that waits for tasks as Swift lets it: by its end.
let isDone = DispatchSemaphore(value: 0)
Task.detached {
    do { try await measure() } catch { fatalError("\(error)") }
    isDone.signal()
}
isDone.wait()
