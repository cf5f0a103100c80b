import Testing

@testable import LimpetServer

@Suite struct `The memory of a session` {
    private static let frameBuffer = 16_394

    private func memory() -> SessionMemory { SessionMemory(ConnectionRecord(limits: ServerLimits())) }

    @Test func `has the session and the beginning of the frame buffer in the record's page`() throws {
        let memory = memory()
        let page = UInt(bitPattern: memory.record) / 4096
        let session = try #require(allocateZeroesForSession(1, 2928, memory.userData))
        let buffer = try #require(allocateForSession(Self.frameBuffer, memory.userData))
        #expect(UInt(bitPattern: memory.record) % 4096 == 0)
        #expect(UInt(bitPattern: session) / 4096 == page)
        #expect(UInt(bitPattern: buffer) / 4096 == page)
        #expect(buffer - session >= 2928)
        let bytes = UnsafeRawBufferPointer(start: session, count: 2928)
        #expect(bytes.allSatisfy { $0 == 0 })
        // Nothing of the block is given back before its end: the memory stays as it was.
        freeForSession(buffer, memory.userData)
        freeForSession(session, memory.userData)
        memory.record.pointee.isPingDue = true
        #expect(memory.record.pointee.isPingDue)
    }

    @Test func `hands out each part once`() throws {
        let memory = memory()
        for size in [2928, Self.frameBuffer] {
            let first = try #require(allocateZeroesForSession(1, size, memory.userData))
            let second = try #require(allocateZeroesForSession(1, size, memory.userData))
            #expect(first != second)
            freeForSession(second, memory.userData)
            freeForSession(first, memory.userData)
        }
        let first = try #require(allocateForSession(Self.frameBuffer, memory.userData))
        let second = try #require(allocateForSession(Self.frameBuffer, memory.userData))
        #expect(abs(second - first) >= Self.frameBuffer)
        freeForSession(second, memory.userData)
        freeForSession(first, memory.userData)
    }

    @Test func `leaves a session to malloc that does not fit`() throws {
        let memory = memory()
        let session = try #require(allocateZeroesForSession(1, 4096, memory.userData))
        #expect(UInt(bitPattern: session) / 4096 != UInt(bitPattern: memory.record) / 4096)
        freeForSession(session, memory.userData)
    }

    @Test func `moves a part that has to grow`() throws {
        let memory = memory()
        let part = try #require(reallocateForSession(nil, Self.frameBuffer, memory.userData))
        part.storeBytes(of: 0x1234_5678, as: UInt32.self)
        (part + Self.frameBuffer - 1).storeBytes(of: 0x9a, as: UInt8.self)
        let moved = try #require(reallocateForSession(part, 2 * Self.frameBuffer, memory.userData))
        #expect(moved != part)
        #expect(moved.load(as: UInt32.self) == 0x1234_5678)
        #expect((moved + Self.frameBuffer - 1).load(as: UInt8.self) == 0x9a)
        let grown = try #require(reallocateForSession(moved, 4 * Self.frameBuffer, memory.userData))
        #expect(grown.load(as: UInt32.self) == 0x1234_5678)
        freeForSession(grown, memory.userData)
    }
}
