import NIOCore

/// What the server grants a client, and how long it waits. Each limit with its reason.
struct ServerLimits: Sendable {
    /// The limits that the configuration has a say in as it says, the others at their defaults.
    init(_ configuration: HTTP2ServerConfiguration = HTTP2ServerConfiguration()) {
        maxRequestBodyBytes = configuration.maxRequestBodyBytes
        minBytesPerSecond = configuration.minBytesPerSecond
        idleTimeout = .seconds(Int64(configuration.idleTimeoutSeconds))
        maxConnectionAge = .seconds(Int64(configuration.maxConnectionAgeSeconds))
    }

    /// Streams that a client may have open at once, announced in SETTINGS. RFC 9113, section 6.5.2, recommends no less
    /// than 100, so as not to limit parallelism.
    var maxConcurrentStreams = 100

    /// Handlers of one connection that may run at once, those of streams that the client has reset included: a client
    /// cannot start more work by resetting what it started (rapid reset, CVE-2023-44487). Twice the streams, so that a
    /// client that cancels all its requests can repeat them.
    var maxLiveHandlers = 200

    /// Requests of all connections together whose stream is open or whose handler runs; each event loop has its share.
    /// Further ones are refused with REFUSED_STREAM: the client may repeat them. One that waits for its body was measured
    /// to take 4.3 KiB, 31 KiB with the longest header list: 140 MiB in all, 1 GiB at worst.
    var maxOpenRequests = 32_768

    /// Open requests that every connection may have all the same, so that those who open many do not lock out the others:
    /// a stream of events, and some requests beside it. With ``HTTP2ServerConfiguration/maxConnections`` at its default
    /// 340 MiB more, if each has as many.
    var minOpenRequests = 4

    /// Bytes of a header list, name + value + 32 for each field as RFC 9113, section 6.5.2, counts them. Announced in
    /// SETTINGS; more is answered 431. The default of nginx and Apache is 8 KiB a field or line, of Node.js 16 KiB in all.
    var maxHeaderListBytes = 16 * 1024

    /// Fields of a header list; more is answered 431. Apache's `LimitRequestFields` is 100.
    var maxHeaderFields = 100

    /// Bytes of a header list after which the stream is reset instead of answered: 147 KB on the wire were measured to
    /// decode to 565 MB.
    var maxDecodedHeaderBytes = 64 * 1024

    /// See ``HTTP2ServerConfiguration/maxRequestBodyBytes``.
    var maxRequestBodyBytes: Int

    /// Bytes of bodies that a connection may send ahead of its handlers before its window stays shut. Well above a few
    /// streams' windows: a body that is not read yet, because its request waits for its session, must not hold up the
    /// one that the session waits for.
    var maxUnreadBytes = 8 * 1024 * 1024

    /// The same for all connections of an event loop together.
    var maxUnreadBytesOfLoop = 64 * 1024 * 1024

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

    /// Streams that a client may reset (rapid reset, CVE-2023-44487). A browser that leaves a page cancels what it was
    /// loading: one burst of at most all streams.
    var resets = TokenBucket.Rate(burst: 100, perSecond: 20)

    /// Streams that a client may make the server reset, by malformed requests or windows that overflow (CVE-2025-8671): each
    /// undoes work that has begun. A client that works provokes none; one with a fault provokes some before it is
    /// mended.
    var provokedResets = TokenBucket.Rate(burst: 50, perSecond: 1)

    /// PING and SETTINGS frames of a client, which have to be answered (CVE-2019-9512, CVE-2019-9515). Clients that
    /// measure the connection send a few PINGs a second: gRPC's bandwidth estimate one a round trip while data flows.
    var answers = TokenBucket.Rate(burst: 100, perSecond: 10)

    /// Frames that bring neither a request nor content: DATA that is empty (CVE-2019-9518), WINDOW_UPDATE below 1 KiB,
    /// PRIORITY (CVE-2019-9513), unknown types. Requests and DATA that was sent give back what a client that works
    /// spends on them.
    var idleFrames = TokenBucket.Rate(burst: 1000, perSecond: 100)

    /// CONTINUATION frames of one header list (CVE-2024-28182), empty ones included. The largest list that is answered
    /// fits in one frame, the largest that is decoded in four.
    var maxContinuations = 8

    /// How often the time-outs below are looked at: that much later than told they may come.
    var tick = TimeAmount.seconds(1)

    /// How long a client may take from the connection's start to the end of its preface and SETTINGS.
    var prefaceTimeout = TimeAmount.seconds(10)

    /// How long a header list may take from its first frame to its last (slow headers). Apache's `RequestReadTimeout`
    /// grants 20 s at the least.
    var headerTimeout = TimeAmount.seconds(10)

    /// See ``HTTP2ServerConfiguration/minBytesPerSecond``.
    var minBytesPerSecond: Int

    /// The interval over which the bytes of a request's body are counted: short enough to end a slow one, long enough for a
    /// lost packet or three.
    var bodyTimeout = TimeAmount.seconds(10)

    /// The interval over which the bytes are counted that a client takes of what waits for it (slow readers, windows that
    /// are shut or opened byte by byte), for each stream and for the connection.
    var writeTimeout = TimeAmount.seconds(30)

    /// What a stream whose window is shut gets on top of ``writeTimeout`` for what it was sent before, at most.
    var maxWriteGrace = TimeAmount.minutes(5)

    /// How long a client may take to close a connection that the server has ended, after it was given everything.
    var lingerTimeout = TimeAmount.seconds(5)

    /// A stream that was open for so long before the client resets it was not opened to be reset: a balancer's time-outs
    /// are no rapid reset.
    var patience = TimeAmount.seconds(1)

    /// See ``HTTP2ServerConfiguration/idleTimeoutSeconds``.
    var idleTimeout: TimeAmount

    /// See ``HTTP2ServerConfiguration/maxConnectionAgeSeconds``.
    var maxConnectionAge: TimeAmount

    /// How long a client over TLS may take to shake hands, and one that did not negotiate HTTP/2 to send its request. A
    /// handshake takes two round trips and some computing; Go's HTTP client grants 10 s, nginx's
    /// `ssl_handshake_timeout` 60 s.
    var tlsHandshakeTimeout = TimeAmount.seconds(10)

    /// How long a connection that is closed waits for the client's `close_notify`: a round trip to the other side of the
    /// world, and one lost packet. Less than ``cancelTimeout``, so that a client that sends none does not count as a
    /// handler that does not return.
    var tlsCloseTimeout = TimeAmount.seconds(1)

    /// How often the certificate's files are looked at. A change is taken over with the second look that sees it.
    var certificateLookInterval = TimeAmount.seconds(1)

    /// How long a client may take to answer the PING behind the first GOAWAY before it gets the second one anyway:
    /// RFC 9113, section 6.8, asks for at least a round trip.
    var drainPingTimeout = TimeAmount.seconds(2)

    /// How long requests are still taken after that answer. HAProxy 2.6 answers at once, and then sends the requests that it
    /// had already given to the connection: one was seen 0.6 ms later, behind a GOAWAY that ruled it out, and its client
    /// got REFUSED_STREAM. A second, because a balancer on a busy machine may not run for 100 ms.
    var drainGrace = TimeAmount.seconds(1)

    /// How long connections that were closed may take to end, and their handlers to notice that they are cancelled.
    var cancelTimeout = TimeAmount.seconds(2)

    /// How long a client that does not speak HTTP/2 may take to read the answer and close.
    var refusalTimeout = TimeAmount.seconds(1)
}
