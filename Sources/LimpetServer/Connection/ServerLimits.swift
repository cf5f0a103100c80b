import NIOCore

/// What the server grants a client, and how long it waits. Each limit with its reason.
struct ServerLimits: Sendable {
    /// Streams that a client may have open at once, announced in SETTINGS. RFC 9113, section 6.5.2, recommends no less
    /// than 100, so as not to limit parallelism.
    var maxConcurrentStreams = 100

    /// Handlers of one connection that may run at once, those of streams that the client has reset included: a client
    /// cannot start more work by resetting what it started (rapid reset, CVE-2023-44487). Twice the streams, so that a
    /// client that cancels all its requests can repeat them.
    var maxLiveHandlers = 200

    /// Bytes of a header list, name + value + 32 for each field as RFC 9113, section 6.5.2, counts them. Announced in
    /// SETTINGS; more is answered 431. The default of nginx and Apache is 8 KiB a field or line, of Node.js 16 KiB in all.
    var maxHeaderListBytes = 16 * 1024

    /// Fields of a header list; more is answered 431. Apache's `LimitRequestFields` is 100.
    var maxHeaderFields = 100

    /// Bytes of a header list after which the stream is reset instead of answered: 147 KB on the wire were measured to
    /// decode to 565 MB.
    var maxDecodedHeaderBytes = 64 * 1024

    /// Bytes of a request's body; more is answered 413. The body is kept in memory. nginx's `client_max_body_size` is
    /// 1 MiB.
    var maxRequestBodyBytes = 1024 * 1024

    /// The flow-control window of a stream for what the client sends, in bytes: 20 Mbit/s at a round trip
    /// of 100 ms, 2 Gbit/s at 1 ms.
    var streamWindow: Int32 = 256 * 1024

    /// The flow-control window of a connection for what the client sends, in bytes.
    var connectionWindow: Int32 = 1024 * 1024

    /// Bytes that are pulled from the session for one write. NIO's own high-water mark is 64 KiB: a channel with more
    /// to write is not writable, and no more is pulled until it is.
    var outputChunk = 64 * 1024

    /// Frames that may wait for a client which does not read. Each stream has at most a few; what goes beyond are
    /// answers to frames that a client sends while it reads nothing.
    var maxQueuedFrames = 2000

    /// Resets that a client may send at once and in the long run, per second (rapid reset, CVE-2023-44487). A browser
    /// that leaves a page cancels what it was loading: one burst of at most all streams.
    var resetBurst: UInt64 = 100
    /// See ``resetBurst``.
    var resetsPerSecond: UInt64 = 20

    /// CONTINUATION frames of one header list. nghttp2 1.52 counts a frame again for each piece that it comes in: its
    /// default of 8 refuses two legal frames that arrive byte by byte.
    var maxContinuations = 64

    /// How long requests that are under way may take to finish after the server was told to stop.
    var drainTimeout = TimeAmount.seconds(10)

    /// How long the handlers of connections that were closed may take to notice that they are cancelled.
    var cancelTimeout = TimeAmount.seconds(1)

    /// How long a client that does not speak HTTP/2 may take to read the answer and close.
    var refusalTimeout = TimeAmount.seconds(1)
}
