/// The events that a connection is handling, in the memory of those before.
struct EventQueue {
    private var events: [HTTP2Event] = []
    private var position = 0

    /// Arrays of more events are not kept. A large array costs little where so many events have come.
    private static let maxKept = 256

    /// Whether all are handled and cleared away.
    var isEmpty: Bool { events.isEmpty }

    /// - Parameter take: swaps an empty array for one with events.
    mutating func refill(_ take: (inout [HTTP2Event]) -> Void) {
        take(&events)
    }

    mutating func next() -> HTTP2Event? {
        guard position < events.count else { return nil }
        position += 1
        return events[position - 1]
    }

    /// All are handled.
    mutating func clear() {
        position = 0
        if events.capacity > Self.maxKept {
            events = []
        } else {
            events.removeAll(keepingCapacity: true)
        }
    }

    /// Gives the memory back. Nothing is to be handled.
    mutating func trim() {
        self = EventQueue()
    }
}
