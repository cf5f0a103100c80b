import Limpet

extension StoreContract {
    static let valueRules: [Rule] = [
        Rule("a key that was never written is absent, which is no error") { probe in
            try await probe.expectText(nil, at: probe.key("a"), "a key that was never written")
            let touched = try await probe.store.touch(probe.key("a"), timeToLive: .seconds(60))
            try probe.expect(touched, is: false, "touch of an absent key")
            let deleted = try await probe.store.delete(probe.key("a"), ifUnchangedSince: nil)
            try probe.expect(deleted, is: .absent, "deletion of an absent key")
        },
        Rule("a stored value is read back") { probe in
            try probe.expectStored(try await probe.put("one", probe.key("a")), "put always on an absent key")
            try await probe.expectText("one", at: probe.key("a"), "the value")
            try probe.expectStored(try await probe.put("two", probe.key("a")), "put always on a present key")
            try await probe.expectText("two", at: probe.key("a"), "the value after the second put")
        },
        Rule("put if absent stores once, and then conflicts and changes nothing") { probe in
            let key = probe.key("a")
            try probe.expectStored(try await probe.put("one", key, if: .absent), "put if absent on an absent key")
            try probe.expect(try await probe.put("two", key, if: .absent), is: .conflict, "put if absent, again")
            try await probe.expectText("one", at: key, "the value after the conflict")
        },
        Rule("put if absent stores again after a deletion") { probe in
            try await probe.put("one", probe.key("a"))
            _ = try await probe.store.delete(probe.key("a"), ifUnchangedSince: nil)
            let result = try await probe.put("two", probe.key("a"), if: .absent)
            try probe.expectStored(result, "put if absent after a deletion")
            try await probe.expectText("two", at: probe.key("a"), "the value")
        },
        Rule("of many concurrent puts if absent exactly one is stored") { probe in
            let key = probe.key("a")
            let results = try await probe.concurrently(64) { caller in
                (caller, try await probe.put("\(caller)", key, if: .absent))
            }
            let winners = results.filter { $0.1 != .conflict }.map(\.0)
            try probe.expect(winners.count, is: 1, "callers whose value was stored")
            try await probe.expectText("\(winners[0])", at: key, "the winner's value")
        },
        Rule("a get of many keys answers each in its order, absent and repeated ones included") { probe in
            let keys = (0..<40).map { probe.key("k\($0)", group: "g\($0 % 7)") }
            for index in stride(from: 0, to: 40, by: 2) { try await probe.put("value \(index)", keys[index]) }
            let order = keys.reversed() + keys + [keys[4], keys[4], keys[5], keys[5]]
            let values = try await probe.read(order)
            let expected = (Array((0..<40).reversed()) + Array(0..<40) + [4, 4, 5, 5]).map { index in
                index % 2 == 0 ? Array("value \(index)".utf8) : nil
            }
            try probe.expect(values, is: expected, "the values")
        },
        Rule("a get of no keys answers nothing") { probe in
            try probe.expect(await probe.store.get([]).count, is: 0, "results")
        },
        Rule("any bytes can be a value: empty, with line ends, with every byte") { probe in
            let every = Array(UInt8.min...UInt8.max)
            let values: [[UInt8]] = [
                [], every, Array("\r\n".utf8), Array("END\r\n".utf8), Array("VALUE x 0 1 1\r\nx\r\nEND\r\n".utf8), [0],
                Array(repeating: 0xFF, count: 70_000),
            ]
            for (index, value) in values.enumerated() {
                let key = probe.key("k\(index)")
                let result = try await probe.store.put(value, for: key, timeToLive: .seconds(300), if: .always)
                try probe.expectStored(result, "value \(index)")
            }
            let read = try await probe.read(values.indices.map { probe.key("k\($0)") })
            for (index, value) in values.enumerated() {
                try probe.expect(read[index] == value, is: true, "value \(index) is read back as it was written")
            }
        },
        Rule("a value that is too large is refused, and the old one stays, whatever the condition") { probe in
            guard let tooLargeBytes = probe.contract.tooLargeBytes else { return }
            let value = [UInt8](repeating: 0x61, count: tooLargeBytes)
            let key = probe.key("a")
            try await probe.put("old", key)
            let token = try await probe.readPresent(key).token
            for condition in [StoreCondition.always, .unchanged(since: token)] {
                try await probe.expectError(.tooLarge, "a too large value, \(condition)") {
                    _ = try await probe.store.put(value, for: key, timeToLive: .seconds(300), if: condition)
                }
                try await probe.expectText("old", at: key, "the old value after \(condition)")
            }
            try await probe.expectError(.tooLarge, "a too large value for an absent key") {
                _ = try await probe.store.put(value, for: probe.key("b"), timeToLive: .seconds(300), if: .absent)
            }
            try await probe.expectText(nil, at: probe.key("b"), "the key of the refused value")
            let result = try await probe.put("new", key, if: .unchanged(since: try await probe.readPresent(key).token))
            try probe.expectStored(result, "a swap after the refusals")
        },
        Rule("a deleted value is gone") { probe in
            try await probe.put("one", probe.key("a"))
            let first = try await probe.store.delete(probe.key("a"), ifUnchangedSince: nil)
            try probe.expect(first, is: .deleted, "deletion")
            try await probe.expectText(nil, at: probe.key("a"), "the deleted value")
            let second = try await probe.store.delete(probe.key("a"), ifUnchangedSince: nil)
            try probe.expect(second, is: .absent, "deletion, again")
        },
    ]

