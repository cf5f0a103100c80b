import Limpet

extension StoreContract {
    static let counterRules: [Rule] = [
        Rule("an increment adds to a counter and tells the sum") { probe in
            let key = probe.key("a")
            try await probe.put("41", key)
            try probe.expect(try await probe.store.increment([key], by: 1), is: [42], "the sum")
            try probe.expect(try await probe.store.increment([key], by: 0), is: [42], "the sum with nothing")
            try await probe.expectText("42", at: key, "the counter as a value")
            try probe.expect(try await probe.store.increment([key], by: 958), is: [1000], "a sum with more digits")
            try await probe.expectText("1000", at: key, "the counter as a value")
        },
        Rule("an increment of an absent counter makes none") { probe in
            try probe.expect(try await probe.store.increment([probe.key("a")], by: 1), is: [nil], "the sum")
            try await probe.expectText(nil, at: probe.key("a"), "the counter")
        },
        Rule("an increment of many counters adds to each, in order, repeated ones twice") { probe in
            let keys = (0..<5).map { probe.key("k\($0)") }
            for index in [0, 1, 3] { try await probe.put("\(index * 10)", keys[index]) }
            let sums = try await probe.store.increment(keys + [keys[1]], by: 3)
            try probe.expect(sums, is: [3, 13, nil, 33, nil, 16], "the sums")
            try probe.expect(try await probe.store.increment([], by: 1), is: [], "the sums of no counters")
        },
        Rule("a counter has 64 bits") { probe in
            try await probe.put("18446744073709551600", probe.key("a"))
            let sums = try await probe.store.increment([probe.key("a")], by: 15)
            try probe.expect(sums, is: [.max], "the largest sum")
            try await probe.put("1", probe.key("b"))
            let large = try await probe.store.increment([probe.key("b")], by: 1 << 63)
            try probe.expect(large, is: [1 << 63 + 1], "a sum with a large amount")
        },
        Rule("a value that is no number cannot be incremented, and stays") { probe in
            for text in ["text", "", "-1", "1.5", "99999999999999999999999"] {
                try await probe.put(text, probe.key("a"))
                try await probe.expectError(.corrupt, "an increment of \"\(text)\"") {
                    _ = try await probe.store.increment([probe.key("a")], by: 1)
                }
                try await probe.expectText(text, at: probe.key("a"), "the value")
            }
        },
        Rule("concurrent increments are all counted") { probe in
            let key = probe.key("a")
            try await probe.put("0", key)
            let sums = try await probe.concurrently(32) { _ in
                var sums: [UInt64?] = []
                for _ in 0..<16 { sums += try await probe.store.increment([key], by: 1) }
                return sums
            }
            try probe.expect(Set(sums.joined().compactMap(\.self)).count, is: 512, "different sums")
            try await probe.expectText("512", at: key, "the last sum")
        },
        Rule("an increment is a change for a swap") { probe in
            let key = probe.key("a")
            try await probe.put("1", key)
            let token = try await probe.readPresent(key).token
            _ = try await probe.store.increment([key], by: 1)
            let result = try await probe.put("7", key, if: .unchanged(since: token))
            try probe.expect(result, is: .conflict, "a swap with a token from before the increment")
        },
    ]

