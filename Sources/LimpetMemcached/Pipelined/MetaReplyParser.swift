import NIOCore

/// Reads memcached's replies from bytes as they come, in pieces of any size.
///
/// A value without any input or output of its own. It holds no more than what came, and refuses a line or a value that is
/// announced to be longer than can be.
struct MetaReplyParser: Sendable {
    /// The longest line that memcached sends is one of `stats settings`, with a path in it; paths have 4096 bytes (PATH_MAX).
    static let longestLine = 8192

    /// A cut reply is completed with so many bytes at least, so that a line is not looked at for each byte of it.
    private static let step = 64

    /// How long a value may be, in bytes.
    private let longestValue: Int
    /// The beginning of a reply that was cut.
    private var rest = ByteBuffer()
    /// What was fed behind it.
    private var piece = ByteBuffer()
    /// Below so many bytes there cannot be another reply.
    private var needed = 1

    /// - Parameter longestValue: memcached's largest item size is 1 GiB (`-I`, memcached(1)).
    init(longestValue: Int = MetaHandshake.Limits.largestItem) {
        self.longestValue = min(longestValue, MetaHandshake.Limits.largestItem)
    }

    /// Whether there is nothing left of what was fed.
    var isEmpty: Bool { rest.readableBytes == 0 && piece.readableBytes == 0 }
    /// How much memory it holds, in bytes.
    var capacity: Int { rest.storageCapacity + piece.storageCapacity }

    /// Takes the next bytes.
    mutating func feed(_ bytes: ByteBuffer) {
        if piece.readableBytes == 0 { piece = bytes } else { piece.writeImmutableBuffer(bytes) }
    }

    /// Takes the next reply out of what was fed.
    ///
    /// - Returns: `nil` if its end has not come yet.
    mutating func next() throws(MetaReplyProblem) -> MetaReply? {
        while true {
            if rest.readableBytes == 0 {
                if let reply = try Self.take(from: &piece, &needed, longestValue) { return reply }
                guard piece.readableBytes > 0 else { return nil }
            } else if let reply = try Self.take(from: &rest, &needed, longestValue) {
                return reply
            } else if piece.readableBytes == 0 {
                return nil
            }
            complete()
        }
    }

    /// Moves what a cut reply lacks from the piece that came behind it. The piece's storage, into which the next bytes may be
    /// read, is not kept.
    private mutating func complete() {
        let lacking = max(needed - rest.readableBytes, Self.step)
        if var bytes = piece.readSlice(length: min(lacking, piece.readableBytes)) {
            rest.discardReadBytes()
            rest.writeBuffer(&bytes)
        }
        if piece.readableBytes == 0 { piece = ByteBuffer() }
    }

    /// Takes the first reply out of a buffer, if all of it is there.
    private static func take(from buffer: inout ByteBuffer, _ needed: inout Int, _ longestValue: Int)
        throws(MetaReplyProblem) -> MetaReply?
    {
        guard buffer.readableBytes >= needed else { return nil }
        guard let length = try lineLength(buffer.readableBytesUInt8Span) else {
            needed = buffer.readableBytes + 1
            return nil
        }
        var line = MetaLine(end: length - 2)
        var reply = MetaReply(kind: .done)
        let head = try line.head(buffer.readableBytesUInt8Span)
        if case .value(let count) = head {
            guard count <= longestValue else { throw .valueTooLong }
            needed = length + count + 2  // No overflow: a value is far below the largest integer.
            guard buffer.readableBytes >= needed else { return nil }
            try line.flags(of: &reply, buffer.readableBytesUInt8Span)
            buffer.moveReaderIndex(forwardBy: length)
            // Both are there: the line above counted them.
            reply.kind = .value(buffer.readBytes(length: count) ?? [])
            guard buffer.readInteger(as: UInt16.self) == 0x0D0A else { throw .valueNotEnded }
        } else {
            reply.kind = try line.kind(head, buffer.readableBytesUInt8Span)
            if line.hasFlags { try line.flags(of: &reply, buffer.readableBytesUInt8Span) }
            buffer.moveReaderIndex(forwardBy: length)
        }
        needed = 1
        // Storage that nobody holds can be read into again.
        if buffer.readableBytes == 0 { buffer = ByteBuffer() }
        return reply
    }

    /// How long the first line is, with its end; `nil` if the end has not come yet.
    private static func lineLength(_ bytes: borrowing Span<UInt8>) throws(MetaReplyProblem) -> Int? {
        let last = min(bytes.count, longestLine)
        var index = 0
        while index < last {
            if bytes[index] == UInt8(ascii: "\n") {
                guard index > 0, bytes[index - 1] == UInt8(ascii: "\r") else { throw .brokenLine }
                return index + 1
            }
            index += 1
        }
        guard bytes.count < longestLine else { throw .endlessLine }
        return nil
    }
}

/// How far one line of a reply has been read. The bytes begin with the line.
private struct MetaLine {
    /// What a line begins with.
    enum Head {
        /// `VA`, with the length of the value.
        case value(Int)
        /// Two letters of a meta command's reply.
        case code(MetaReply.Kind)
        /// A word in capitals.
        case word
    }

    /// Where the line ends, without `\r\n`.
    private let end: Int
    private var index = 0

