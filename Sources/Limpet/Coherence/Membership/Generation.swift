/// **R20**: what a node does with what it read of `g`, the number of times that all sessions were ended at once.
enum GenerationDecision: Equatable {
    /// As known.
    case keep
    /// This node knows none yet: it begins with this one.
    case begin(UInt64)
    /// All sessions were ended.
    case clear(UInt64)
    /// The store has lost it, or came back with an old one.
    case putBack(UInt64)
    /// It is missing and this node knows none: those who do may put it back.
    case wait

    init(known: UInt64?, read: UInt64?, hasWaited: Bool, keepsRule: Bool = true) {
        guard let known else {
            self = read.map { .begin($0) } ?? (hasWaited ? .putBack(0) : .wait)
            return
        }
        guard keepsRule else {
            self = read ?? 0 == known ? .keep : .clear(read ?? 0)
            return
        }
        guard let read, read >= known else {
            self = .putBack(known)
            return
        }
        self = read > known ? .clear(read) : .keep
    }
}

extension Membership {
    /// What a poll has read of `g`: `nil` if it is missing.
    ///
    /// Only a higher number ends this node's sessions. A missing or lower one is put right, with a swap: if two nodes
    /// each added what is missing, the sum would end all sessions.
    func observe(generation read: UInt64?) async {
        let now = clock.monotonicNanoseconds()
        let (decision, isFirst) = state.withLock { state -> (GenerationDecision, Bool) in
            let since = state.generationMissingSince ?? now
            state.generationMissingSince = read == nil ? since : nil
            let decision = GenerationDecision(
                known: state.generation, read: read, hasWaited: now &- since >= patience, keepsRule: broken != .r20)
            let isFirst = state.generation == nil
            switch decision {
            case .begin(let number), .clear(let number):
                state.generation = number
                // The copies of the old generation go, and none comes after them.
                names.generation = number
                local.removeAll(exceptOf: number)
            case .keep, .putBack, .wait: break
            }
            return (decision, isFirst)
        }
        switch decision {
        case .clear: events.cleared()
        case .putBack(let number):
            do {
                try await putBack(generation: number)
                if isFirst { await observe(generation: try await readGeneration().number) }
            } catch {
                noteFailure(error)
            }
        case .keep, .begin, .wait: break
        }
    }

    /// Ends all sessions of the cluster: raises `g`. If somebody else did so since this began, that is as good.
    func clear() async throws(SessionError) {
        do {
            var known = try await knownGeneration()
            for attempt in 0..<SessionCoherence.attempts {
                try await pause(before: attempt)
                let (read, token) = try await readGeneration()
                if let read, read > known {
                    if attempt > 0 { return await observe(generation: read) }
                    // Raised before this began: there may be sessions of that generation.
                    known = read
                }
                if try await swap(generation: known + 1, since: token) { return await observe(generation: known + 1) }
            }
        } catch let error as StoreError {
            throw SessionError(error)
        } catch let error as SessionError {
            throw error
        } catch {
            throw SessionError(.conflict, "the sessions were not ended: the task was cancelled", cause: error)
        }
        throw SessionError(
            .conflict, "the generation was changed elsewhere \(SessionCoherence.attempts) times while it was raised")
    }

    /// The generation; read from the store if this node does not know it yet. Where the store has none either, others that
    /// know it get the time to put it back.
    func knownGeneration() async throws -> UInt64 {
        // One look, the time that others have, and one to make it.
        for _ in 0..<3 {
            if let known = state.withLock({ $0.generation }) { return known }
            await observe(generation: try await readGeneration().number)
            if let known = state.withLock({ $0.generation }) { return known }
            try await clock.sleep(for: .nanoseconds(Int64(patience)))
        }
        throw SessionError(.storeUnavailable, "the store does not tell the generation of the sessions")
    }

    private func putBack(generation: UInt64) async throws(StoreError) {
        let (read, token) = try await readGeneration()
        if let read, read >= generation { return }
        // A conflict is somebody who does the same.
        _ = try await swap(generation: generation, since: token)
    }

    /// - Returns: `false` if somebody else was first, or nobody knows: read again.
    private func swap(generation: UInt64, since token: StoreToken?) async throws(StoreError) -> Bool {
        do {
            let condition: StoreCondition = token.map { .unchanged(since: $0) } ?? .absent
            let put = try await store.put(
                Epoch(generation).ascii, for: names.generationCounter, timeToLive: Self.longest, if: condition)
            return put != .conflict
        } catch {
            if error.mayHaveTakenEffect { return false }
            throw error
        }
    }

    private func readGeneration() async throws(StoreError) -> (number: UInt64?, token: StoreToken?) {
        let entry = try await store.get(names.generationCounter)
        return (try entry.map(Self.generation), entry?.token)
    }

    static func generation(_ entry: StoreEntry) throws(StoreError) -> UInt64 {
        // Written as an epoch is: an unsigned decimal number.
        guard let number = Epoch(ascii: entry.bytes)?.value else {
            throw StoreError(.corrupt, "the generation in the store is no number", mayHaveTakenEffect: false)
        }
        return number
    }
}
