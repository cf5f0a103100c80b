/// One reply of memcached, as it stood on the wire: to a meta command (doc/protocol.txt, "Meta Commands"), or to one of the
/// older commands that are sent beside them.
struct MetaReply: Equatable, Sendable {
    enum Kind: Equatable, Sendable {
        /// `VA`: a value, or the sum of an increment.
        case value([UInt8])
        /// `HD`, `STORED`.
        case done
        /// `EN`: nothing is there to read.
        case miss
        /// `NS`, `NOT_STORED`.
        case notStored
        /// `EX`, `EXISTS`: another token.
        case exists
        /// `NF`, `NOT_FOUND`: nothing is there to change.
        case notFound
        /// `MN`: the answer to a command that does nothing.
        case noop
        /// `END`: the last line of a list.
        case end
        /// `STAT`: one line of a list.
        case statistic(String, String)
        /// The server refuses. These replies carry no mark.
        case refusal(Refusal)
    }

    /// Why a server refuses, as far as that makes a difference.
    enum Refusal: Equatable, Sendable {
        /// `ERROR`: it does not know the command; `OK`: it knows one of an earlier time.
        case unknownCommand
        /// `CLIENT_ERROR unauthenticated`: it has to be told a user first.
        case unauthenticated
        /// `CLIENT_ERROR cannot increment or decrement non-numeric value`.
        case notANumber
        /// `SERVER_ERROR object too large for cache`.
        case tooLarge
        /// `SERVER_ERROR out of memory`, with or without what it was needed for.
        case outOfMemory
        /// Any other `CLIENT_ERROR`.
        case client
        /// Any other `SERVER_ERROR`.
        case server
    }

    var kind: Kind
    /// `c`: the token; 0 if there is none, which memcached never counts.
    var token: UInt64 = 0
    /// `O`: the mark that the request carried.
    var mark: UInt32?
}

/// What no memcached would send: the connection is worth nothing from here on.
enum MetaReplyProblem: Error, Equatable, Sendable {
    case endlessLine
    case brokenLine
    case unknownReply
    case valueTooLong
    case valueNotEnded
}
