import NIOCore

/// One command to memcached. Keys are valid (`StoreKey.isValid`): they are written as they are.
enum MetaRequest: Sendable {
    /// When a value is written.
    enum Condition: Sendable {
        case absent
        case present
        case token(UInt64)
    }

    case get(String)
    case put([UInt8], String, Duration, Condition)
    case increment(String, UInt64)
    case touch(String, Duration)
    case delete(String, ifToken: UInt64?)

    /// About how many bytes it has on the wire: what a line has beside key and value is less than 64.
    var size: Int {
        switch self {
        case .put(let bytes, let key, _, _): bytes.count + key.utf8.count + 64
        case .get(let key), .increment(let key, _), .touch(let key, _), .delete(let key, _): key.utf8.count + 64
        }
    }

    /// Writes the command with a mark that the reply repeats.
    func write(to buffer: inout ByteBuffer, mark: UInt32) {
        switch self {
        case .get(let key):
            buffer.writeStaticString("mg ")
            buffer.writeString(key)
            buffer.writeStaticString(" c v O")
        case .put(let bytes, let key, let timeToLive, let condition):
            buffer.writeStaticString("ms ")
            buffer.writeString(key)
            buffer.writeStaticString(" ")
            buffer.writeDecimal(UInt64(bytes.count))
            buffer.writeTime(timeToLive)
            // Never without a condition: a `set` that finds no memory, or is too large, destroys the old value.
            switch condition {
            case .absent: buffer.writeStaticString(" c ME O")
            case .present: buffer.writeStaticString(" c MR O")
            case .token(let token):
                buffer.writeStaticString(" c C")
                buffer.writeDecimal(token)
                buffer.writeStaticString(" O")
            }
            buffer.writeMark(mark)
            buffer.writeBytes(bytes)
            buffer.writeStaticString("\r\n")
            return
        case .increment(let key, let amount):
            buffer.writeStaticString("ma ")
            buffer.writeString(key)
            buffer.writeStaticString(" v D")
            buffer.writeDecimal(amount)
            buffer.writeStaticString(" O")
        case .touch(let key, let timeToLive):
            buffer.writeStaticString("mg ")
            buffer.writeString(key)
            buffer.writeTime(timeToLive)
            buffer.writeStaticString(" O")
        case .delete(let key, let token):
            buffer.writeStaticString("md ")
            buffer.writeString(key)
            if let token {
                buffer.writeStaticString(" C")
                buffer.writeDecimal(token)
            }
            buffer.writeStaticString(" O")
        }
        buffer.writeMark(mark)
    }

    /// Writes a put as one of the older commands, whose replies carry neither mark nor token; but where they fail for want of
    /// memory, or because the value is too large, the old value stays (memcached 1.6.18: `ms` deletes it in every mode).
    func writeKeeping(to buffer: inout ByteBuffer) {
        guard case .put(let bytes, let key, let timeToLive, let condition) = self else { return }
        switch condition {
        case .absent: buffer.writeStaticString("add ")
        case .present: buffer.writeStaticString("replace ")
        case .token: buffer.writeStaticString("cas ")
        }
        buffer.writeString(key)
        buffer.writeStaticString(" 0 ")
        buffer.writeDecimal(UInt64(MemcachedTime.expiration(timeToLive)))
        buffer.writeStaticString(" ")
        buffer.writeDecimal(UInt64(bytes.count))
        if case .token(let token) = condition {
            buffer.writeStaticString(" ")
            buffer.writeDecimal(token)
        }
        buffer.writeStaticString("\r\n")
        buffer.writeBytes(bytes)
        buffer.writeStaticString("\r\n")
    }
}

extension ByteBuffer {
    fileprivate mutating func writeTime(_ timeToLive: Duration) {
        writeStaticString(" T")
        writeDecimal(UInt64(MemcachedTime.expiration(timeToLive)))
    }

    /// Ends a command.
    fileprivate mutating func writeMark(_ mark: UInt32) {
        writeWithOutputRawSpan(minimumWritableBytes: 10) { span in
            var shift: UInt32 = 28
            while shift > 0, mark >> shift == 0 { shift -= 4 }
            while true {
                let digit = UInt8(truncatingIfNeeded: mark >> shift & 0xF)
                span.append(digit < 10 ? UInt8(ascii: "0") + digit : UInt8(ascii: "a") - 10 + digit)
                if shift == 0 { break }
                shift -= 4
            }
            span.append(UInt8(ascii: "\r"))
            span.append(UInt8(ascii: "\n"))
        }
    }

    fileprivate mutating func writeDecimal(_ number: UInt64) {
        writeWithOutputRawSpan(minimumWritableBytes: 20) { span in
            var power: UInt64 = 1
            while number / power >= 10 { power *= 10 }
            while power > 0 {
                span.append(UInt8(ascii: "0") + UInt8(truncatingIfNeeded: number / power % 10))
                power /= 10
            }
        }
    }
}