    static let tokenRules: [Rule] = [
        Rule("a swap with the current token stores") { probe in
            let key = probe.key("a")
            try await probe.put("one", key)
            let token = try await probe.readPresent(key).token
            try probe.expectStored(try await probe.put("two", key, if: .unchanged(since: token)), "the swap")
            try await probe.expectText("two", at: key, "the value")
        },
        Rule("a swap with an old token conflicts and changes nothing") { probe in
            let key = probe.key("a")
            try await probe.put("one", key)
            let token = try await probe.readPresent(key).token
            try await probe.put("two", key)
            let result = try await probe.put("three", key, if: .unchanged(since: token))
            try probe.expect(result, is: .conflict, "a swap with an old token")
            try await probe.expectText("two", at: key, "the value")
        },
        Rule("a swap of a key that is gone conflicts and makes nothing") { probe in
            let key = probe.key("a")
            try await probe.put("one", key)
            let token = try await probe.readPresent(key).token
            _ = try await probe.store.delete(key, ifUnchangedSince: nil)
            let result = try await probe.put("two", key, if: .unchanged(since: token))
            try probe.expect(result, is: .conflict, "a swap of a deleted key")
            try await probe.expectText(nil, at: key, "the deleted value")
        },
        Rule("a token of a value that was deleted and written anew is old") { probe in
            let key = probe.key("a")
            try await probe.put("same", key)
            let token = try await probe.readPresent(key).token
            _ = try await probe.store.delete(key, ifUnchangedSince: nil)
            try await probe.put("same", key, if: .absent)
            let result = try await probe.put("two", key, if: .unchanged(since: token))
            try probe.expect(result, is: .conflict, "a swap with the token of the earlier value")
        },
        Rule("reading does not change the token, writing the same bytes does") { probe in
            let key = probe.key("a")
            try await probe.put("one", key)
            let first = try await probe.readPresent(key).token
            try probe.expect(try await probe.readPresent(key).token, is: first, "the token of a second read")
            try await probe.put("one", key)
            let second = try await probe.readPresent(key).token
            try probe.expect(second == first, is: false, "the token is the same after a write")
        },
        Rule("a touch keeps the token") { probe in
            let key = probe.key("a")
            try await probe.put("one", key)
            let token = try await probe.readPresent(key).token
            let touched = try await probe.store.touch(key, timeToLive: .seconds(600))
            try probe.expect(touched, is: true, "touch of a present key")
            try probe.expect(try await probe.readPresent(key).token, is: token, "the token after the touch")
            try probe.expectStored(try await probe.put("two", key, if: .unchanged(since: token)), "the swap")
        },
        Rule("a told token is good for the next swap") { probe in
            let key = probe.key("a")
            for (index, condition) in [StoreCondition.absent, .always].enumerated() {
                guard case .stored(let told?) = try await probe.put("\(index)", key, if: condition) else { continue }
                let swap = try await probe.put("swapped", key, if: .unchanged(since: told))
                try probe.expectStored(swap, "a swap with the token that put \(condition) told")
                guard case .stored(let next?) = swap else { continue }
                try probe.expect(try await probe.readPresent(key).token, is: next, "the token that a swap told")
                let again = try await probe.put("again", key, if: .unchanged(since: told))
                try probe.expect(again, is: .conflict, "a second swap with the same token")
            }
        },
        Rule("of many concurrent swaps with one token exactly one is stored") { probe in
            let key = probe.key("a")
            try await probe.put("0", key)
            let token = try await probe.readPresent(key).token
            let results = try await probe.concurrently(64) { caller in
                (caller, try await probe.put("by \(caller)", key, if: .unchanged(since: token)))
            }
            let winners = results.filter { $0.1 != .conflict }.map(\.0)
            try probe.expect(winners.count, is: 1, "callers whose swap was stored")
            try await probe.expectText("by \(winners[0])", at: key, "the winner's value")
        },
        Rule("concurrent readers that swap until they succeed lose no step") { probe in
            let key = probe.key("a")
            try await probe.put("0", key)
            _ = try await probe.concurrently(16) { _ in
                for _ in 0..<8 {
                    var stored = false
                    while !stored {
                        let entry = try await probe.readPresent(key)
                        guard let number = Int(String(decoding: entry.bytes, as: UTF8.self)) else {
                            throw ContractViolation(description: "another value than any that was written")
                        }
                        let result = try await probe.put("\(number + 1)", key, if: .unchanged(since: entry.token))
                        stored = result != .conflict
                    }
                }
            }
            try await probe.expectText("128", at: key, "the sum of all steps")
        },
        Rule("a deletion with the current token deletes, with an old one conflicts") { probe in
            let key = probe.key("a")
            try await probe.put("one", key)
            let old = try await probe.readPresent(key).token
            try await probe.put("two", key)
            let refused = try await probe.store.delete(key, ifUnchangedSince: old)
            try probe.expect(refused, is: .conflict, "deletion with an old token")
            try await probe.expectText("two", at: key, "the value after the conflict")
            let current = try await probe.readPresent(key).token
            let deleted = try await probe.store.delete(key, ifUnchangedSince: current)
            try probe.expect(deleted, is: .deleted, "deletion with the current token")
            try await probe.expectText(nil, at: key, "the deleted value")
            let gone = try await probe.store.delete(key, ifUnchangedSince: current)
            try probe.expect(gone, is: .absent, "deletion of a deleted value")
            try probe.expectStored(try await probe.put("three", key, if: .absent), "put if absent after the deletion")
        },
    ]
}