    static let keyRules: [Rule] = [
        Rule("keys of 1 and of 250 bytes are taken, with every printable character") { probe in
            let longest = probe.key("")
            let padded = longest.name + String(repeating: "x", count: 250 - longest.name.utf8.count)
            let printable = String(decoding: Array(UInt8(0x21)...0x7E), as: UTF8.self)
            let keys = [StoreKey(padded, placement: longest.placement), probe.key(printable)]
            for (index, key) in keys.enumerated() { try await probe.put("\(index)", key) }
            for (index, key) in keys.enumerated() { try await probe.expectText("\(index)", at: key, "key \(index)") }
            // Not a name of this rule alone: another run may delete it at any time.
            let shortest = StoreKey("!", placement: longest.placement)
            try probe.expectStored(try await probe.put("x", shortest), "put of a key of one byte")
            _ = try await probe.store.delete(shortest, ifUnchangedSince: nil)
        },
        Rule("a key that no store takes is refused by every operation, and injects nothing") { probe in
            let victim = probe.key("victim")
            try await probe.put("untouched", victim)
            let prefix = probe.key("").name
            let names = [
                "", " ", prefix + "a b", prefix + "a\tb", prefix + "\u{0}", prefix + "\u{7F}", prefix + "é",
                String(repeating: "x", count: 251), prefix + "\n",
                prefix + "x 0 0 1\r\na\r\nset \(victim.name) 0 0 8\r\ninjected\r\n",
                prefix + "x\r\ndelete \(victim.name)\r\n",
            ]
            for (index, name) in names.enumerated() {
                let key = StoreKey(name, placement: victim.placement)
                let token = StoreToken(value: 1, generation: 1)
                let results = await probe.store.get([victim, key, victim])
                try probe.expect(try results[0].get() != nil, is: true, "the key before invalid key \(index) is read")
                try probe.expect(try results[2].get() != nil, is: true, "the key after invalid key \(index) is read")
                try await probe.expectError(.invalidKey, "get of invalid key \(index)") { _ = try results[1].get() }
                for condition in [StoreCondition.always, .absent, .unchanged(since: token)] {
                    try await probe.expectError(.invalidKey, "put of invalid key \(index)") {
                        try await probe.put("x", key, if: condition)
                    }
                }
                try await probe.expectError(.invalidKey, "increment of invalid key \(index)") {
                    _ = try await probe.store.increment([key], by: 1)
                }
                try await probe.expectError(.invalidKey, "touch of invalid key \(index)") {
                    _ = try await probe.store.touch(key, timeToLive: .seconds(60))
                }
                for condition in [nil, token] {
                    try await probe.expectError(.invalidKey, "deletion of invalid key \(index)") {
                        _ = try await probe.store.delete(key, ifUnchangedSince: condition)
                    }
                }
                try await probe.expectText("untouched", at: victim, "another value")
            }
        },
        Rule("keys of many groups are read together") { probe in
            let keys = (0..<200).map { probe.key("k\($0)", group: "g\($0 / 2)") }
            for (index, key) in keys.enumerated() { try await probe.put("\(index)", key, if: .absent) }
            let values = try await probe.read(keys)
            try probe.expect(values, is: (0..<200).map { Array("\($0)".utf8) }, "the values")
        },
        Rule("a key can be placed on a server by number") { probe in
            let keys = (0..<3).map { probe.key("k\($0)", server: 0) }
            for key in keys { try await probe.put("5", key, if: .absent) }
            try probe.expect(try await probe.store.increment(keys, by: 2), is: [7, 7, 7], "the sums")
            let token = try await probe.readPresent(keys[0]).token
            let swapped = try await probe.put("new", keys[0], if: .unchanged(since: token))
            try probe.expectStored(swapped, "a swap")
            let touched = try await probe.store.touch(keys[0], timeToLive: .seconds(60))
            try probe.expect(touched, is: true, "touch")
            let deleted = try await probe.store.delete(keys[1], ifUnchangedSince: nil)
            try probe.expect(deleted, is: .deleted, "deletion")
            let values = try await probe.read(keys)
            try probe.expect(values, is: [Array("new".utf8), nil, Array("7".utf8)], "the values")
        },
        Rule("a server that is not there is refused") { probe in
            for number in [-1, 10_000] {
                try await probe.expectError(.invalidKey, "put on server \(number)") {
                    try await probe.put("x", probe.key("a", server: number))
                }
                try await probe.expectError(.invalidKey, "get on server \(number)") {
                    _ = try await probe.read(probe.key("a", server: number))
                }
            }
        },
    ]
}
