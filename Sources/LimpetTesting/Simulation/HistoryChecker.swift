/// What a history shows to be broken.
package struct Violation: Sendable, CustomStringConvertible {
    /// What must always hold.
    package enum Point: Int, Sendable, CaseIterable {
        /// What was acknowledged is there.
        case acknowledged = 1
        /// No answer is older than what its client has seen or written, nor older than promised to anybody.
        case fresh
        /// Each session is linearizable.
        case linearizable
        /// Writes to different attributes do not overwrite each other.
        case attributes
        /// A session that ended does not come back.
        case ended
        /// `created` and `destroyed` are told once.
        case events
        /// Keys do not outlive their session.
        case keys
        /// What the client was told not to be stored is not.
        case refused
        /// The cluster answers, in the end.
        case progress
        /// A request without its session fails with an error that says so, and may be tried again.
        case failures
    }

    package let point: Point
    package let message: String
    /// The numbers of the requests that show it.
    package let operations: [Int]

    package init(_ point: Point, _ message: String, operations: [Int]) {
        self.point = point
        self.message = message
        self.operations = operations
    }

    package var description: String {
        "\(point): \(message)" + (operations.isEmpty ? "" : " (\(operations.map { "#\($0)" }.joined(separator: ", ")))")
    }
}

/// What a history shows.
package struct Verdict: Sendable {
    package var violations: [Violation] = []
    package var excuses: [Excuse: Int] = [:]
    package init() {}

    mutating func excuse(_ excuse: Excuse) { excuses[excuse, default: 0] += 1 }
}

/// Judges a history by what must always hold, whatever the schedule and the faults, from what clients asked and were told
/// alone.
///
/// A session is one whole with all its ids. Values are unique, so that a read tells which write it saw. A write whose outcome
/// is unknown may have happened at any moment until its node was done with it; or later, as a message on its way, but never
/// over a change that began after that: a conditional write fences it.
package struct HistoryChecker {
    let history: History
    let bounds: History.Bounds
    var verdict = Verdict()
    /// The ids of each session, by all of its ids.
    let sessions: SessionIndex
    let seen: SeenValues

    package static func check(_ history: History) -> Verdict {
        var checker = HistoryChecker(
            history: history, bounds: history.bounds, sessions: SessionIndex(history), seen: SeenValues(history))
        for session in checker.sessions.all {
            if session.operations.contains(where: { checker.mayBeUndoneRename($0, session) }) {
                // Its old id and its new one may be two sessions by now.
                checker.verdict.excuse(.movedBeforeLoss)
                continue
            }
            checker.checkReads(session)
            checker.checkPresence(session)
            checker.checkEvents(session)
            if history.bounds.isLinearizable, !checker.mayHaveUndone(session) { checker.checkOrder(session) }
        }
        checker.checkKeys()
        checker.checkProgress()
        checker.checkFailures()
        return checker.verdict
    }

    mutating func violation(_ point: Violation.Point, _ message: String, _ operations: Int...) {
        verdict.violations.append(Violation(point, message, operations: operations))
    }

    subscript(number: Int) -> History.Operation { history.operations[number] }
}

/// When clients first had an answer with a value.
struct SeenValues {
    private struct Value: Hashable {
        let jar: Int
        let attribute: String
        let value: Int
    }

    private var answered: [Value: VirtualTime] = [:]

    init(_ history: History) {
        for operation in history.operations where operation.outcome == .answered {
            for (attribute, value) in operation.read {
                let key = Value(jar: operation.jar, attribute: attribute, value: value)
                answered[key] = min(answered[key] ?? .never, operation.answered)
            }
        }
    }

    subscript(jar: Int, attribute: String, value: Int) -> VirtualTime? {
        answered[Value(jar: jar, attribute: attribute, value: value)]
    }
}

/// Which requests were in which session.
struct SessionIndex {
    struct Session {
        var ids: [String]
        /// The request that made it.
        var creation: Int?
        /// All requests that brought one of its ids, and the one that made it.
        var operations: [Int]
        /// When an id was given up for another one, with the request that did it.
        var renamed: [String: Int]
    }

    private(set) var all: [Session] = []

    init(_ history: History) {
        var sessionOf: [String: Int] = [:]
        for (number, operation) in history.operations.enumerated() {
            if let given = operation.given, sessionOf[given] == nil {
                if operation.rotates, operation.found, let old = operation.presented, let session = sessionOf[old] {
                    sessionOf[given] = session
                    all[session].ids.append(given)
                    // Twice only if the first was undone.
                    all[session].renamed[old] = all[session].renamed[old] ?? number
                } else {
                    sessionOf[given] = all.count
                    all.append(Session(ids: [given], creation: number, operations: [number], renamed: [:]))
                }
            }
        }
        for (number, operation) in history.operations.enumerated() {
            guard let id = operation.presented, let session = sessionOf[id] else { continue }
            all[session].operations.append(number)
        }
        for index in all.indices { all[index].operations.sort() }
    }
}

// MARK: Reads

extension HistoryChecker {
    /// Requests whose changes may be in the session.
    private func writers(_ session: SessionIndex.Session) -> [Int] {
        session.operations.filter { number in
            let operation = self[number]
            guard !operation.writes.isEmpty, operation.outcome == .answered else { return !operation.writes.isEmpty }
            // Of a session that had ended before it could be written to, the client was told so.
            return session.creation == number || operation.found && !operation.expiredCookie
        }
    }

    /// 1, 2, 4: what a request read was never older than what had to be there.
    mutating func checkReads(_ session: SessionIndex.Session) {
        let writers = writers(session)
        let attributes = Set(writers.flatMap { self[$0].writes.map(\.attribute) }).sorted()
        for reader in session.operations where self[reader].outcome == .answered && self[reader].found {
            for attribute in attributes { checkRead(of: attribute, by: reader, writers: writers, session) }
        }
    }

    private func value(_ attribute: String, of number: Int) -> Int?? {
        self[number].writes.last { $0.attribute == attribute }.map(\.value)
    }

    private mutating func checkRead(
        of attribute: String, by reader: Int, writers: [Int], _ session: SessionIndex.Session
    ) {
        let read = self[reader]
        let value = read.read[attribute]
        let here = writers.filter { self.value(attribute, of: $0) != nil }
        // Where the value may come from: `nil` is the beginning.
        var sources: [Int?] = here.filter { self.value(attribute, of: $0) == .some(value) && $0 != reader }
        if value == nil { sources.append(nil) }
        guard !sources.isEmpty else {
            return violation(.attributes, "\(attribute) has a value that nobody wrote", reader)
        }
        var newer: Int?
        let isRight = sources.contains { source in
            if let source {
                let write = self[source]
                guard write.invoked < read.answered else { return false }
                guard write.outcome != .refused else {
                    newer = nil
                    return false
                }
                if let renamed = read.presented.flatMap({ session.renamed[$0] }), write.invoked > self[renamed].finished
                {
                    newer = nil
                    return false
                }
            }
            newer = here.first { isOverwritten(source, by: $0, for: reader, attribute, session) }
            return newer == nil
        }
        guard !isRight else {
            if here.contains(where: { isKeptUnderOldID($0, session) }) { verdict.excuse(.withoutStore) }
            return
        }
        if isWithoutStore(session, at: read.invoked) || isWithoutStore(session, at: read.answered) {
            guard isLocal(reader, session),
                let known = here.first(where: { other in
                    sources.allSatisfy { isOlder($0, than: other) } && isKnown(other, to: reader, attribute)
                })
            else { return verdict.excuse(.withoutStore) }
            return violation(
                .fresh, "\(attribute) is older than what this client has seen, while nobody had the store", known,
                reader)
        }
        guard let newer else {
            return violation(
                .refused, "\(attribute) has a value that was refused, not written yet, or written under another id",
                reader)
        }
        let isOwn = self[newer].jar == read.jar
        let sourceText = value.map(String.init) ?? "nothing"
        violation(
            isOwn ? .fresh : .acknowledged,
            "\(attribute) is \(sourceText), though \(self.value(attribute, of: newer).flatMap(\.self).map(String.init) ?? "nothing") "
                + "was \(isOwn ? "written or seen by this client" : "acknowledged")", newer, reader)
    }

    /// Whether a value of one write cannot be read any more, because of another.
    private func isOverwritten(
        _ source: Int?, by other: Int, for reader: Int, _ attribute: String, _ session: SessionIndex.Session
    ) -> Bool {
        guard other != source, other != reader else { return false }
        let (write, read) = (self[other], self[reader])
        guard !mayBeUndone(other, session, before: read.answered), !isKeptUnderOldID(other, session) else {
            return false
        }
        if let source {
            // The other one began when this one was over, whatever had become of it.
            guard write.invoked > delivered(source, session) else { return false }
        }
        // An old id reads the session as it was before it was given up, and nothing that came later.
        var moment = read.invoked
        if let renamed = read.presented.flatMap({ session.renamed[$0] }) { moment = min(moment, self[renamed].invoked) }
        let isKnown = isKnown(other, to: reader, attribute) && moment == read.invoked
        if write.outcome == .answered {
            let bound = bounds.isLinearizable || isKnown ? VirtualTime.zero : bounds.staleness
            if write.answered + bound <= moment { return true }
        }
        return isKnown && write.outcome != .refused
    }

    /// Whether a write was over before another one began.
    private func isOlder(_ source: Int?, than other: Int) -> Bool {
        source.map { $0 != other && self[$0].finished < self[other].invoked } ?? true
    }

    /// Whether the reader's client has seen a write, or the answer to its own, before it asked.
    private func isKnown(_ write: Int, to reader: Int, _ attribute: String) -> Bool {
        let read = self[reader]
        guard read.jarIsSequential else { return false }
        if self[write].jar == read.jar, self[write].outcome == .answered, self[write].answered <= read.invoked {
            return true
        }
        guard let value = self.value(attribute, of: write).flatMap(\.self) else { return false }
        return seen[read.jar, attribute, value].map { $0 <= read.invoked } ?? false
    }
}

// MARK: Presence

extension HistoryChecker {
    /// Whether a request may have ended the session, or taken its id, as far as anybody knows.
    func mayEnd(_ number: Int) -> Bool {
        let operation = self[number]
        guard operation.invalidates || operation.rotates else { return false }
        return operation.outcome != .answered || operation.invalidates || operation.given != nil
    }

    /// 1, 5: a session is there until it is ended, and not after.
    mutating func checkPresence(_ session: SessionIndex.Session) {
        for reader in session.operations where self[reader].outcome == .answered && reader != session.creation {
            if self[reader].found { checkFound(reader, session) } else { checkMissing(reader, session) }
        }
    }

    /// Whether a request brought an id that another request gave up, before it was answered.
    func readsPast(_ number: Int, _ session: SessionIndex.Session) -> Bool {
        guard let renamed = self[number].presented.flatMap({ session.renamed[$0] }), renamed != number else {
            return false
        }
        return self[number].answered > self[renamed].invoked
    }

    /// Whether an id may have been given up by a request that nobody knows the outcome of.
    private func mayBeOldID(_ id: String?, _ session: SessionIndex.Session) -> Bool {
        session.operations.contains { number in
            self[number].rotates && self[number].outcome != .answered && self[number].presented == id
        }
    }

    private mutating func checkFound(_ reader: Int, _ session: SessionIndex.Session) {
        let read = self[reader]
        if readsPast(reader, session), let renamed = read.presented.flatMap({ session.renamed[$0] }) {
            verdict.excuse(.oldID)
            if read.invoked > self[renamed].finished + bounds.oldID {
                violation(.ended, "an id that was given up reads the session", renamed, reader)
            }
            return
        }
        if isWithoutStore(session, at: read.invoked) { return verdict.excuse(.withoutStore) }
        for number in session.operations where number != reader {
            let other = self[number]
            guard other.outcome == .answered else { continue }
            let isKnown = other.jar == read.jar && read.jarIsSequential
            let bound = bounds.isLinearizable || isKnown ? VirtualTime.zero : bounds.staleness
            guard other.answered + bound <= read.invoked else { continue }
            if other.invalidates, other.found {
                if mayBeUndone(number, session, before: read.answered) {
                    verdict.excuse(.movedBeforeLoss)
                    continue
                }
                return violation(.ended, "the session is back, after it was invalidated", number, reader)
            }
            guard !other.found, other.presented == read.presented, number != session.creation, isKnown else { continue }
            guard let excuse = mayBeBack(reader, after: number, session) else {
                return violation(.ended, "the session is back, after it was not there", number, reader)
            }
            verdict.excuse(excuse)
        }
        for clear in history.clears where clear.answered + bounds.watch <= read.invoked {
            guard let creation = session.creation, self[creation].finished <= clear.invoked else { continue }
            return violation(.ended, "the session is there, after all were ended at \(clear.answered)", reader)
        }
        let last = session.operations.filter { $0 < reader }.map { touched($0, before: read.invoked) }.max() ?? .zero
        // A foreign judge allows for a clock behind its own, and the time that it judges may be of one ahead.
        let limit =
            longestLimit(session) + bounds.saveInterval + bounds.slack + bounds.slack + bounds.clockSteps + .seconds(3)
        if last + limit < read.invoked {
            violation(.ended, "the session is there, after it expired at \(last + limit)", reader)
        }
    }

    /// Why a client that was told that there is no session may find it after that.
    private func mayBeBack(_ reader: Int, after other: Int, _ session: SessionIndex.Session) -> Excuse? {
        let (read, missed) = (self[reader], self[other])
        if history.clears.contains(where: {
            $0.invoked <= missed.answered && read.invoked <= $0.answered + bounds.watch
        }) {
            return .justCleared
        }
        if isForgottenTwice(session, before: missed.answered) { return .forgottenTwice }
        let ends = session.operations.filter { mayEnd($0) && self[$0].invoked < missed.answered }
        if ends.contains(where: { mayBeUndone($0, session, before: read.answered) }) { return .movedBeforeLoss }
        // Nodes count the last seconds of an old id by their own clocks.
        return mayBeOldID(read.presented, session) ? .endUnknown : nil
    }

    /// The latest moment at which a request can have renewed the session.
    func touched(_ number: Int, before time: VirtualTime) -> VirtualTime {
        min(self[number].finished, time)
    }

    private mutating func checkMissing(_ reader: Int, _ session: SessionIndex.Session) {
        let read = self[reader]
        if read.given != nil, read.given == read.presented, !read.writes.isEmpty {
            return violation(.ended, "a new session has the id that the client brought", reader)
        }
        for number in session.operations where number != reader && mayEnd(number) {
            guard self[number].invoked < read.answered else { continue }
            if self[number].outcome != .answered { verdict.excuse(.endUnknown) }
            return
        }
        if history.clears.contains(where: { $0.invoked < read.answered }) { return }
        if isWithoutStore(session, at: read.invoked) { return verdict.excuse(.withoutStore) }
        if losses(session).contains(where: { $0.time < read.answered && hasMoved(session, before: $0) }) {
            return verdict.excuse(.movedBeforeLoss)
        }
        if isForgottenTwice(session, before: read.answered) { return verdict.excuse(.forgottenTwice) }
        if homeAndStoreDied(session, before: read.answered) { return verdict.excuse(.homeAndStoreDied) }
        let last = session.operations.filter { number in
            let operation = self[number]
            return operation.outcome == .answered && (operation.found || number == session.creation)
                && operation.answered <= read.invoked
        }.max { self[$0].invoked < self[$1].invoked }
        guard let last else { return }
        let expiry = self[last].invoked + shortestLimit(session, before: read.answered)
        // A request that was answered from an old copy has not renewed the session; the one that made it old has.
        if read.answered + bounds.clockSteps + bounds.watch < expiry {
            violation(.acknowledged, "the session is gone, though nobody ended it", last, reader)
        }
    }

    private func limits(_ session: SessionIndex.Session, before time: VirtualTime) -> [VirtualTime] {
        [bounds.maxInactive]
            + session.operations.filter { self[$0].invoked < time }.compactMap { self[$0].limit }
            .map { .seconds(Double($0)) }
    }

    func longestLimit(_ session: SessionIndex.Session) -> VirtualTime {
        limits(session, before: .never).max() ?? bounds.maxInactive
    }

    private func shortestLimit(_ session: SessionIndex.Session, before time: VirtualTime) -> VirtualTime {
        limits(session, before: time).min() ?? bounds.maxInactive
    }
}
