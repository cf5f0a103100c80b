#if canImport(Glibc)
    import Glibc
#elseif canImport(Darwin)
    import Darwin
#endif

/// The memory of a session that lives as long as it does: the ``ConnectionRecord``, and what the library asks for when it
/// makes the session.
///
/// The library keeps a buffer of 16,394 bytes for the frame that it sends; the head of a response takes its first few
/// hundred. Where `malloc` puts it, other blocks share its first and its last page, and 4 KiB of it are memory that nobody
/// writes to. Here the record, the session and the beginning of the buffer share one page, and the rest of the buffer has
/// pages of its own, which the system backs with memory once they are written to: 3 KiB less for an idle connection.
///
/// All else that the library allocates comes from `malloc`, and so do these two if another version asks for other sizes.
struct SessionMemory: ~Copyable {
    /// The smallest page that there is. Larger ones save less.
    fileprivate static let page = 4096
    /// NGHTTP2_FRAMEBUF_CHUNKLEN of the library's sources: the largest frame, and the byte that tells the length of padding.
    fileprivate static let frameBuffer = 9 + 1 + 16_384
    /// Whole pages, with room for 4,086 bytes in front of the buffer: all but ten of the first one's.
    fileprivate static let block = (frameBuffer + page - 1) / page * page

    /// At the beginning of the block; valid as long as this value.
    let record: UnsafeMutablePointer<ConnectionRecord>
    private let parts: UnsafeMutablePointer<Parts>

    init(_ record: consuming ConnectionRecord) {
        let block = UnsafeMutableRawPointer.allocate(byteCount: Self.block, alignment: Self.page)
        // Both are a few hundred bytes, well within the first page, and begin at multiples of 16.
        let behindRecord = block + MemoryLayout<ConnectionRecord>.size.rounded
        self.record = block.initializeMemory(as: ConnectionRecord.self, to: record)
        parts = behindRecord.initializeMemory(
            as: Parts.self, to: Parts(block: block, free: behindRecord + MemoryLayout<Parts>.size.rounded))
    }

    /// The session has been deleted: it is the owner's duty to do that first.
    deinit {
        parts.deinitialize(count: 1)
        record.deinitialize(count: 1)
        UnsafeMutableRawPointer(record).deallocate()
    }

    /// What the library passes to the functions below.
    var userData: UnsafeMutableRawPointer { UnsafeMutableRawPointer(parts) }

    /// Which parts of the block have been handed out.
    fileprivate struct Parts {
        let block: UnsafeMutableRawPointer
        /// From here to the block's end nothing has.
        var free: UnsafeMutableRawPointer
        var hasSession = false
        var hasFrameBuffer = false

        func contains(_ address: UnsafeMutableRawPointer) -> Bool {
            address >= block && address < block + SessionMemory.block
        }

        /// The first block of zeroes that the library asks for: the session.
        mutating func session(_ size: Int) -> UnsafeMutableRawPointer? {
            guard !hasSession else { return nil }
            hasSession = true
            // Within the first page.
            guard size <= block + SessionMemory.page - free else { return nil }
            defer { free += size.rounded }
            return memset(free, 0, size)
        }

        mutating func frameBuffer() -> UnsafeMutableRawPointer? {
            guard !hasFrameBuffer else { return nil }
            hasFrameBuffer = true
            // It begins in the first page, or at its end: what follows has room for the whole buffer less what lies there.
            return free + SessionMemory.frameBuffer <= block + SessionMemory.block ? free : nil
        }
    }
}

extension Int {
    /// The next multiple of what `malloc` aligns blocks to.
    fileprivate var rounded: Int { (self + 15) & ~15 }
}

// MARK: What the library calls instead of `malloc` and its kin, with ``SessionMemory/userData``.

/// The parts behind `userData`: they lie in the same block as the session that calls.
private func parts(_ userData: UnsafeMutableRawPointer?) -> UnsafeMutablePointer<SessionMemory.Parts> {
    guard let userData else { preconditionFailure("the session was made with its memory") }
    return userData.assumingMemoryBound(to: SessionMemory.Parts.self)
}

func allocateForSession(_ size: Int, _ userData: UnsafeMutableRawPointer?) -> UnsafeMutableRawPointer? {
    if size == SessionMemory.frameBuffer, let buffer = parts(userData).pointee.frameBuffer() { return buffer }
    return malloc(size)
}

func allocateZeroesForSession(
    _ count: Int, _ size: Int, _ userData: UnsafeMutableRawPointer?
) -> UnsafeMutableRawPointer? {
    if count == 1, let session = parts(userData).pointee.session(size) { return session }
    return calloc(count, size)
}

func reallocateForSession(
    _ address: UnsafeMutableRawPointer?, _ size: Int, _ userData: UnsafeMutableRawPointer?
) -> UnsafeMutableRawPointer? {
    guard let address else { return allocateForSession(size, userData) }
    guard parts(userData).pointee.contains(address) else { return realloc(address, size) }
    guard let other = malloc(size) else { return nil }
    // Not beyond the block; what it holds behind the part is as good as any bytes.
    return memcpy(other, address, min(size, parts(userData).pointee.block + SessionMemory.block - address))
}

func freeForSession(_ address: UnsafeMutableRawPointer?, _ userData: UnsafeMutableRawPointer?) {
    // The parts go with the block.
    guard let address, !parts(userData).pointee.contains(address) else { return }
    free(address)
}
