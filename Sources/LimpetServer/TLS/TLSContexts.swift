import Limpet
import Logging
import NIOCore
import NIOSSL

/// What connections are made known with: a copy of what ``CertificateFiles`` held when they were last fit to be used.
///
/// A connection keeps the context that it began with; new ones take the current one.
final class TLSContexts: Sendable {
    private struct State {
        var context: NIOSSLContext
        var watch: CertificateWatch<CertificateFiles.Stamp>
    }

    private let files: CertificateFiles
    private let limits: ServerLimits
    private let logger: Logger
    private let state: Locked<State>

    /// Reads the files.
    init(_ files: CertificateFiles, limits: ServerLimits, logger: Logger) throws(ServerError) {
        self.files = files
        self.limits = limits
        self.logger = logger
        // Before they are read: what changes meanwhile is read again.
        let stamp = CertificateFiles.Stamp(files)
        let context = try files.load(closeTimeout: limits.tlsCloseTimeout)
        state = Locked(State(context: context, watch: CertificateWatch(stamp)))
    }

    /// The context for a new connection.
    var current: NIOSSLContext { state.withLock { $0.context } }

    /// Looks for a change of the files until the task is cancelled.
    ///
    /// Two `stat` calls a second block no thread for long enough to move them to one of their own.
    func watch() async {
        let interval = Duration.nanoseconds(limits.certificateLookInterval.nanoseconds)
        while true {
            do { try await Task.sleep(for: interval) } catch { return }
            look()
        }
    }

    /// Takes over what the files hold, once it has changed. What is not fit to be used is kept out, and said once.
    func look() {
        let stamp = CertificateFiles.Stamp(files)
        guard state.withLock({ $0.watch.look(stamp) }) else { return }
        do {
            let context = try files.load(closeTimeout: limits.tlsCloseTimeout)
            state.withLock { $0.context = context }
            logger.debug("certificate changed")
        } catch {
            logger.warning(
                "the changed certificate cannot be used, the one before stays", metadata: ["error": "\(error)"])
        }
    }
}
