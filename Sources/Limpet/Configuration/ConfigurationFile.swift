import Configuration

#if canImport(FoundationEssentials)
    public import FoundationEssentials
#else
    public import Foundation
#endif

/// The configuration of a process: one JSON file, over which environment variables win.
///
/// The file is parsed here, once, and checked against the keys of all sections before anything is read: an unknown key
/// and a value of the wrong type are refused, which the configuration library by itself cannot do.
public enum ConfigurationFile {
    /// Loads a file and makes the sections, or prints what is wrong and ends the process with status 78: for the first
    /// line of a program.
    ///
    /// ```swift
    /// let (session, server) = await ConfigurationFile.loadOrExit(path, SessionConfiguration.self, HTTP2ServerConfiguration.self)
    /// ```
    ///
    /// - Parameter path: the JSON file; `nil` for the defaults and the environment alone.
    public static func loadOrExit<each Section: ConfigurationSection>(
        _ path: String?, _ sections: repeat (each Section).Type
    ) async -> (repeat each Section) {
        do {
            return try await load(path, repeat each sections)
        } catch {
            exitProcess(
                saying: error.problems.map { "configuration: \($0)" }, status: ConfigurationError.exitStatus)
        }
    }

    /// Loads a file and makes the sections.
    ///
    /// - Parameters:
    ///   - path: the JSON file; `nil` for the defaults and the environment alone.
    ///   - environment: the variables that win over the file.
    /// - Throws: ``ConfigurationError`` with all unknown keys and wrong values of the file, or the first value that a
    ///   section refuses.
    public static func load<each Section: ConfigurationSection>(
        _ path: String?,
        environment: [String: String] = ProcessInfo.processInfo.environment,
        _ sections: repeat (each Section).Type
    ) async throws(ConfigurationError) -> (repeat each Section) {
        var keys: [ConfigurationKey] = []
        for section in repeat each sections { keys += section.keys }
        let config = try reader(path, environment: environment, keys: keys)
        return (repeat try await (each sections).init(config: config))
    }

    static func reader(
        _ path: String?, environment: [String: String], keys: [ConfigurationKey]
    ) throws(ConfigurationError) -> ConfigReader {
        var values: [AbsoluteConfigKey: ConfigValue] = [:]
        if let path {
            let bytes: Data
            do {
                bytes = try Data(contentsOf: URL(filePath: path))
            } catch let error as CocoaError where error.code == .fileReadNoSuchFile {
                throw ConfigurationError("\(path): there is no such file")
            } catch {
                throw ConfigurationError("\(path): the file cannot be read (\(error))")
            }
            values = try checked(bytes, path: path, keys: keys)
        }
        return ConfigReader(providers: [
            EnvironmentVariablesProvider(
                environmentVariables: environment,
                secretsSpecifier: .specific(Set(keys.filter(\.isSecret).map(\.environmentVariable)))),
            InMemoryProvider(name: path, values: values),
        ])
    }

    private static func checked(
        _ bytes: Data, path: String, keys: [ConfigurationKey]
    ) throws(ConfigurationError) -> [AbsoluteConfigKey: ConfigValue] {
        let tree: ConfigurationTree
        do {
            tree = try JSONDecoder().decode(ConfigurationTree.self, from: bytes)
        } catch DecodingError.dataCorrupted(let context) {
            let reason = context.underlyingError.map { "\($0)" } ?? context.debugDescription
            throw ConfigurationError("\(path): not a JSON file (\(reason))")
        } catch {
            throw ConfigurationError("\(path): not a JSON file (\(error))")
        }
        guard case .object = tree else {
            throw ConfigurationError("\(path): the file must hold one JSON object, { \"session\": { … } }")
        }
        var check = ConfigurationTreeCheck(keys: keys)
        check.visit(tree, at: [])
        guard check.problems.isEmpty else { throw ConfigurationError(problems: check.problems) }
        return check.values
    }
}
