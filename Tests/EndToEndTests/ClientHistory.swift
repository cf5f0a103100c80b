import LimpetTesting

/// What clients of real nodes asked and were told, for the checker that judges simulations too.
///
/// A request of a real client sees one attribute at most, and the checker takes what was read for the whole session. So it gets the
/// history in parts: one part with the ids alone, which tells whether each session was there when it had to be, and one for each
/// attribute of each session.
struct ClientHistory {
    var requests: [ClientRequest]
    /// When a node was dead: what it had begun before was done by then, or never will be.
    var crashes: [(node: String, time: UInt64)] = []
    /// Every answer has to be as of the moment it was given, whoever asks.
    var isLinearizable = false
    /// How long after the acknowledgement of a change another client may be told what was before: a copy is trusted for
    /// two polls after the beginning of the last poll that succeeded.
    var staleness = Duration.milliseconds(500)

    /// What is broken, each with the requests that show it.
    func violations() -> [String] {
        // Who asked and learnt nothing shows nothing, and there are thousands of them while the store is gone.
        let sorted = requests.filter { request in
            request.isAnswered || ![.read, .session].contains(request.kind) || request.client >= Self.final
        }.sorted { $0.begin < $1.begin }
        let unexpected = requests.filter { ![200, 204, 404, 503, nil].contains($0.status) }
        let jars = Dictionary(grouping: sorted, by: \.jar).mapValues { Set($0.map { $0.client % Self.final }).count }
        var first: [String: String] = [:]
        for request in sorted where request.kind == .login && request.isNew == false {
            guard let old = request.presented, let new = request.given else { continue }
            first[new] = first[old] ?? old
        }
        var violations = unexpected.map { "an answer that nobody expects: \($0.text)" }
        for requests in Dictionary(grouping: sorted, by: \.session).sorted(by: { $0.key < $1.key }).map(\.value) {
            violations += check(requests.map { ($0, presence($0, jars)) })
            for attribute in Set(requests.compactMap(\.attribute)).sorted() {
                violations += check(
                    requests.compactMap { request in
                        part(request, attribute, jars, first).map { (request, $0) }
                    })
            }
        }
        return violations
    }

    /// What is added to a client's number for the one that reads its session in the end: the checker insists on an answer.
    private static let final = 100

    private func check(_ requests: [(request: ClientRequest, operation: History.Operation)]) -> [String] {
        var history = History()
        history.operations = requests.map(\.operation)
        history.crashes = crashes.map { ($0.node, VirtualTime(nanoseconds: $0.time)) }
        history.end = history.operations.map(\.answered).max() ?? .zero
        history.bounds.isLinearizable = isLinearizable
        history.bounds.staleness = isLinearizable ? .zero : .milliseconds(staleness / .milliseconds(1))
        // Real nodes tell their events to nobody.
        return HistoryChecker.check(history).violations.filter { $0.point != .events }.map { violation in
            let shown = violation.operations.map { "\n    " + requests[$0].request.text }.joined()
            return "\(violation.point): \(violation.message)\(shown)"
        }
    }

    /// A request by what it tells about the session, whatever is in it.
    private func presence(_ request: ClientRequest, _ jars: [Int: Int]) -> History.Operation {
        var operation = History.Operation()
        operation.client = request.client
        operation.jar = request.jar
        operation.jarIsSequential = jars[request.jar] == 1
        operation.node = request.node
        operation.invoked = VirtualTime(nanoseconds: request.begin)
        operation.answered = VirtualTime(nanoseconds: request.end)
        operation.outcome = request.isAnswered ? .answered : .unknown
        if request.status != nil {
            operation.finished = operation.answered
        } else if let crash = crashes.filter({ $0.node == request.node && $0.time >= request.begin }).map(\.time).min()
        {
            operation.finished = VirtualTime(nanoseconds: crash)
        }
        operation.presented = request.presented
        // The answer to a log-out has no body.
        operation.found = request.kind == .logout ? request.presented != nil : request.isNew == false
        operation.invalidates = request.kind == .logout
        operation.rotates = request.kind == .login
        operation.given = request.given
        operation.expiredCookie = request.expires ?? false
        return operation
    }

    /// A request by what it tells about one attribute; `nil` if that is nothing.
    private func part(
        _ request: ClientRequest, _ attribute: String, _ jars: [Int: Int], _ first: [String: String]
    ) -> History.Operation? {
        let isAbout = request.attribute == attribute
        var operation = presence(request, jars)
        // An id that was changed is still the session's.
        operation.presented = operation.presented.map { first[$0] ?? $0 }
        if request.kind == .write, request.given != nil, request.isNew == true {
            // It made the session, whatever it had asked for.
            operation.presented = nil
        } else {
            guard isAbout, operation.found || request.kind == .write && !request.isAnswered else { return nil }
            operation.given = nil
        }
        guard isAbout else { return operation }
        if operation.found { operation.read[attribute] = request.found }
        if request.kind == .write { operation.writes = [History.Write(attribute, request.value)] }
        return operation
    }
}

extension ClientRequest {
    /// Everything about a request but its ids.
    fileprivate var text: String {
        let what = [kind.rawValue, attribute, value.map(String.init)].compactMap(\.self).joined(separator: " ")
        let answer = status.map { "\($0)" + (found.map { ", found \($0)" } ?? "") } ?? "no answer"
        let cookie = presented == nil ? "without a cookie" : isNew == true ? "no session" : ""
        return "\(begin / 1000) to \(end / 1000) µs: client \(client) on \(node): \(what) → \(answer) \(cookie)"
    }
}
