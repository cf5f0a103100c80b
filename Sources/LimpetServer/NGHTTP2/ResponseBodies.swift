import NIOCore

/// The bodies that are being sent on one connection, by a number that the session keeps with the stream.
struct ResponseBodies {
    private struct Body {
        var bytes: [UInt8]
        var sent = 0
    }

    private var bodies: [Body] = []
    private var free: [Int] = []

    mutating func insert(_ bytes: [UInt8]) -> Int {
        guard let slot = free.popLast() else {
            bodies.append(Body(bytes: bytes))
            return bodies.count - 1
        }
        bodies[slot] = Body(bytes: bytes)
        return slot
    }

    mutating func remove(_ slot: Int) {
        bodies[slot].bytes = []
        free.append(slot)
    }

    func bytesLeft(_ slot: Int) -> Int {
        bodies[slot].bytes.count - bodies[slot].sent
    }

    /// Appends the next bytes of a body to what is written.
    mutating func write(_ count: Int, of slot: Int, to output: inout ByteBuffer) {
        let start = bodies[slot].sent
        bodies[slot].bytes.withUnsafeBytes { bytes in
            _ = output.writeBytes(UnsafeRawBufferPointer(rebasing: bytes[start..<start + count]))
        }
        bodies[slot].sent = start + count
    }
}
