import Foundation

/// A program that did not do what it was asked for.
struct ProgramFailure: Error, CustomStringConvertible {
    let description: String
}

/// Runs a program to its end; what it has printed.
///
/// - Throws: ``ProgramFailure`` with what it said if its status is not 0.
func output(of program: String, _ arguments: [String]) async throws -> String {
    let output = try OutputFile()
    let errors = try OutputFile()
    let process = Process()
    process.executableURL = URL(filePath: "/usr/bin/env")
    process.arguments = [program] + arguments
    process.standardOutput = output.handle
    process.standardError = errors.handle
    return try await withCheckedThrowingContinuation { continuation in
        process.terminationHandler = { process in
            continuation.resume(
                with: Result {
                    guard process.terminationStatus == 0 else { throw ProgramFailure(description: try errors.text()) }
                    return try output.text()
                })
        }
        do {
            try process.run()
        } catch {
            continuation.resume(throwing: error)
        }
    }
}

/// What a program prints, in a file. Another program that is started in the same moment can inherit a pipe's end, and then
/// keeps it open.
private final class OutputFile: Sendable {
    private let url = FileManager.default.temporaryDirectory.appending(path: "limpet-\(UUID().uuidString)")
    let handle: FileHandle

    init() throws {
        try Data().write(to: url)
        handle = try FileHandle(forWritingTo: url)
    }

    deinit {
        // A temporary file that cannot be removed is the system's to clean.
        try? FileManager.default.removeItem(at: url)
    }

    func text() throws -> String { String(decoding: try Data(contentsOf: url), as: UTF8.self) }
}
