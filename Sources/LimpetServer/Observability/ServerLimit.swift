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
    case openRequests = "open-requests"
    case queuedFrames = "queued-frames"
    // Frames: see ``InboundFrames`` and ``FrameBudget``.
    /// PING and SETTINGS, which have to be answered.
    case answers = "ping-settings-flood"
    /// Frames that lead nowhere.
    case idleFrames = "frames-without-progress"
    /// Streams that the client resets.
    case resets = "rapid-reset"
    /// Streams that the client makes the server reset.
    case provokedResets = "provoked-resets"
    /// CONTINUATION frames of one header list.
    case continuations = "continuation-flood"
}
