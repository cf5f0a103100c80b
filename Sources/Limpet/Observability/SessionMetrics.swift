import Metrics

/// Every metric of the sessions, by the name under which a backend of swift-metrics gets it.
///
/// They are the counters of ``SessionStatistics``, which are authoritative, and what was counted since the last time is handed over
/// once a second: a request pays nothing for them.
final class SessionMetrics: Sendable {
    /// How often: as often as anybody looks.
    static let interval = Duration.seconds(1)

    private struct Line: Sendable {
        let source: SessionStatistics.Counter
        let counter: Counter
        var told = 0
    }

    private let lines: Locked<[Line]>
    private let inMemory: Gauge
    private let entered: Gauge
    private let inside: Gauge
    private let waiting: Gauge
    /// How long requests waited in line, however the wait ended; those that did not wait are not told. Told at once.
    let lockWait: Timer
    /// Whether anybody wants to know.
    let isWanted: Bool

    init(_ statistics: SessionStatistics, factory: any MetricsFactory) {
        func line(
            _ source: SessionStatistics.Counter, _ name: String, _ dimensions: (String, String)...
        ) -> Line {
            Line(
                source: source,
                counter: Counter(label: "limpet_sessions_\(name)_total", dimensions: dimensions, factory: factory))
        }
        isWanted = !(factory is NOOPMetricsHandler)
        inMemory = Gauge(label: "limpet_sessions_in_memory", factory: factory)
        entered = Gauge(label: "limpet_sessions_entered", factory: factory)
        inside = Gauge(label: "limpet_sessions_requests_inside", factory: factory)
        waiting = Gauge(label: "limpet_sessions_requests_waiting", factory: factory)
        lockWait = Timer(label: "limpet_sessions_lock_wait_seconds", factory: factory)
        var all = [
            // Requests that had a session, by where they found it.
            line(statistics.localHits, "found", ("source", "local")),
            line(statistics.verified, "found", ("source", "verified")),
            line(statistics.loads, "found", ("source", "store")),
            line(statistics.oldIDReads, "found", ("source", "old_id")),
            line(statistics.created, "created"),
            line(statistics.destroyed, "destroyed"),
            line(statistics.takeovers, "takeovers"),
            line(statistics.commits, "commits"),
            line(statistics.merges, "merges"),
            line(statistics.conflicts, "conflicts"),
            line(statistics.writesRefused, "writes_refused"),
            line(statistics.accessTimeSaves, "access_time_saves"),
            line(statistics.accessTimeSaveFailures, "access_time_save_failures"),
            line(statistics.staleCopiesDropped, "stale_copies_dropped"),
            line(statistics.memoryLosses, "memory_losses"),
            line(statistics.republished, "republished"),
            line(statistics.failedPolls, "failed_polls"),
            line(statistics.lockWaits, "lock_waits"),
            // Those of them that were in vain.
            line(statistics.lockTimeouts, "lock_timeouts"),
            line(statistics.lockWaitsAbandoned, "lock_waits_abandoned"),
            line(statistics.lockWaitsRejected, "lock_waits_rejected"),
            line(statistics.clusterLockWaits, "cluster_lock_waits"),
            line(statistics.locksHandedOver, "locks_handed_over"),
            line(statistics.locksLost, "locks_lost"),
            line(statistics.lostLeases, "lost_leases"),
            line(statistics.undecodable, "undecodable"),
            line(statistics.writesAfterSeal, "writes_after_seal"),
            line(statistics.unknownOutcomes, "unknown_outcomes"),
            line(statistics.unknownOutcomesResolved, "unknown_outcomes_resolved"),
            line(statistics.storeOutages, "store_outages"),
            line(statistics.unsentDelivered, "unsent_delivered"),
            line(statistics.unsentDropped, "unsent_dropped"),
        ]
        for (calls, purpose) in [(statistics.storeCalls, "sessions"), (statistics.backgroundStoreCalls, "node")] {
            for (counter, operation) in [
                (calls.gets, "get"), (calls.puts, "put"), (calls.increments, "increment"), (calls.touches, "touch"),
                (calls.deletes, "delete"),
            ] {
                all.append(line(counter, "store_operations", ("operation", operation), ("for", purpose)))
            }
        }
        lines = Locked(all)
    }

    /// Hands over what was counted since the last time.
    func tell(inMemory: Int, locks: SessionLocks.Count) {
        self.inMemory.record(inMemory)
        entered.record(locks.sessions)
        inside.record(locks.inside)
        waiting.record(locks.waiting)
        lines.withLock { lines in
            for index in lines.indices {
                let value = lines[index].source.value
                guard value > lines[index].told else { continue }
                lines[index].counter.increment(by: value - lines[index].told)
                lines[index].told = value
            }
        }
    }
}
