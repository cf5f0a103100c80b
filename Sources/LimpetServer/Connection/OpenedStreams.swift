/// Which streams a client has opened (RFC 9113, section 5.1.1).
///
/// A stream that is opened closes all idle ones below it. HEADERS for one of those is an error; HEADERS for a stream that
/// was opened and is closed by now may have been under way.
struct OpenedStreams {
    enum Outcome {
        /// The stream is opened.
        case opened
        /// It was opened before.
        case known
        /// It was passed over.
        case passedOver
    }

    /// The ranges that are remembered. No client that is known passes over streams; one that does, all the time, is
    /// not told about the oldest of them any more: the library drops what comes for them.
    static let maxRanges = 32

    private var highest: StreamID = -1
    private var passedOver: [ClosedRange<StreamID>] = []

    /// HEADERS have come for a stream of the client's: an odd number.
    mutating func open(_ id: StreamID) -> Outcome {
        if id > highest {
            if id > highest + 2 {
                if passedOver.count == Self.maxRanges { passedOver.removeFirst() }
                passedOver.append(highest + 2...id - 2)
            }
            highest = id
            return .opened
        }
        return passedOver.contains { $0.contains(id) } ? .passedOver : .known
    }
}
