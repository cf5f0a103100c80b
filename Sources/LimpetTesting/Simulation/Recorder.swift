import HTTPTypes
import Limpet

/// Writes the history down while it happens.
final class Recorder: Sendable {
    private struct State {
        var history = History()
        var lastValue = 0
    }

    private let state = Locked(State())
    private let loop: SimulationLoop
    private let trace: SimulationTrace

    init(loop: SimulationLoop, trace: SimulationTrace) {
        self.loop = loop
        self.trace = trace
    }

    var history: History { state.withLock { $0.history } }

    func withHistory<Result>(_ body: (inout History) -> Result) -> Result {
        state.withLock { state in body(&state.history) }
    }

    /// A value that nothing was ever set to.
    func nextValue() -> Int {
        state.withLock { state in
            state.lastValue += 1
            return state.lastValue
        }
    }

    func begin(_ operation: History.Operation) -> Int {
        state.withLock { state in
            state.history.operations.append(operation)
            return state.history.operations.count - 1
        }
    }

    /// Requests below 0 are not in the history.
    func change(_ number: Int, _ body: (inout History.Operation) -> Void) {
        guard number >= 0 else { return }
        state.withLock { body(&$0.history.operations[number]) }
    }

    func event(_ kind: History.Event.Kind, _ session: SessionFingerprint, on process: SimulatedProcess) {
        // What a process does after its end, nobody hears.
        guard !process.isDead else { return }
        let event = History.Event(time: loop.now, node: process.name, kind: kind, id: session.description)
        trace.note(
            loop.now, event.id.stableHash, line: "\(process.name) tells \(kind) \(event.id.prefix(6))")
        state.withLock { $0.history.events.append(event) }
    }
}

/// A browser's cookies: shared by its tabs.
final class CookieJar: Sendable {
    private let cookie = Locked<String?>(nil)

    /// `<id>.<route>`.
    var value: String? {
        get { cookie.withLock { $0 } }
        set { cookie.withLock { $0 = newValue } }
    }

    var route: String? { value?.split(separator: ".").last.map(String.init) }
    var id: String? { value?.split(separator: ".").first.map(String.init) }

    /// What an answer says about the cookie.
    static func read(_ fields: HTTPFields) -> (given: String?, isExpired: Bool) {
        var given: String?
        var isExpired = false
        for field in fields[values: .setCookie] {
            isExpired = field.contains("Max-Age=0")
            let value = field.split(separator: ";").first.flatMap { $0.split(separator: "=", maxSplits: 1).last }
            given = isExpired ? nil : value.map(String.init)
        }
        return (given, isExpired)
    }
}
