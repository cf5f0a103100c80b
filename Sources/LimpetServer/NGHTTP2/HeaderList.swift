#if canImport(Glibc)
    import Glibc
#elseif canImport(Darwin)
    import Darwin
#endif

/// The fields of a header list as they came, one after the other, to see what the next list repeats: clients say most of what they
/// say with every request.
struct HeaderList {
    private struct Entry {
        let nameLength: Int
        let valueLength: Int
        let isNeverIndexed: Bool
    }

    private var bytes: [UInt8] = []
    private var entries: [Entry] = []

    var count: Int { entries.count }

    mutating func removeAll() {
        bytes.removeAll(keepingCapacity: true)
        entries.removeAll(keepingCapacity: true)
    }

    mutating func append(
        _ name: UnsafeBufferPointer<UInt8>, _ value: UnsafeBufferPointer<UInt8>, isNeverIndexed: Bool
    ) {
        bytes.append(contentsOf: name)
        bytes.append(contentsOf: value)
        entries.append(Entry(nameLength: name.count, valueLength: value.count, isNeverIndexed: isNeverIndexed))
    }

    /// Replaces the list with the beginning of another.
    ///
    /// - Parameter length: the number of bytes that those fields have.
    mutating func take(_ count: Int, ofLength length: Int, from other: HeaderList) {
        removeAll()
        bytes.append(contentsOf: other.bytes[..<length])
        entries.append(contentsOf: other.entries[..<count])
    }

    /// Calls with the names of the first fields.
    func forEachName(of count: Int, _ body: (UnsafeBufferPointer<UInt8>) -> Void) {
        bytes.withUnsafeBufferPointer { bytes in
            var position = 0
            for entry in entries.prefix(count) {
                body(UnsafeBufferPointer(rebasing: bytes[position..<position + entry.nameLength]))
                position += entry.nameLength + entry.valueLength
            }
        }
    }

    /// Whether a field is the same as the list's at an index.
    ///
    /// - Parameter position: where the field begins in the list; moved to where the next one does.
    func repeats(
        _ name: UnsafeBufferPointer<UInt8>, _ value: UnsafeBufferPointer<UInt8>, isNeverIndexed: Bool, at index: Int,
        _ position: inout Int
    ) -> Bool {
        guard index < entries.count else { return false }
        let entry = entries[index]
        let start = position
        position += entry.nameLength + entry.valueLength
        guard entry.nameLength == name.count, entry.valueLength == value.count, entry.isNeverIndexed == isNeverIndexed
        else { return false }
        return bytes.withUnsafeBufferPointer { bytes in
            // Both ranges lie within `bytes`, which holds the entries' names and values one after the other.
            isEqual(bytes[start..<start + name.count], name)
                && isEqual(bytes[start + name.count..<start + name.count + value.count], value)
        }
    }

    private func isEqual(_ bytes: Slice<UnsafeBufferPointer<UInt8>>, _ other: UnsafeBufferPointer<UInt8>) -> Bool {
        // Of the same length, as was checked before; an empty buffer may have no address.
        guard let first = UnsafeBufferPointer(rebasing: bytes).baseAddress, let second = other.baseAddress else {
            return true
        }
        return memcmp(first, second, other.count) == 0
    }
}
