import DequeModule

/// Who is in one session, and who waits for it: what ``SessionLocks`` decides by. It exists only while somebody is in.
///
/// ```
///             the last one leaves, a writer is first in line
///        ┌────────────────────────────────────────────────────┐
///        │                                                    ▼
///   shared: readers                                   exclusive: one writer, or one who loads
///        ▲                                                    │
///        └────────────────────────────────────────────────────┘
///             it leaves, readers are first in line; or has loaded, and goes on as a reader
/// ```
///
/// Who comes takes the end of the line unless it can be in at once; a reader behind a waiting writer waits, so that no
/// writer is starved. Whenever the first in line can be in, it is: it, and if it reads, the readers right behind it.
///
/// The requests of one page come at once, in an order that means nothing. So a reader passes a writer that came less than
/// ``together`` before it: a page's readers are in together, and its writers keep nobody waiting but each other.
struct LockLine<Ticket: Sendable>: Sendable {
    /// What a request waits for.
    enum Wish: Sendable {
        case read
        case write
        /// A reader that found nothing to read: to be alone, or to come in behind somebody who was.
        case load
    }

    struct Waiter: Sendable {
        let number: UInt64
        let wish: Wish
        /// When it came. Monotonic.
        let since: UInt64
        /// When it leaves, if it is not in by then. Monotonic.
        let deadline: UInt64
        let ticket: Ticket
    }

    /// Those who come in together.
    struct Admitted: Sendable {
        var waiters: [Waiter] = []
        var access = SessionAccess.read
    }

    /// Who comes within 5 ms came together. The streams of a page are in one or two packets, and what the user does next comes
    /// much later (100 ms are felt as at once); a writer waits so much longer for readers at most, beside their handlers.
    static var together: UInt64 { 5_000_000 }

    /// Readers that are in; 0: one is in alone.
    private(set) var readers: Int
    /// Since when those who are in have held the session, one after the other. Monotonic.
    private(set) var since: UInt64
    /// Nobody is in any more, and nobody waits.
    private(set) var isFree = false
    /// Made only when somebody has to wait: a session without a line needs no memory of its own.
    private var line: Deque<Waiter>?

    /// - Parameter access: of the first who is in.
    init(_ access: SessionAccess, at now: UInt64) {
        readers = access == .read ? 1 : 0
        since = now
    }

    var waiting: Int { line?.count ?? 0 }

    /// The numbers of those whose time is over, and when it is over for the first of the others.
    func late(at now: UInt64) -> (numbers: [UInt64], next: UInt64?) {
        guard let line else { return ([], nil) }
        return (line.filter { $0.deadline <= now }.map(\.number), line.map(\.deadline).filter { $0 > now }.min())
    }

    /// Lets one more in, if that one would not have to wait.
    mutating func enter(_ access: SessionAccess, at now: UInt64) -> Bool {
        guard access == .read, readers > 0 else { return false }
        if let first = line?.first {
            guard first.wish == .write, Self.mayPass(first, at: now) else { return false }
        }
        readers += 1
        return true
    }

    /// Whether a reader that comes now goes before a writer.
    private static func mayPass(_ writer: Waiter, at now: UInt64) -> Bool { now <= writer.since + together }

    mutating func append(_ waiter: Waiter) {
        if line == nil { line = Deque() }
        line?.append(waiter)
    }

    /// One who is in leaves.
    ///
    /// - Parameter now: asked only if somebody waits.
    mutating func exit(at now: () -> UInt64) -> Admitted {
        if readers > 1 {
            readers -= 1
            return Admitted()
        }
        guard waiting > 0 else {
            isFree = true
            return Admitted()
        }
        since = now()
        readers = 0
        var admitted = Admitted()
        // Who wants to be alone to load was in before all others.
        if line?.first?.wish != .load { letReadersIn(&admitted) }
        if readers == 0, let first = line?.popFirst() { admitted = Admitted(waiters: [first], access: .write) }
        return admitted
    }

    /// A reader wants to be alone, and is if nobody reads beside it: those in line wait for it anyway.
    mutating func becomeExclusive() -> Bool {
        guard readers == 1 else { return false }
        readers = 0
        return true
    }

    /// A reader that is not alone leaves, to be alone as soon as the others have left. It was in before all who wait, and so
    /// keeps its place before them.
    mutating func stepBack(_ waiter: Waiter) {
        readers -= 1
        if line == nil { line = Deque() }
        let behind = line?.firstIndex { $0.wish != .load } ?? waiting
        line?.insert(waiter, at: behind)
    }

    /// Whoever is alone goes on as a reader.
    mutating func becomeShared() -> Admitted {
        readers = 1
        var admitted = Admitted()
        letReadersIn(&admitted)
        return admitted
    }

    /// Takes a waiter out of the line, and lets in those whom it held up; `nil` if it is not in line.
    mutating func leave(_ number: UInt64) -> (waiter: Waiter, admitted: Admitted)? {
        guard let index = line?.firstIndex(where: { $0.number == number }), let waiter = line?.remove(at: index) else {
            return nil
        }
        var admitted = Admitted()
        if readers > 0, line?.first?.wish != .load { letReadersIn(&admitted) }
        return (waiter, admitted)
    }

    /// The readers that stand first in line, those who wanted to be alone and may find now what they need, and the readers that came
    /// together with the first writer.
    private mutating func letReadersIn(_ admitted: inout Admitted) {
        while let next = line?.first, next.wish != .write { admit(at: 0, &admitted) }
        guard let writer = line?.first else { return }
        var index = 1
        // In order of their coming: who came later than that has nobody behind who did not.
        while index < waiting, let next = line?[index], Self.mayPass(writer, at: next.since) {
            if next.wish == .read { admit(at: index, &admitted) } else { index += 1 }
        }
    }

    private mutating func admit(at index: Int, _ admitted: inout Admitted) {
        guard let waiter = line?.remove(at: index) else { return }
        readers += 1
        admitted.waiters.append(waiter)
    }
}
