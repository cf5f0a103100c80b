/// What clients of a cluster asked, and what they were told: all that ``HistoryChecker`` judges by.
package struct History: Sendable {
    /// What became of a request.
    package enum Outcome: Sendable, Hashable {
        /// The client has the answer.
        case answered
        /// The client was told that its changes are not stored.
        case refused
        /// The client was told that nobody knows, or was told nothing.
        case unknown
    }

    /// A value that an attribute was set to, or `nil` for its removal.
    package struct Write: Sendable, Hashable {
        package var attribute: String
        package var value: Int?

        package init(_ attribute: String, _ value: Int?) {
            self.attribute = attribute
            self.value = value
        }
    }

    /// One request.
    package struct Operation: Sendable {
        package var client = 0
        package var jar = 0
        /// No other request of this jar was ever under way at the same time as another.
        package var jarIsSequential = true
        package var node = ""
        package var invoked = VirtualTime.zero
        /// When the client had its answer, or stopped to wait for it.
        package var answered = VirtualTime.never
        /// When the node was done with it, or died.
        package var finished = VirtualTime.never
        package var outcome = Outcome.unknown
        /// The id that the client brought.
        package var presented: String?
        /// The handler found that session.
        package var found = false
        /// What the handler read, of the attributes that were there.
        package var read: [String: Int] = [:]
        package var writes: [Write] = []
        package var invalidates = false
        package var rotates = false
        /// Seconds, if the request set it.
        package var limit: Int?
        /// The id that the answer gave the client.
        package var given: String?
        /// The answer took the cookie from the client.
        package var expiredCookie = false
        package var error: String?
        /// It failed with an error that is none of a session's.
        package var failsUnexpectedly = false

        package init() {}
    }

    /// What a node told the application.
    package struct Event: Sendable {
        package enum Kind: Sendable, Hashable { case created, invalidated, expired }
        package var time: VirtualTime
        package var node: String
        package var kind: Kind
        package var id: String

        package init(time: VirtualTime, node: String, kind: Kind, id: String) {
            self.time = time
            self.node = node
            self.kind = kind
            self.id = id
        }
    }

    /// A key of a session that was in the store at the end.
    package struct Key: Sendable {
        package var name: String
        /// The session's id, if a client ever had it.
        package var id: String?
        package var expires: VirtualTime

        package init(name: String, id: String?, expires: VirtualTime) {
            self.name = name
            self.id = id
            self.expires = expires
        }
    }

    /// The store lost a server's memory, or the value of one session.
    package struct Loss: Sendable {
        package var time: VirtualTime
        /// Since when some node could not reach it.
        package var begin: VirtualTime
        package var server: Int
        package var id: String?
        /// The epoch alone, of one session.
        package var isEpoch: Bool

        package init(
            time: VirtualTime, since begin: VirtualTime? = nil, server: Int, id: String? = nil, isEpoch: Bool = false
        ) {
            self.isEpoch = isEpoch
            self.time = time
            self.begin = begin ?? time
            self.server = server
            self.id = id
        }
    }

    /// Nodes that go on without the store could not reach a server.
    package struct Outage: Sendable {
        package var server: Int
        /// No node could.
        package var isComplete: Bool
        package var begin: VirtualTime
        package var end: VirtualTime

        package init(server: Int, isComplete: Bool, begin: VirtualTime, end: VirtualTime) {
            self.server = server
            self.isComplete = isComplete
            self.begin = begin
            self.end = end
        }
    }

    /// All sessions were to be ended.
    package struct Clear: Sendable {
        package var invoked: VirtualTime
        /// Never, if nobody knows whether it happened.
        package var answered: VirtualTime

        package init(invoked: VirtualTime, answered: VirtualTime) {
            self.invoked = invoked
            self.answered = answered
        }
    }

    package var losses: [Loss] = []
    package var clears: [Clear] = []
    package var outages: [Outage] = []
    /// Which server has the session of an id.
    package var servers: [String: Int] = [:]
    /// When a node had stopped in good order: what it had is excused by nothing.
    package var drains: [(node: String, time: VirtualTime)] = []
    /// When a node died.
    package var crashes: [(node: String, time: VirtualTime)] = []
    package var operations: [Operation] = []
    package var events: [Event] = []
    package var keys: [Key] = []
    /// Until when the history was seen.
    package var end = VirtualTime.zero
    package var bounds = Bounds()

    /// What the cluster promises in numbers.
    package struct Bounds: Sendable {
        /// Every answer has to be as of the moment it was given, whoever asks.
        package var isLinearizable = false
        /// What a request writes is put on what it read, and on nothing else.
        package var isAtomic = false
        /// How old an answer may be to a client that has not seen newer.
        package var staleness = VirtualTime.zero
        package var maxInactive = VirtualTime.seconds(1800)
        package var saveInterval = VirtualTime.seconds(60)
        package var slack = VirtualTime.seconds(10)
        /// How much the nodes' clocks were set forth or back.
        package var clockSteps = VirtualTime.zero
        /// How long it takes at most until every node has looked for what others changed.
        package var watch = VirtualTime.milliseconds(750)
        /// How long after an outage a node may still go on without the store, and what it kept may still be delivered.
        package var delivery = VirtualTime.seconds(4)
        /// How long what a dead node has left is kept beyond its time, for those who end it.
        package var burial = VirtualTime.seconds(45)
        /// How long it takes until a node has told the others what is at home there.
        package var roster = VirtualTime.seconds(4)
        /// How long an id that was given up may be read with: ten seconds, and the slack where another node judges, whose clock
        /// may be behind by as much.
        package var oldID = VirtualTime.seconds(31)
        /// How long after its sender gave it up a message can still take effect.
        package var lateness = VirtualTime.zero
        /// All sessions expired while the history was seen.
        package var isSeenToTheEnd = false

        package init() {}
    }

    package init() {}
}
