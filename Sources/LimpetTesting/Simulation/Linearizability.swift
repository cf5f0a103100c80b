/// Point 3: whether one order explains all that was answered about a session, in which each request takes its place between
/// the moment it was asked and the moment it was answered.
///
/// The search of Wing and Gong (1993) with Lowe's memory of what was tried (2017): a session is an object that holds its
/// attributes or has ended; a request reads it as a whole, and later changes it.
extension HistoryChecker {
    /// What is known about one step of a request.
    private struct Step {
        enum Effect {
            case read([String: Int])
            case absent
            case write([History.Write])
            case readAndWrite([String: Int], [History.Write])
            case end
        }

        let effect: Effect
        let begin: VirtualTime
        /// `nil` if nobody knows whether it happened.
        let end: VirtualTime?
        let operation: Int
        /// The step of the same request that comes before it.
        let after: Int?
    }

    private struct State: Hashable {
        var attributes: [String: Int]?
    }

    private struct Configuration: Hashable {
        let done: [UInt64]
        let state: State
    }

    /// So many configurations are more than any history of a simulation has.
    private static let searchLimit = 2_000_000

    mutating func checkOrder(_ session: SessionIndex.Session) {
        let steps = steps(session)
        guard !steps.isEmpty else { return }
        var tried: Set<Configuration> = []
        var deepest = 0
        var blocked = steps[0].operation
        // Depth first: what is done, and the session after it.
        var stack = [(Array(repeating: UInt64(0), count: steps.count / 64 + 1), State(attributes: [:]), 0)]
        while let (done, state, depth) = stack.popLast() {
            func isDone(_ index: Int) -> Bool { done[index / 64] & 1 << UInt64(index % 64) != 0 }
            let open = steps.indices.filter { !isDone($0) }
            let required = open.filter { steps[$0].end != nil }
            guard let earliest = required.min(by: { steps[$0].end ?? .never < steps[$1].end ?? .never }) else { return }
            if depth >= deepest {
                deepest = depth
                blocked = steps[earliest].operation
            }
            guard tried.count < Self.searchLimit else {
                return violation(.linearizable, "the history is too long to be judged", session.creation ?? 0)
            }
            for index in open where steps[index].begin <= steps[earliest].end ?? .never {
                if let after = steps[index].after, !isDone(after) { continue }
                guard let next = Self.apply(steps[index].effect, to: state) else { continue }
                var nextDone = done
                nextDone[index / 64] |= 1 << UInt64(index % 64)
                guard tried.insert(Configuration(done: nextDone, state: next)).inserted else { continue }
                stack.append((nextDone, next, depth + 1))
            }
        }
        violation(.linearizable, "no order of the requests explains the answers", blocked)
    }

    private static func apply(_ effect: Step.Effect, to state: State) -> State? {
        switch effect {
        case .read(let attributes): return state.attributes == attributes ? state : nil
        case .absent: return state.attributes == nil ? state : nil
        case .end: return State(attributes: nil)
        case .readAndWrite(let attributes, let writes):
            return apply(.read(attributes), to: state).flatMap { apply(.write(writes), to: $0) }
        case .write(let writes):
            // To a session that has ended nothing is written.
            guard var attributes = state.attributes else { return nil }
            for write in writes { attributes[write.attribute] = write.value }
            return State(attributes: attributes)
        }
    }

    private func steps(_ session: SessionIndex.Session) -> [Step] {
        var steps: [Step] = []
        for number in session.operations {
            let operation = self[number]
            guard operation.outcome != .refused else { continue }
            let isAnswered = operation.outcome == .answered
            // What was not there may have expired: that is judged elsewhere.
            if isAnswered, number != session.creation, !operation.found { continue }
            var before: Int?
            if bounds.isAtomic, isAnswered, number != session.creation, !operation.expiredCookie, !operation.rotates,
                !operation.invalidates, !operation.writes.isEmpty, !readsPast(number, session)
            {
                steps.append(
                    Step(
                        effect: .readAndWrite(operation.read, operation.writes), begin: operation.invoked,
                        end: operation.answered, operation: number, after: nil))
                continue
            }
            // An old id reads what is past.
            if isAnswered, number != session.creation, !readsPast(number, session) {
                before = steps.count
                steps.append(
                    Step(
                        effect: .read(operation.read), begin: operation.invoked, end: operation.answered,
                        operation: number, after: nil))
            }
            // What ended before it could be written to is no writer.
            if isAnswered, operation.expiredCookie, !operation.invalidates { continue }
            let end = isAnswered ? operation.answered : nil
            if operation.invalidates {
                steps.append(
                    Step(effect: .end, begin: operation.invoked, end: end, operation: number, after: before))
            } else if !operation.writes.isEmpty {
                steps.append(
                    Step(
                        effect: .write(operation.writes), begin: operation.invoked, end: end, operation: number,
                        after: before))
            }
        }
        return steps
    }
}
