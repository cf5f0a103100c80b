import LimpetTesting
import Testing

/// Histories by hand: each shows one thing that must not be, or one that may.
struct HistoryCheckerTests {
    /// A history of one session, `s`, in which requests take a tenth of a second.
    private struct Story {
        var history = History()

        init(isLinearizable: Bool = false, staleness: Double = 0.5) {
            history.bounds.isLinearizable = isLinearizable
            history.bounds.staleness = .seconds(staleness)
            request(client: 0, at: 0, presented: nil, writes: [History.Write("x", 1)], given: "s")
            history.events.append(.init(time: .seconds(0.05), node: "a", kind: .created, id: "s"))
        }

        @discardableResult
        mutating func request(
            client: Int = 0, at time: Double, lasting: Double = 0.1, node: String = "a", presented: String? = "s",
            reads: [String: Int]? = nil, writes: [History.Write] = [], given: String? = nil,
            outcome: History.Outcome = .answered, _ change: (inout History.Operation) -> Void = { _ in }
        ) -> Int {
            var operation = History.Operation()
            operation.client = client
            operation.jar = client
            operation.node = node
            operation.invoked = .seconds(time)
            operation.answered = .seconds(time + lasting)
            operation.finished = .seconds(time + lasting)
            operation.outcome = outcome
            operation.presented = presented
            operation.found = reads != nil
            operation.read = reads ?? [:]
            operation.writes = writes
            operation.given = given
            change(&operation)
            history.operations.append(operation)
            return history.operations.count - 1
        }

        mutating func tell(_ kind: History.Event.Kind, at time: Double, id: String = "s") {
            history.events.append(.init(time: .seconds(time), node: "a", kind: kind, id: id))
        }

        var verdict: Verdict { HistoryChecker.check(history) }
        var points: Set<Violation.Point> { Set(verdict.violations.map(\.point)) }
    }

    @Test func `a client that reads what was written breaks nothing`() {
        var story = Story()
        story.request(at: 1, reads: ["x": 1], writes: [History.Write("x", 2)])
        story.request(client: 1, at: 2, node: "b", reads: ["x": 2])
        #expect(story.points.isEmpty)
    }

    @Test func `1: what was acknowledged to one client is missed when another reads much later`() {
        var story = Story()
        story.request(at: 1, reads: ["x": 1], writes: [History.Write("x", 2)])
        story.request(client: 1, at: 2, node: "b", reads: ["x": 1])
        #expect(story.points == [.acknowledged])
    }

    @Test func `1: a session that nobody ended must not be gone`() {
        var story = Story()
        story.request(client: 1, at: 2, node: "b")
        #expect(story.points == [.acknowledged])
    }

    @Test func `1: a session may be gone once its time is over`() {
        var story = Story()
        story.history.bounds.maxInactive = .seconds(5)
        story.request(client: 1, at: 6, node: "b")
        #expect(story.points.isEmpty)
    }

    @Test func `2: a client does not read what is older than what it wrote`() {
        var story = Story()
        story.request(at: 1, reads: ["x": 1], writes: [History.Write("x", 2)])
        story.request(at: 1.2, node: "b", reads: ["x": 1])
        #expect(story.points == [.fresh])
    }

    @Test func `2: nor what is older than what it has seen of others`() {
        var story = Story()
        story.request(at: 1, reads: ["x": 1], writes: [History.Write("x", 2)])
        story.request(client: 1, at: 1.2, node: "b", reads: ["x": 2])
        story.request(client: 1, at: 1.4, reads: ["x": 1])
        #expect(story.points == [.acknowledged])
    }

    @Test func `2: others may read what is older, for as long as is promised`() {
        var story = Story()
        story.request(at: 1, reads: ["x": 1], writes: [History.Write("x", 2)])
        story.request(client: 1, at: 1.3, node: "b", reads: ["x": 1])
        #expect(story.points.isEmpty)
    }

    @Test func `2: tabs that share their cookies and do not wait for each other may, too`() {
        var story = Story()
        story.request(at: 1, reads: ["x": 1], writes: [History.Write("x", 2)]) { $0.jarIsSequential = false }
        story.request(at: 1.3, node: "b", reads: ["x": 1]) { $0.jarIsSequential = false }
        #expect(story.points.isEmpty)
    }

    @Test func `3: two readers do not see two writes in different orders`() {
        var story = Story(isLinearizable: true)
        story.request(client: 0, at: 1, lasting: 9, reads: ["x": 1], writes: [History.Write("x", 2)])
        story.request(client: 1, at: 1, lasting: 9, reads: ["x": 1], writes: [History.Write("x", 3)])
        story.request(client: 2, at: 2, reads: ["x": 2])
        story.request(client: 2, at: 3, reads: ["x": 3])
        #expect(story.points.isEmpty)
        story.request(client: 3, at: 4, reads: ["x": 2])
        #expect(story.points == [.linearizable])
    }

