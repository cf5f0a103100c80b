/// When the certificate's files are read again.
///
/// A version is read once, when two looks in a row have seen it: certificate and key are two files, and neither is
/// written in one step by every tool. One that is broken is not read again before it changes.
struct CertificateWatch<Stamp: Equatable & Sendable>: Sendable {
    private var read: Stamp
    private var seen: Stamp

    /// - Parameter stamp: the version that was read first.
    init(_ stamp: Stamp) {
        read = stamp
        seen = stamp
    }

    /// The files were looked at.
    ///
    /// - Returns: whether to read them.
    mutating func look(_ stamp: Stamp) -> Bool {
        defer { seen = stamp }
        guard stamp == seen, stamp != read else { return false }
        read = stamp
        return true
    }
}
