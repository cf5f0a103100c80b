/// How many requests of a connection are open: their stream is, or their handler has not returned.
///
/// What one client can have open is bounded by ``ServerLimits/maxConcurrentStreams``; what all together can is not, before
/// their connections are: here it is. A connection with few open requests is served however many the others have.
struct OpenRequests {
    private var count = 0
    private let allowance: Int

    init(limits: ServerLimits) {
        allowance = limits.minOpenRequests
    }

    /// A request asks to be handled.
    ///
    /// - Parameters:
    ///   - ofLoop: the open requests of all connections of the loop, kept here.
    ///   - limit: how many those may be.
    /// - Returns: whether it may, and is counted.
    mutating func admit(ofLoop: inout Int, limit: Int) -> Bool {
        guard ofLoop < limit || count < allowance else { return false }
        count += 1
        ofLoop += 1
        return true
    }

    /// So many are open, now that responses were sent, streams reset or handlers have returned.
    mutating func update(_ count: Int, ofLoop: inout Int) {
        ofLoop += count - self.count
        self.count = count
    }
}
