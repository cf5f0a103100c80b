import SwiftProtobuf

#if canImport(FoundationEssentials)
    import FoundationEssentials
#else
    import Foundation
#endif

/// Which start of which node.
struct NodeIdentity: Sendable, Hashable {
    /// The route: the node's name in the cookie.
    let name: String
    /// New at each start: what an earlier process of the same name had is not trusted.
    let incarnation: UInt64
}

/// A session as the store holds it. **The record in the store is the truth**; this value is what was read or is to be
/// written. Times are milliseconds since 1970.
struct SessionRecord: Sendable {
    var home: NodeIdentity
    var epoch: Epoch
    var createdAt: Int64
    /// When the newest request came, and the one before it.
    var accessedAt: Int64
    var lastAccessedAt: Int64
    var cookieSetAt: Int64
    /// Milliseconds without a request after which the session ends.
    var maxInactive: Int64
    var attributes: [String: Attribute]
    /// What a newer version wrote in the record, and beside it: carried from read to write.
    var unknownFields = UnknownStorage()
    var unknownEntryFields = UnknownStorage()

    var expiresAt: Int64 { accessedAt + maxInactive }
}

/// A session that has ended, or whose id was changed: nothing is ever stored over it, but by who wrote it for a change of the id
/// that then failed.
struct Tombstone: Sendable {
    /// Tells its writer, after an unknown outcome, whether it was the one.
    struct Nonce: Sendable, Hashable {
        let high: UInt64
        let low: UInt64

        init(high: UInt64 = .random(), low: UInt64 = .random()) {
            self.high = high
            self.low = low
        }
    }

    enum Reason: Sendable, Hashable {
        case invalidated, expired, rotated
        /// Of a newer version. It has ended all the same.
        case unknown
    }

    /// R24: the session as it was before its id was changed. The old id reads it for a while, and cannot write it.
    struct Alias: Sendable {
        /// Its home is the node that changed the id.
        let record: SessionRecord
        /// By the clock of that node, milliseconds since 1970.
        let readableUntil: Int64
    }

    var nonce = Nonce()
    let reason: Reason
    var alias: Alias?
}

/// What `d/<H>` holds.
enum StoredSession: Sendable {
    case record(SessionRecord)
    case tombstone(Tombstone)

    /// - Throws: ``StoreError`` (`corrupt`) if the bytes are no entry, or another session's.
    init(bytes: [UInt8], keys: SessionStoreKeys) throws(StoreError) {
        let entry: WireEntry
        do {
            entry = try WireEntry(serializedBytes: bytes)
        } catch {
            throw StoreError(.corrupt, "a session's value in the store is no record", mayHaveTakenEffect: false)
        }
        guard Array(entry.keyHash) == keys.digest else {
            throw StoreError(.corrupt, "the store answered with another key's value", mayHaveTakenEffect: false)
        }
        switch entry.content {
        case .record(let record): self = .record(SessionRecord(record, entryFields: entry.unknownFields))
        case .tombstone(let tombstone): self = .tombstone(Tombstone(tombstone))
        case nil:
            // Whether it is a session or the end of one, only a newer version can say: nothing is written over it.
            throw StoreError(
                .corrupt, "a session's value is of a kind that this version does not know", mayHaveTakenEffect: false)
        }
    }

    func bytes(keys: SessionStoreKeys) throws(StoreError) -> [UInt8] {
        var entry = WireEntry()
        entry.keyHash = Data(keys.digest)
        switch self {
        case .record(let record):
            entry.content = .record(WireRecord(record))
            entry.unknownFields = record.unknownEntryFields
        case .tombstone(let tombstone): entry.content = .tombstone(WireTombstone(tombstone))
        }
        return try encoded(entry)
    }
}

/// What `a/<H>` holds.
struct AccessTime: Sendable {
    let accessedAt: Int64

    init(accessedAt: Int64) {
        self.accessedAt = accessedAt
    }

    init(bytes: [UInt8], keys: SessionStoreKeys) throws(StoreError) {
        do {
            let wire = try WireAccessTime(serializedBytes: bytes)
            guard Array(wire.keyHash) == keys.digest else {
                throw StoreError(.corrupt, "the store answered with another key's value", mayHaveTakenEffect: false)
            }
            accessedAt = wire.accessedAt
        } catch let error as StoreError {
            throw error
        } catch {
            throw StoreError(.corrupt, "an access time in the store cannot be read", mayHaveTakenEffect: false)
        }
    }

    func bytes(keys: SessionStoreKeys) throws(StoreError) -> [UInt8] {
        var wire = WireAccessTime()
        wire.keyHash = Data(keys.digest)
        wire.accessedAt = accessedAt
        return try encoded(wire)
    }
}

func encoded(_ message: some SwiftProtobuf.Message) throws(StoreError) -> [UInt8] {
    do {
        return try message.serializedBytes()
    } catch {
        // Only a message of over 2 GiB cannot be written.
        throw StoreError(.tooLarge, "the session is larger than any store takes", mayHaveTakenEffect: false)
    }
}

extension SessionRecord {
    fileprivate init(_ wire: WireRecord, entryFields: UnknownStorage = UnknownStorage()) {
        self.init(
            home: NodeIdentity(name: wire.home, incarnation: wire.incarnation), epoch: Epoch(wire.epoch),
            createdAt: wire.createdAt, accessedAt: wire.accessedAt, lastAccessedAt: wire.lastAccessedAt,
            cookieSetAt: wire.cookieSetAt, maxInactive: wire.maxInactive, attributes: [:],
            unknownFields: wire.unknownFields, unknownEntryFields: entryFields)
        for attribute in wire.attributes {
            attributes[attribute.name] = Attribute(
                codec: attribute.codec, bytes: Array(attribute.value), unknownFields: attribute.unknownFields)
        }
    }
}

extension WireRecord {
    fileprivate init(_ record: SessionRecord) {
        self.init()
        home = record.home.name
        incarnation = record.home.incarnation
        epoch = record.epoch.value
        createdAt = record.createdAt
        accessedAt = record.accessedAt
        lastAccessedAt = record.lastAccessedAt
        cookieSetAt = record.cookieSetAt
        maxInactive = record.maxInactive
        expiresAt = record.expiresAt
        attributes = record.attributes.sorted { $0.key < $1.key }.map { name, attribute in
            var wire = WireAttribute()
            wire.name = name
            wire.codec = attribute.codec
            wire.value = Data(attribute.bytes)
            wire.unknownFields = attribute.unknownFields
            return wire
        }
        unknownFields = record.unknownFields
    }
}

extension Tombstone {
    fileprivate init(_ wire: WireTombstone) {
        let reason: Reason =
            switch wire.reason {
            case .invalidated: .invalidated
            case .expired: .expired
            case .rotated: .rotated
            case .unspecified, .UNRECOGNIZED: .unknown
            }
        let alias = wire.hasBefore ? Alias(record: SessionRecord(wire.before), readableUntil: wire.readableUntil) : nil
        self.init(nonce: Nonce(high: wire.nonceHigh, low: wire.nonceLow), reason: reason, alias: alias)
    }
}

extension WireTombstone {
    fileprivate init(_ tombstone: Tombstone) {
        self.init()
        nonceHigh = tombstone.nonce.high
        nonceLow = tombstone.nonce.low
        reason =
            switch tombstone.reason {
            case .invalidated: .invalidated
            case .expired: .expired
            case .rotated: .rotated
            case .unknown: .unspecified
            }
        if let alias = tombstone.alias {
            before = WireRecord(alias.record)
            readableUntil = alias.readableUntil
        }
    }
}
