import Testing

/// The checker finds in the histories of real clients what must not be.
struct ClientHistoryTests {
    /// Requests one after the other, each a millisecond long and a second after the one before.
    private struct Story {
        var requests: [ClientRequest] = []

        mutating func ask(
            _ kind: ClientRequest.Kind, client: Int = 0, jar: Int? = nil, node: String = "a", presented: String? = "id",
            _ attribute: String? = nil, value: Int? = nil, found: Int? = nil, given: String? = nil, isNew: Bool = false,
            status: Int? = 200
        ) {
            let begin = UInt64(requests.count + 1) * 1_000_000_000
            requests.append(
                ClientRequest(
                    client: client, jar: jar ?? client, session: 0, node: node, kind: kind, attribute: attribute,
                    value: value, found: found, presented: presented, given: given, isNew: isNew, begin: begin,
                    end: begin + 1_000_000, status: status))
        }

        /// The first request: it makes the session.
        static var begun: Self {
            var story = Self()
            story.ask(.write, presented: nil, "x", value: 1, given: "id", isNew: true)
            return story
        }
    }

    private func violations(_ story: Story, isLinearizable: Bool = false) -> [String] {
        ClientHistory(requests: story.requests, isLinearizable: isLinearizable).violations()
    }

    @Test(arguments: [false, true]) func `a session that does what it should has no violation`(isLinearizable: Bool) {
        var story = Story.begun
        story.ask(.read, "x", found: 1)
        story.ask(.write, "x", value: 2, found: 1)
        story.ask(.write, client: 1, "y", value: 3)
        story.ask(.session)
        story.ask(.read, client: 1, "x", found: 2)
        story.ask(.read, "y", found: 3)
        story.ask(.read, "z", status: 404)
        #expect(violations(story, isLinearizable: isLinearizable).isEmpty)
    }

    @Test func `an acknowledged write that is lost is found`() {
        var story = Story.begun
        story.ask(.write, "x", value: 2, found: 1)
        story.ask(.read, client: 1, "x", found: 1)
        #expect(violations(story).count == 1)
        #expect(violations(story).first?.contains("acknowledged: x is 1, though 2 was acknowledged") == true)
    }

    @Test func `a write that finds what its own client has overwritten is found`() {
        var story = Story.begun
        story.ask(.write, "x", value: 2, found: 1)
        story.ask(.write, "x", value: 3, found: 1)
        #expect(violations(story).first?.contains("fresh: x is 1, though 2 was written or seen") == true)
    }

    @Test func `a client that is told what it has seen replaced is found`() {
        var story = Story.begun
        story.ask(.write, "x", value: 2, found: 1, status: nil)
        story.ask(.read, client: 1, "x", found: 2)
        story.ask(.read, client: 1, "x", found: 1)
        story.requests[1].end = story.requests[3].end
        #expect(violations(story).count == 1)
    }

    @Test func `a write without an answer may be there or not`() {
        for found in [1, 2] {
            for status in [nil, 503] {
                var story = Story.begun
                story.ask(.write, "x", value: 2, found: status == nil ? nil : 1, status: status)
                story.ask(.read, client: 1, "x", found: found)
                for isLinearizable in [false, true] {
                    #expect(violations(story, isLinearizable: isLinearizable).isEmpty)
                }
            }
        }
    }

    @Test func `what a node that died had begun does not come after what began later`() {
        var story = Story.begun
        story.ask(.write, "x", value: 2, status: nil)
        story.ask(.write, node: "b", "x", value: 3, found: 1)
        story.ask(.read, client: 1, node: "b", "x", found: 2)
        var history = ClientHistory(requests: story.requests)
        #expect(history.violations().isEmpty)
        history.crashes = [("a", story.requests[1].end + 1)]
        #expect(history.violations().count == 1)
    }

    @Test func `a session that nobody ended and that is not there is found`() {
        var story = Story.begun
        story.ask(.session, isNew: true)
        #expect(violations(story).first?.contains("the session is gone, though nobody ended it") == true)
    }

    @Test func `a session that is silently replaced by a new one is found`() {
        var story = Story.begun
        story.ask(.write, "x", value: 2, given: "other", isNew: true)
        #expect(violations(story).first?.contains("the session is gone, though nobody ended it") == true)
    }

    @Test func `a session that was logged out and is back is found`() {
        var story = Story.begun
        story.ask(.logout, status: 204)
        story.ask(.session, client: 1, isNew: true)
        #expect(violations(story).isEmpty)
        story.ask(.session, client: 2, isNew: false)
        #expect(violations(story).first?.contains("the session is back, after it was invalidated") == true)
    }

    @Test func `a log-in keeps the session, under another id`() {
        var story = Story.begun
        story.ask(.login, given: "new")
        story.ask(.read, presented: "new", "x", found: 1)
        #expect(violations(story).isEmpty)
        story.ask(.read, presented: "new", "x", status: 404)
        #expect(violations(story).first?.contains("x is nothing, though 1 was written or seen by this client") == true)
    }

    @Test func `an answer as of an earlier moment is found where any node may be asked`() {
        var story = Story.begun
        story.ask(.write, "x", value: 2, found: 1)
        story.ask(.read, client: 1, "x", found: 1)
        // Soon enough for a balancer that knows where sessions are.
        story.requests[2].begin = story.requests[1].end + 400_000_000
        #expect(violations(story).isEmpty)
        #expect(violations(story, isLinearizable: true).isEmpty == false)
    }

    @Test func `who reads in the end has to have an answer, and errors are none`() {
        var story = Story.begun
        story.ask(.read, client: 100, jar: 0, "x", status: 503)
        #expect(violations(story).first?.contains("the cluster does not answer") == true)
        story = Story.begun
        story.ask(.session, status: 500)
        #expect(violations(story).contains { $0.contains("nobody expects") })
    }
}
