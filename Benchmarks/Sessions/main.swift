import Dispatch
import HTTPTypes
import Limpet
import Logging

/// What a session costs a request, without a server around it.
///
/// `BenchmarkSessions read|commit|none COUNT`: a sticky read of one attribute, a dirty commit to the store in memory, or a
/// request without a cookie; prints nanoseconds a request. Under callgrind or memcheck, the difference between two counts is
/// what the requests between them cost.
extension SessionKey<Int> {
    static var visits: Self { Self("visits") }
}

struct Answer {
    var fields: HTTPFields = [:]
}

let arguments = CommandLine.arguments
guard arguments.count == 3, let count = Int(arguments[2]), ["read", "commit", "none"].contains(arguments[1]) else {
    fatalError("usage: BenchmarkSessions read|commit|none COUNT")
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
    if arguments[1] == "none" { fields[.cookie] = nil }
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
    let elapsed = ContinuousClock.now - start
    print("\(arguments[1]): \(Int(elapsed / .nanoseconds(1)) / count) ns a request")
    precondition(isCommit || arguments[1] == "none" || sessions.statistics.localHits == count)
}

// valgrind 3.19 does not survive a main thread that waits for tasks as Swift lets it: by its end.
let isDone = DispatchSemaphore(value: 0)
Task.detached {
    do { try await measure() } catch { fatalError("\(error)") }
    isDone.signal()
}
isDone.wait()
