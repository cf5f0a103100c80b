public import ServiceLifecycle
import UnixSignals

#if canImport(Glibc)
    import Glibc
#elseif canImport(Darwin)
    import Darwin
#endif

extension ServiceGroup {
    /// Runs the services until they stop, or prints in one line why they could not and ends the process with status 1: for
    /// the last line of a program.
    ///
    /// SIGTERM or SIGINT shuts the services down gracefully; the second one cancels them. The group needs no signals of
    /// its own for that.
    public nonisolated func runOrExit() async {
        do {
            try await runUntilSecondSignal()
        } catch {
            exitProcess(saying: ["\(error)"], status: EXIT_FAILURE)
        }
    }

    private nonisolated func runUntilSecondSignal() async throws {
        enum End { case stopped, secondSignal }
        let signals = await UnixSignalsSequence(trapping: .sigterm, .sigint)
        try await withThrowingTaskGroup(of: End.self) { tasks in
            tasks.addTask {
                try await self.run()
                return .stopped
            }
            tasks.addTask {
                var isFirst = true
                for await _ in signals {
                    guard isFirst else { return .secondSignal }
                    isFirst = false
                    await self.triggerGracefulShutdown()
                }
                // The sequence ends with its task only.
                return .stopped
            }
            let first = try await tasks.next()
            tasks.cancelAll()
            guard first == .secondSignal else { return }
            do {
                _ = try await tasks.next()
            } catch is CancellationError {
                // What was asked for.
            }
        }
    }
}

/// Prints lines to standard error and ends the process.
func exitProcess(saying lines: [String], status: Int32) -> Never {
    let text = lines.map { $0 + "\n" }.joined()
    // The process ends here: what cannot be written to standard error has nowhere else to go.
    _ = text.withCString { write(STDERR_FILENO, $0, strlen($0)) }
    exit(status)
}
