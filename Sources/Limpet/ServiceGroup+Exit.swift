public import ServiceLifecycle

#if canImport(Glibc)
    import Glibc
#elseif canImport(Darwin)
    import Darwin
#endif

extension ServiceGroup {
    /// Runs the services until they stop, or prints in one line why they could not and ends the process with status 1: for
    /// the last line of a program.
    public nonisolated func runOrExit() async {
        do {
            try await run()
        } catch {
            exitProcess(saying: ["\(error)"], status: EXIT_FAILURE)
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
