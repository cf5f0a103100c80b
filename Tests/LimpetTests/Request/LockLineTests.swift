import LimpetTesting
import Testing

@testable import Limpet

/// Who is in a session and who waits, without threads: schedules that are drawn from a seed, and what holds at each step.
struct LockLineTests {
    /// A session's lock and what ought to be true of it, kept apart.
    private struct Model {
        var line: LockLine<Int>?
        /// Those who are in, and as what.
        var inside: [Int: SessionAccess] = [:]
        /// In the order in which they came.
        var waiting: [(number: Int, wish: LockLine<Int>.Wish, since: UInt64)] = []
        var served = 0
        var now: UInt64 = 0

        /// Whether a reader that came then may be in although these came before: they are writers that came with it.
        func mayPass(_ earlier: some Sequence<(number: Int, wish: LockLine<Int>.Wish, since: UInt64)>, at since: UInt64)
            -> Bool
        {
            earlier.allSatisfy { $0.wish == .write && since <= $0.since + 5_000_000 }
        }

        /// Tells whether what is so may be.
        mutating func check(_ step: String) {
            let writers = inside.values.count { $0 == .write }
            #expect(writers == 0 || inside.count == 1, "\(step): a writer is not alone")
            #expect((line == nil) == inside.isEmpty, "\(step): the table has an entry without anybody in, or none")
            #expect(line?.waiting ?? 0 == waiting.count, "\(step): somebody is lost")
            guard !waiting.isEmpty else { return }
            #expect(!inside.isEmpty, "\(step): somebody waits for nobody")
            for (index, waiter) in waiting.enumerated() where writers == 0 && waiter.wish == .read {
                #expect(!mayPass(waiting[..<index], at: waiter.since), "\(step): a reader waits that could read")
            }
        }

        mutating func admit(_ admitted: LockLine<Int>.Admitted?) {
            for waiter in admitted?.waiters ?? [] {
                guard let index = waiting.firstIndex(where: { $0.number == waiter.ticket }) else {
                    Issue.record("somebody was let in who does not wait")
                    continue
                }
                let isInTurn =
                    index == 0 || waiter.wish == .read && mayPass(waiting[..<index], at: waiting[index].since)
                #expect(isInTurn, "somebody was let in out of turn")
                waiting.remove(at: index)
                inside[waiter.ticket] = admitted?.access
                served += 1
            }
            if line?.isFree == true { line = nil }
        }

        mutating func come(_ number: Int, _ access: SessionAccess) {
            let wasFree = line == nil
            if wasFree { line = LockLine(access, at: now) }
            if wasFree || line?.enter(access, at: now) == true {
                #expect(mayPass(waiting, at: now), "somebody came in before those who wait")
                inside[number] = access
            } else {
                let wish: LockLine<Int>.Wish = access == .read ? .read : .write
                line?.append(.init(number: UInt64(number), wish: wish, since: now, deadline: .max, ticket: number))
                waiting.append((number, wish, now))
            }
        }

        mutating func exit(_ number: Int) {
            inside[number] = nil
            admit(line?.exit { now })
        }

        mutating func load(_ number: Int) {
            if line?.becomeExclusive() == true {
                inside[number] = .write
            } else {
                inside[number] = nil
                line?.stepBack(.init(number: UInt64(number), wish: .load, since: now, deadline: .max, ticket: number))
                waiting.insert((number, .load, now), at: waiting.firstIndex { $0.wish != .load } ?? waiting.count)
            }
        }

        mutating func leave(_ number: Int) {
            waiting.removeAll { $0.number == number }
            let left = line?.leave(UInt64(number))
            #expect(left?.waiter.ticket == number)
            admit(left?.admitted)
        }
    }

    @Test(arguments: 0..<200)
    func `whatever the order of events, writers are alone, who came first is in first, and nobody is lost`(seed: Int) {
        var random = SeededRandom(seed: UInt64(seed))
        var model = Model()
        for step in 0..<400 {
            model.now += .random(in: 0...2_000_000, using: &random)
            let readers = model.inside.filter { $0.value == .read }.keys.sorted()
            switch Int.random(in: 0..<8, using: &random) {
            case 0...2:
                model.come(step, Bool.random(using: &random) ? .read : .write)
            case 3, 4:
                if let number = model.inside.keys.sorted().randomElement(using: &random) { model.exit(number) }
            case 5:
                if let number = readers.randomElement(using: &random) { model.load(number) }
            case 6:
                if let (number, access) = model.inside.first, access == .write {
                    model.inside[number] = .read
                    model.admit(model.line?.becomeShared())
                }
            default:
                if let number = model.waiting.map(\.number).randomElement(using: &random) { model.leave(number) }
            }
            model.check("seed \(seed), step \(step)")
        }
        while let number = model.inside.keys.min() { model.exit(number) }
        model.check("seed \(seed), the end")
        #expect(model.waiting.isEmpty && model.line == nil)
        #expect(model.served > 10)
    }

    @Test func `the readers of a page are in together, whatever writes beside them, and its writers follow`() {
        var model = Model()
        for number in 0..<50 {
            model.come(number, number % 10 == 5 ? .write : .read)
            model.now += 50_000
        }
        #expect(model.inside.count == 45)
        for number in 0..<50 where number % 10 != 5 { model.exit(number) }
        #expect(model.inside == [5: .write])
        #expect(model.waiting.map(\.number) == [15, 25, 35, 45])
    }

    @Test func `a writer waits for no reader that came later than a page's requests do`() {
        var model = Model()
        model.come(0, .read)
        model.come(1, .write)
        model.now = 5_000_000
        model.come(2, .read)
        #expect(model.inside.keys.sorted() == [0, 2])
        model.now += 1
        model.come(3, .read)
        model.exit(0)
        #expect(model.inside == [2: .read])
        model.exit(2)
        #expect(model.inside == [1: .write])
        // Those behind it: the reader came together with this one, but not with the other.
        model.come(4, .write)
        model.come(5, .read)
        model.exit(1)
        #expect(model.inside == [3: .read, 5: .read])
    }

    @Test func `readers that all find nothing to read load once, and are in together again`() {
        var model = Model()
        for number in 0..<3 { model.come(number, .read) }
        model.come(3, .write)
        for number in 0..<3 { model.load(number) }
        // The last one to ask was alone by then.
        #expect(model.inside == [2: .write])
        #expect(model.waiting.map(\.number) == [0, 1, 3])
        model.inside[2] = .read
        model.admit(model.line?.becomeShared())
        #expect(model.inside == [0: .read, 1: .read, 2: .read])
        #expect(model.waiting.map(\.number) == [3])
    }
}