    @Test func `3: a read between a write and its answer may see it, and then nobody may miss it`() {
        var story = Story(isLinearizable: true)
        story.request(client: 0, at: 1, lasting: 2, reads: ["x": 1], writes: [History.Write("x", 2)])
        story.request(client: 1, at: 1.5, reads: ["x": 2])
        #expect(story.points.isEmpty)
        story.request(client: 2, at: 1.8, reads: ["x": 1])
        #expect(story.points == [.linearizable])
    }

    @Test func `3: a write whose outcome nobody knows may have happened, and may not`() {
        var seen = Story(isLinearizable: true)
        seen.request(at: 1, writes: [History.Write("x", 2)], outcome: .unknown)
        seen.request(client: 1, at: 2, reads: ["x": 2])
        #expect(seen.points.isEmpty)
        var unseen = Story(isLinearizable: true)
        unseen.request(at: 1, writes: [History.Write("x", 2)], outcome: .unknown)
        unseen.request(client: 1, at: 2, reads: ["x": 1])
        #expect(unseen.points.isEmpty)
    }

    @Test func `3: a session is read as a whole`() {
        var story = Story(isLinearizable: true)
        story.request(
            client: 0, at: 1, lasting: 9, reads: ["x": 1],
            writes: [History.Write("x", 2), History.Write("y", 3)])
        story.request(client: 1, at: 2, reads: ["x": 2])
        #expect(story.points == [.linearizable])
    }

    @Test func `4: a write to one attribute does not take another away`() {
        var story = Story()
        story.request(client: 1, at: 1, node: "b", reads: ["x": 1], writes: [History.Write("y", 2)])
        story.request(client: 0, at: 2, reads: ["x": 1, "y": 2], writes: [History.Write("x", 3)])
        story.request(client: 1, at: 4, node: "b", reads: ["x": 3])
        #expect(story.points == [.fresh])
    }

    @Test func `4: nobody reads what nobody wrote`() {
        var story = Story()
        story.request(at: 1, reads: ["x": 7])
        #expect(story.points == [.attributes])
    }

    @Test func `4: a late message does not undo what was changed since`() {
        var story = Story()
        story.request(at: 1, reads: ["x": 1], writes: [History.Write("x", 2)], outcome: .unknown)
        story.request(at: 2, reads: ["x": 1], writes: [History.Write("x", 3)])
        story.request(client: 1, at: 4, reads: ["x": 2])
        #expect(story.points == [.acknowledged])
    }

    @Test func `5: a session does not come back`() {
        var story = Story()
        story.request(at: 1, reads: ["x": 1]) { $0.invalidates = true }
        story.tell(.invalidated, at: 1.05)
        story.request(client: 1, at: 1.3, node: "b", reads: ["x": 1])
        #expect(story.points.isEmpty)
        story.request(client: 1, at: 3, node: "b", reads: ["x": 1])
        #expect(story.points == [.ended])
    }

    @Test func `5: a client that was told so does not find it again`() {
        var story = Story()
        story.request(client: 1, at: 1, reads: ["x": 1]) { $0.invalidates = true }
        story.tell(.invalidated, at: 1.05)
        story.request(at: 1.2)
        story.request(at: 1.4, node: "b", reads: ["x": 1])
        #expect(story.points == [.ended])
    }

    @Test func `5: a session that has expired is not found again`() {
        var story = Story()
        story.history.bounds.maxInactive = .seconds(5)
        story.request(client: 1, at: 90, reads: ["x": 1])
        #expect(story.points == [.ended])
    }

    @Test func `5: all sessions end at once`() {
        var story = Story()
        story.history.clears = [.init(invoked: .seconds(1), answered: .seconds(1.1))]
        story.request(client: 1, at: 1.5, reads: ["x": 1])
        #expect(story.points.isEmpty)
        story.request(client: 1, at: 3, reads: ["x": 1])
        #expect(story.points == [.ended])
    }

    @Test func `5: an id that was given up reads what was, for a while, and nothing that came after`() {
        var story = Story()
        story.request(at: 1, reads: ["x": 1], given: "t") { $0.rotates = true }
        story.request(at: 2, presented: "t", reads: ["x": 1], writes: [History.Write("x", 2)])
        story.request(client: 1, at: 4, reads: ["x": 1])
        #expect(story.points.isEmpty)
        story.request(client: 1, at: 5, reads: ["x": 2])
        #expect(story.points == [.refused])
    }

    @Test func `5: an id that was given up leads nowhere in the end`() {
        var story = Story()
        story.request(at: 1, reads: ["x": 1], given: "t") { $0.rotates = true }
        story.request(client: 1, at: 60, reads: ["x": 1])
        #expect(story.points == [.ended])
    }

