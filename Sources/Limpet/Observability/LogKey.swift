/// The metadata keys of all log lines of the sessions. None of them ever holds an id, a cookie or a store key.
enum LogKey {
    static let attribute = "limpet.attribute"
    static let error = "limpet.error"
    static let milliseconds = "limpet.milliseconds"
    static let node = "limpet.node"
    static let peer = "limpet.peer"
    static let sessions = "limpet.sessions"
    static let server = "limpet.server"
}