    init(end: Int) {
        self.end = end
    }

    /// Reads the code, and the length of a value.
    mutating func head(_ bytes: Span<UInt8>) throws(MetaReplyProblem) -> Head {
        guard end >= 2, end == 2 || bytes[2] == UInt8(ascii: " ") else { return .word }
        index = 2
        switch (bytes[0], bytes[1]) {
        case (UInt8(ascii: "V"), UInt8(ascii: "A")):
            guard index < end else { throw .brokenLine }
            index += 1
            guard let count = Int(exactly: try number(bytes)) else { throw .valueTooLong }
            return .value(count)
        case (UInt8(ascii: "H"), UInt8(ascii: "D")): return .code(.done)
        case (UInt8(ascii: "E"), UInt8(ascii: "N")): return .code(.miss)
        case (UInt8(ascii: "N"), UInt8(ascii: "S")): return .code(.notStored)
        case (UInt8(ascii: "E"), UInt8(ascii: "X")): return .code(.exists)
        case (UInt8(ascii: "N"), UInt8(ascii: "F")): return .code(.notFound)
        case (UInt8(ascii: "M"), UInt8(ascii: "N")): return .code(.noop)
        // What `HD` was before 1.6.10, when the commands were called experimental: other commands than those asked for.
        case (UInt8(ascii: "O"), UInt8(ascii: "K")): return .code(.refusal(.unknownCommand))
        default: throw .unknownReply
        }
    }

    /// Whether flags may follow: behind a word there are none.
    var hasFlags: Bool { index > 0 }

    /// What a line without a value says.
    func kind(_ head: Head, _ bytes: Span<UInt8>) throws(MetaReplyProblem) -> MetaReply.Kind {
        if case .code(let kind) = head { return kind }
        let text = String(decoding: (0..<end).map { bytes[$0] }, as: UTF8.self)
        switch text {
        case "STORED": return .done
        case "NOT_STORED": return .notStored
        case "EXISTS": return .exists
        case "NOT_FOUND": return .notFound
        case "END": return .end
        case "ERROR": return .refusal(.unknownCommand)
        default: break
        }
        let words = text.split(separator: " ", maxSplits: 2, omittingEmptySubsequences: false)
        switch words[0] {
        case "STAT" where words.count >= 2:
            return .statistic(String(words[1]), words.count == 3 ? String(words[2]) : "")
        case "CLIENT_ERROR":
            if text.hasSuffix(" unauthenticated") { return .refusal(.unauthenticated) }
            return .refusal(text.hasSuffix(" non-numeric value") ? .notANumber : .client)
        case "SERVER_ERROR":
            if text.hasSuffix(" object too large for cache") { return .refusal(.tooLarge) }
            return .refusal(text.hasPrefix("SERVER_ERROR out of memory") ? .outOfMemory : .server)
        default: throw .unknownReply
        }
    }

    /// Reads the flags behind a code: those that were asked for, and passes over others.
    mutating func flags(of reply: inout MetaReply, _ bytes: Span<UInt8>) throws(MetaReplyProblem) {
        while index < end {
            guard bytes[index] == UInt8(ascii: " "), index + 1 < end else { throw .brokenLine }
            let flag = bytes[index + 1]
            index += 2
            switch flag {
            case UInt8(ascii: "c"): reply.token = try number(bytes)
            case UInt8(ascii: "O"): reply.mark = try mark(bytes)
            case UInt8(ascii: " "): throw .brokenLine
            default: while index < end, bytes[index] != UInt8(ascii: " ") { index += 1 }
            }
        }
    }

    /// A decimal number up to the next space.
    private mutating func number(_ bytes: Span<UInt8>) throws(MetaReplyProblem) -> UInt64 {
        let start = index
        var number: UInt64 = 0
        while index < end, bytes[index] != UInt8(ascii: " ") {
            let digit = bytes[index] &- UInt8(ascii: "0")
            guard digit <= 9 else { throw .brokenLine }
            let (tens, isTooLarge) = number.multipliedReportingOverflow(by: 10)
            let (sum, isLarger) = tens.addingReportingOverflow(UInt64(digit))
            guard !isTooLarge, !isLarger else { throw .brokenLine }
            number = sum
            index += 1
        }
        guard index > start else { throw .brokenLine }
        return number
    }

    /// A mark as ``MetaRequest`` writes it: up to eight hexadecimal digits, in lower case.
    private mutating func mark(_ bytes: Span<UInt8>) throws(MetaReplyProblem) -> UInt32 {
        let start = index
        var mark: UInt32 = 0
        while index < end, bytes[index] != UInt8(ascii: " ") {
            let digit: UInt8
            switch bytes[index] {
            case UInt8(ascii: "0")...UInt8(ascii: "9"): digit = bytes[index] - UInt8(ascii: "0")
            case UInt8(ascii: "a")...UInt8(ascii: "f"): digit = bytes[index] - UInt8(ascii: "a") + 10
            default: throw .brokenLine
            }
            guard index - start < 8 else { throw .brokenLine }
            mark = mark << 4 | UInt32(digit)
            index += 1
        }
        guard index > start else { throw .brokenLine }
        return mark
    }
}
