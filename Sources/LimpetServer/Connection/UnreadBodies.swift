/// When the client gets back its connection's window for bytes of bodies that it has sent.
///
/// At once, as long as little is unread: what holds back the body that nobody reads is the stream's window. If much is unread,
/// on this connection or on all of the loop, only when it is read. So what all clients together can make the server keep is
/// bounded, and a few bodies that wait do not stop the others.
struct UnreadBodies {
    /// Bytes that have come and were not read.
    private(set) var unread = 0
    /// Bytes of the window that the client has not got back.
    private var owed = 0
    private let limit: Int
    private let limitOfLoop: Int
    /// What every connection may have unread, however much the others have.
    private let allowance: Int

    init(limits: ServerLimits) {
        limit = limits.maxUnreadBytes
        limitOfLoop = limits.maxUnreadBytesOfLoop
        allowance = Int(limits.streamWindow)
    }

    /// Bytes have come.
    ///
    /// - Parameter ofLoop: the unread bytes of all connections of the loop, kept here.
    /// - Returns: how many bytes the client may send more.
    mutating func received(_ count: Int, ofLoop: inout Int) -> Int {
        unread += count
        ofLoop += count
        owed += count
        return credit(ofLoop)
    }

    /// Bytes were read, or dropped.
    ///
    /// - Returns: how many bytes the client may send more.
    mutating func taken(_ count: Int, ofLoop: inout Int) -> Int {
        unread -= count
        ofLoop -= count
        return credit(ofLoop)
    }

    /// Whether the client waits for its window.
    var isShut: Bool { owed > 0 }

    /// - Returns: how many bytes the client may send more, now that others have read.
    mutating func credit(_ ofLoop: Int) -> Int {
        guard unread <= allowance || unread <= limit && ofLoop <= limitOfLoop else { return 0 }
        defer { owed = 0 }
        return owed
    }
}
