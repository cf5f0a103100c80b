/// The metadata keys of all log lines of the sessions. None of them ever holds an id, a cookie or a store key.
enum LogKey {
    static let attribute = "limpet.attribute"
    static let error = "limpet.error"
    static let node = "limpet.node"
    static let server = "limpet.server"
}