    @Test func `5: an id that a client brought is not made anew`() {
        var story = Story()
        story.request(at: 1, reads: ["x": 1]) { $0.invalidates = true }
        story.tell(.invalidated, at: 1.05)
        story.request(at: 2, writes: [History.Write("x", 2)], given: "s")
        #expect(story.points == [.ended])
    }

    @Test func `6: a beginning is told once`() {
        var story = Story()
        story.tell(.created, at: 1)
        #expect(story.points == [.events])
        story.history.events = []
        #expect(story.points == [.events])
    }

    @Test func `6: an end is told once`() {
        var story = Story()
        story.request(at: 1, reads: ["x": 1]) { $0.invalidates = true }
        #expect(story.points == [.events])
        story.tell(.invalidated, at: 1.05)
        #expect(story.points.isEmpty)
        story.tell(.expired, at: 2)
        #expect(story.points == [.events])
    }

    @Test func `6: an end that nobody knows of may go untold, and is counted`() {
        var story = Story()
        story.request(at: 1, reads: ["x": 1], outcome: .unknown) { $0.invalidates = true }
        story.history.bounds.isSeenToTheEnd = true
        let verdict = story.verdict
        #expect(verdict.violations.isEmpty)
        #expect(verdict.excuses[.endUnknown] == 1)
    }

    @Test func `7: a key does not outlive its session`() {
        var story = Story()
        story.history.bounds.maxInactive = .seconds(5)
        story.history.bounds.saveInterval = .seconds(1)
        story.history.end = .seconds(30)
        story.history.keys = [.init(name: "a", id: "s", expires: .seconds(19))]
        #expect(story.points.isEmpty)
        story.history.keys = [.init(name: "a", id: "s", expires: .seconds(21))]
        #expect(story.points == [.keys])
    }

    @Test func `what was refused is not stored`() {
        var story = Story()
        story.request(at: 1, reads: ["x": 1], writes: [History.Write("x", 2)], outcome: .refused)
        story.request(client: 1, at: 2, reads: ["x": 2])
        #expect(story.points == [.refused])
    }

    @Test func `the cluster answers, in the end`() {
        var story = Story()
        story.request(client: 100, at: 9, outcome: .refused)
        #expect(story.points == [.progress])
    }

    // MARK: What memory that is lost excuses, and what not

    @Test func `a request fails with an error of the session's`() {
        var story = Story()
        story.request(at: 1, outcome: .refused)
        #expect(story.points.isEmpty)
        story.request(at: 2, outcome: .refused) { $0.failsUnexpectedly = true }
        #expect(story.points == [.failures])
    }

    @Test func `what moved within the last poll before memory was lost may be undone`() {
        var story = Story()
        story.request(at: 1, node: "b", reads: ["x": 1], writes: [History.Write("x", 2)])
        story.history.losses = [.init(time: .seconds(1.2), server: 0, id: "s")]
        story.request(client: 1, at: 3, reads: ["x": 1])
        #expect(story.points.isEmpty)
    }

    @Test func `under a lock of the cluster a read moves a session as well, unlike where every node may have a copy`() {
        var story = Story(isLinearizable: true, staleness: 0)
        story.request(at: 1, reads: ["x": 1], writes: [History.Write("x", 2)])
        story.request(at: 1.4, node: "b", reads: ["x": 2])
        story.history.losses = [.init(time: .seconds(1.6), server: 0, id: "s")]
        story.request(client: 1, at: 4, reads: ["x": 1])
        #expect(story.points.isEmpty == false)
        story.history.bounds.isAtomic = true
        #expect(story.points.isEmpty)
    }

    @Test func `what moved earlier may not`() {
        var story = Story()
        story.request(at: 1, node: "b", reads: ["x": 1], writes: [History.Write("x", 2)])
        story.history.losses = [.init(time: .seconds(2.5), server: 0, id: "s")]
        story.request(client: 1, at: 4, reads: ["x": 1])
        #expect(story.points == [.acknowledged])
    }

    @Test func `nor what did not move`() {
        var story = Story()
        story.request(at: 1, reads: ["x": 1], writes: [History.Write("x", 2)])
        story.history.losses = [.init(time: .seconds(1.2), server: 0, id: "s")]
        story.request(client: 1, at: 3, reads: ["x": 1])
        #expect(story.points == [.acknowledged])
    }

    @Test func `a session may be gone if its home died together with the store's memory`() {
        var story = Story()
        story.history.losses = [.init(time: .seconds(1), server: 0, id: "s")]
        story.history.crashes = [("a", .seconds(0.9))]
        story.request(client: 1, at: 3, node: "b")
        #expect(story.points.isEmpty)
        #expect(story.verdict.excuses[.homeAndStoreDied] == 1)
        story.history.crashes = [("a", .seconds(4))]
        #expect(story.points == [.acknowledged])
    }
}
