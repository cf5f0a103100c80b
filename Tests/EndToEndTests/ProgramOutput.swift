import Foundation

/// A program that did not do what it was asked for.
struct ProgramFailure: Error, CustomStringConvertible {
    let description: String
}

/// Runs a program to its end; what it has printed.
///
/// - Throws: ``ProgramFailure`` with what it said if its status is not 0.
func output(of program: String, _ arguments: [String]) async throws -> String {
    let process = Process()
    process.executableURL = URL(filePath: "/usr/bin/env")
    process.arguments = [program] + arguments
    let output = Pipe()
    let errors = Pipe()
    process.standardOutput = output
    process.standardError = errors
    return try await withCheckedThrowingContinuation { continuation in
        // A thread of its own: reading a pipe blocks.
        Thread {
            do {
                try process.run()
                let data = try output.fileHandleForReading.readToEnd() ?? Data()
                let message = try errors.fileHandleForReading.readToEnd() ?? Data()
                process.waitUntilExit()
                guard process.terminationStatus == 0 else {
                    throw ProgramFailure(description: String(decoding: message, as: UTF8.self))
                }
                continuation.resume(returning: String(decoding: data, as: UTF8.self))
            } catch {
                continuation.resume(throwing: error)
            }
        }.start()
    }
}
