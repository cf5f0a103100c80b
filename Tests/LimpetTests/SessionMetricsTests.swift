import HTTPTypes
import LimpetTesting
import Logging
import MetricsTestKit
import Testing

@testable import Limpet

/// What a backend of swift-metrics gets of the sessions.
struct SessionMetricsTests {
    private func manager(_ clock: ManualClock, _ metrics: TestMetrics) throws -> SessionManager {
        try SessionManager(
            store: MemoryStore(clock: clock), configuration: SessionConfiguration(), events: SessionEvents(),
            clock: clock,
            logger: Logger(label: "test", factory: { _ in SwiftLogNoOpLogHandler() }), breaking: nil, metrics: metrics)
    }

    private struct Answer { var fields: HTTPFields = [:] }

    @Test func `what was counted is told once a second, and what is left when the node stops`() async throws {
        let clock = ManualClock()
        let metrics = TestMetrics()
        let sessions = try manager(clock, metrics)
        let created = try metrics.expectCounter("limpet_sessions_created_total")
        let puts = try metrics.expectCounter(
            "limpet_sessions_store_operations_total", [("operation", "put"), ("for", "sessions")])
        let inMemory = try metrics.expectGauge("limpet_sessions_in_memory")
        func create() async throws {
            _ = try await sessions.withSession([:], \Answer.fields) { session in
                session[.count] = 1
                return Answer()
            }
        }
        try await create()
        #expect(created.totalValue == 0)
        let work = Task { await sessions.work() }
        while created.totalValue == 0 {
            clock.advance(by: .milliseconds(250))
            await Task.yield()
        }
        #expect(created.values == [1])
        #expect(puts.totalValue >= 2)
        #expect(inMemory.lastValue == 1)
        try await create()
        try await create()
        work.cancel()
        await work.value
        #expect(created.values == [1, 2])
        #expect(inMemory.lastValue == 3)
    }

    @Test func `every counter of the statistics has a metric`() throws {
        let statistics = SessionStatistics()
        let metrics = TestMetrics()
        let told = SessionMetrics(statistics, factory: metrics)
        let parts: [Any] = [statistics, statistics.storeCalls, statistics.backgroundStoreCalls]
        let counters = parts.flatMap { part in
            Mirror(reflecting: part).children.compactMap { $0.value as? SessionStatistics.Counter }
        }
        #expect(counters.count > 20)
        for counter in counters { counter.add(3) }
        told.tell(inMemory: 0, locks: .init())
        told.tell(inMemory: 0, locks: .init())
        #expect(metrics.counters.count == counters.count)
        for counter in metrics.counters {
            #expect(counter.values == [3], "\(counter.label) \(counter.dimensions)")
            #expect(counter.label.hasPrefix("limpet_sessions_") && counter.label.hasSuffix("_total"))
        }
    }
}
