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
        /// In the order in which they have to come in.
        var waiting: [(number: Int, wish: LockLine<Int>.Wish)] = []
        var served = 0

        /// Tells whether what is so may be.
        mutating func check(_ step: String) {
            let writers = inside.values.count { $0 == .write }
            #expect(writers == 0 || inside.count == 1, "\(step): a writer is not alone")
            #expect((line == nil) == inside.isEmpty, "\(step): the table has an entry without anybody in, or none")
            #expect(line?.waiting ?? 0 == waiting.count, "\(step): somebody is lost")
            guard let first = waiting.first else { return }
            #expect(!inside.isEmpty, "\(step): somebody waits for nobody")
            #expect(first.wish != .read || writers == 1, "\(step): a reader is first in line and does not read")
        }

        mutating func admit(_ admitted: LockLine<Int>.Admitted?) {
            for waiter in admitted?.waiters ?? [] {
                #expect(waiting.first?.number == waiter.ticket, "somebody was let in out of turn")
                waiting.removeFirst()
                inside[waiter.ticket] = admitted?.access
                served += 1
            }
            if line?.isFree == true { line = nil }
        }

        mutating func come(_ number: Int, _ access: SessionAccess) {
            let wasFree = line == nil
            if wasFree { line = LockLine(access, at: 0) }
            if wasFree || line?.enter(access) == true {
                #expect(waiting.isEmpty, "somebody came in before those who wait")
                inside[number] = access
            } else {
                let wish: LockLine<Int>.Wish = access == .read ? .read : .write
                line?.append(.init(number: UInt64(number), wish: wish, ticket: number))
                waiting.append((number, wish))
            }
        }

        mutating func exit(_ number: Int) {
            inside[number] = nil
            admit(line?.exit { 0 })
        }

        mutating func load(_ number: Int) {
            if line?.becomeExclusive() == true {
                inside[number] = .write
            } else {
                inside[number] = nil
                line?.stepBack(.init(number: UInt64(number), wish: .load, ticket: number))
                waiting.insert((number, .load), at: waiting.firstIndex { $0.wish != .load } ?? waiting.count)
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
