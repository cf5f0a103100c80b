/// A limit that a client has hit, by the name that metrics and logs tell.
enum ServerLimit: String, Sendable, CaseIterable {
    // Time: see ``ConnectionTimeouts`` and ``TransferPace``.
    case handshakeTime = "handshake-time"
    case prefaceTime = "preface-time"
    case headerTime = "header-time"
    case bodyRate = "body-rate"
    case writeRate = "write-rate"
    case idleTime = "idle-time"
    case connectionAge = "connection-age"
    // Size and number: see ``ServerLimits``.
    case connections
    case headerList = "header-list"
    case requestBody = "request-body"
    case liveHandlers = "live-handlers"
    case queuedFrames = "queued-frames"
}
