import Limpet

extension StoreContract {
    static let timeRules: [Rule] = [
        Rule("a value is gone after its time to live, and never before") { probe in
            for milliseconds in [1, 1000, 1500] {
                let key = probe.key("\(milliseconds)")
                let timeToLive = Duration.milliseconds(milliseconds)
                let started = probe.contract.clock.monotonicNanoseconds()
                try await probe.put("x", key, timeToLive: timeToLive)
                try await probe.expectGone(key, after: timeToLive, since: started, "put for \(timeToLive)")
            }
        },
        Rule("a swap and a put if absent set the time to live as well") { probe in
            let started = probe.contract.clock.monotonicNanoseconds()
            try await probe.put("x", probe.key("absent"), if: .absent, timeToLive: .seconds(1))
            try await probe.put("x", probe.key("swap"))
            let token = try await probe.readPresent(probe.key("swap")).token
            let result = try await probe.put(
                "y", probe.key("swap"), if: .unchanged(since: token), timeToLive: .seconds(1))
            try probe.expectStored(result, "the swap")
            for name in ["absent", "swap"] {
                try await probe.expectGone(probe.key(name), after: .seconds(1), since: started, name)
            }
        },
        // What has to be there while it is used is kept for ten seconds: a busy machine may take some of them.
        Rule("a touch extends the time to live, and can end it") { probe in
            let clock = probe.contract.clock
            let started = clock.monotonicNanoseconds()
            let extended = probe.key("extended")
            let shortened = probe.key("shortened")
            let control = probe.key("control")
            for key in [extended, control] { try await probe.put("x", key, timeToLive: .seconds(10)) }
            try await probe.put("x", shortened)
            let first = try await probe.store.touch(extended, timeToLive: .seconds(60))
            let second = try await probe.store.touch(shortened, timeToLive: .seconds(1))
            try probe.expect([first, second], is: [true, true], "touches of present keys")
            try await probe.expectGone(control, after: .seconds(10), since: started, "put for ten seconds")
            try await probe.expectGone(shortened, after: .seconds(1), since: started, "touched for one second")
            try await probe.expectText("x", at: extended, "touched for a minute")
        },
        Rule("an increment keeps the time to live") { probe in
            let started = probe.contract.clock.monotonicNanoseconds()
            try await probe.put("1", probe.key("a"), timeToLive: .seconds(10))
            try probe.expect(try await probe.store.increment([probe.key("a")], by: 1), is: [2], "the sum")
            try await probe.expectGone(probe.key("a"), after: .seconds(10), since: started, "an incremented counter")
        },
        Rule("an expired value is absent for every operation") { probe in
            let started = probe.contract.clock.monotonicNanoseconds()
            let key = probe.key("a")
            try await probe.put("1", key, timeToLive: .seconds(10))
            let token = try await probe.readPresent(key).token
            try await probe.expectGone(key, after: .seconds(10), since: started, "put for ten seconds")
            let touched = try await probe.store.touch(key, timeToLive: .seconds(60))
            try probe.expect(touched, is: false, "touch")
            try probe.expect(try await probe.store.increment([key], by: 1), is: [nil], "the sum")
            let swapped = try await probe.put("2", key, if: .unchanged(since: token))
            try probe.expect(swapped, is: .conflict, "a swap")
            let deleted = try await probe.store.delete(key, ifUnchangedSince: token)
            try probe.expect(deleted, is: .absent, "deletion")
            try probe.expectStored(try await probe.put("3", key, if: .absent), "put if absent")
            try await probe.expectText("3", at: key, "the new value")
        },
        Rule("a value can be kept for more than thirty days") { probe in
            let days = { (count: Int) in Duration.seconds(86_400 * count) }
            for (index, timeToLive) in [days(30), days(31), days(400)].enumerated() {
                let key = probe.key("k\(index)")
                try probe.expectStored(try await probe.put("x", key, timeToLive: timeToLive), "put for \(timeToLive)")
                try await probe.expectText("x", at: key, "kept for \(timeToLive)")
                let touched = try await probe.store.touch(key, timeToLive: timeToLive)
                try probe.expect(touched, is: true, "touch for \(timeToLive)")
                try await probe.expectText("x", at: key, "touched for \(timeToLive)")
            }
        },
    ]
}
