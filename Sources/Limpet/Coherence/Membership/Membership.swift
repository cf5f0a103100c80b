/// Which nodes there are.
// Alone for now: the nodes do not know each other yet.
final class Membership: Sendable {
    func liveNodes() async throws -> [String] { [] }
    func isEveryoneThrough(server: Int, mark: UInt64) async throws -> Bool { true }
    func noteThrough(server: Int, mark: UInt64) async {}
    func memoryLost(server: Int) async {}
    func observe(generation: UInt64?) async {}
}
