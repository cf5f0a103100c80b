import Limpet
import NIOCore
import NIOSSL

#if canImport(Glibc)
    import Glibc
#elseif canImport(Darwin)
    import Darwin
#endif

/// The two files that make a server known: a certificate chain, the server's own certificate first, and its private
/// key, both in PEM.
///
/// The files are authoritative. What was read from them is a copy, kept in ``TLSContexts``.
struct CertificateFiles: Sendable, Hashable {
    let certificate: String
    let privateKey: String

    /// What tells one version of the files from another without reading them. Symbolic links are followed: certbot and
    /// Kubernetes change where they point.
    struct Stamp: Sendable, Hashable {
        private struct File: Hashable {
            let device, inode, size, seconds, nanoseconds: Int
        }

        private let certificate, privateKey: File?

        init(_ files: CertificateFiles) {
            certificate = Self.file(files.certificate)
            privateKey = Self.file(files.privateKey)
        }

        /// `nil` for a file that cannot be found: it may be on its way, and reading it says why it is not there.
        private static func file(_ path: String) -> File? {
            var status = stat()
            guard stat(path, &status) == 0 else { return nil }
            #if canImport(Darwin)
                let modified = status.st_mtimespec
            #else
                let modified = status.st_mtim
            #endif
            return File(
                device: Int(truncatingIfNeeded: status.st_dev), inode: Int(truncatingIfNeeded: status.st_ino),
                size: Int(status.st_size), seconds: Int(modified.tv_sec), nanoseconds: Int(modified.tv_nsec))
        }
    }

    /// Reads both files, and checks that they belong together.
    ///
    /// - Parameter closeTimeout: how long a connection waits for the client's part of the end (`close_notify`).
    /// - Throws: an error that names the key of the configuration and the file, and nothing of its content.
    func load(closeTimeout: TimeAmount) throws(ServerError) -> NIOSSLContext {
        let certificateKey = HTTP2ServerConfiguration.certificateFile.name
        let privateKeyKey = HTTP2ServerConfiguration.privateKeyFile.name
        let certificateBytes = try Self.contents(of: certificate, certificateKey)
        let privateKeyBytes = try Self.contents(of: privateKey, privateKeyKey)
        let chain: [NIOSSLCertificate]
        do {
            chain = try NIOSSLCertificate.fromPEMBytes(certificateBytes)
        } catch {
            throw ServerError(.unusableCertificate, "\(certificateKey): \(certificate) holds no certificate in PEM")
        }
        let key: NIOSSLPrivateKey
        do {
            key = try NIOSSLPrivateKey(bytes: privateKeyBytes, format: .pem)
        } catch {
            throw ServerError(
                .unusableCertificate,
                "\(privateKeyKey): \(privateKey) holds no private key in PEM that is free of a passphrase")
        }
        do {
            return try NIOSSLContext(configuration: .http2(chain, key, closeTimeout: closeTimeout))
        } catch NIOSSLError.failedToLoadPrivateKey {
            throw ServerError(
                .unusableCertificate,
                "\(privateKeyKey): the key in \(privateKey) does not belong to the first certificate in \(certificate)")
        } catch {
            throw ServerError(.unusableCertificate, "\(certificateKey): \(certificate) cannot be used: \(error)")
        }
    }

    private static func contents(of path: String, _ key: String) throws(ServerError) -> [UInt8] {
        func failure(_ reason: String) -> ServerError {
            // A static text of the system for every number.
            let error = String(cString: strerror(errno))
            return ServerError(.unusableCertificate, "\(key): cannot \(reason) \(path): \(error)")
        }
        let file = open(path, O_RDONLY | O_CLOEXEC)
        guard file >= 0 else { throw failure("open") }
        defer { close(file) }
        var bytes: [UInt8] = []
        var piece = [UInt8](repeating: 0, count: 16 * 1024)
        while true {
            // Writes at most as many bytes as `piece` has.
            let count = piece.withUnsafeMutableBytes { read(file, $0.baseAddress, $0.count) }
            if count < 0, errno == EINTR { continue }
            guard count >= 0 else { throw failure("read") }
            if count == 0 { return bytes }
            bytes += piece[..<count]
            guard bytes.count <= maxBytes else {
                throw ServerError(.unusableCertificate, "\(key): \(path) has more than \(maxBytes) bytes")
            }
        }
    }

    /// Bytes of a file that are read. A chain of ten certificates has some 20 KiB; a device that was named by mistake
    /// has no end.
    private static let maxBytes = 1024 * 1024
}

extension TLSConfiguration {
    /// TLS as HTTP/2 demands it (RFC 9113, section 9.2). Compression and renegotiation need no switch: BoringSSL has no
    /// compression, and its servers never renegotiate.
    fileprivate static func http2(
        _ chain: [NIOSSLCertificate], _ key: NIOSSLPrivateKey, closeTimeout: TimeAmount
    ) -> TLSConfiguration {
        var configuration = makeServerConfiguration(
            certificateChain: chain.map { .certificate($0) }, privateKey: .privateKey(key))
        configuration.minimumTLSVersion = .tlsv12
        // What section 9.2.2 and appendix A leave of TLS 1.2: forward secrecy and authenticated encryption. The suites
        // of TLS 1.3 are all of that kind, and always on.
        configuration.cipherSuiteValues = [
            .TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, .TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
            .TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, .TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
            .TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, .TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
        ]
        configuration.applicationProtocols = [TLSNegotiation.http2]
        configuration.shutdownTimeout = closeTimeout
        return configuration
    }
}
