import NIOCore
import Testing

@testable import LimpetServer

/// What an attacker does on a connection, and then on the next one.
///
/// `/wait` is answered by nobody, `/large` with more than a client takes that does not read.
struct Flood: Sendable, CustomTestStringConvertible {
    enum Course: Sendable {
        /// Sends something again and again, as fast as the server takes it. The server ends the connection.
        case endless(start: [UInt8], unit: @Sendable (_ count: Int) -> [UInt8])
        /// Sends something once on each of many connections, and then nothing more, until so many frames have come of one kind on each.
        case slow([UInt8], until: @Sendable (Frame) -> Bool, count: Int)
        /// Sends something once on each of many connections, `/wait` once included, and reads nothing. The server closes them.
        case deaf([UInt8])
        /// Sends something, and goes away at once.
        case brief([UInt8])
    }

    let testDescription: String
    let course: Course
    /// What the server counts it as; `nil` if there is nothing wrong with it.
    let limit: ServerLimit?
    /// What the library ends the connection with, where it does so by itself and nothing is counted.
    var libraryEnds: WireCode?
    /// Makes the server's time-outs short that it runs into.
    var hurry: @Sendable (inout ServerLimits) -> Void = { _ in }

    static let all = endless + slow

    private static let greeting = Frame.preface + Frame.emptySettings.bytes

    // MARK: Floods that are as fast as can be

    private static let endless = [
        repeated("PING", .ping(), .answers),
        repeated("SETTINGS", .emptySettings, .answers),
        repeated("empty DATA", .data(1, [], endStream: false), .idleFrames),
        repeated("WINDOW_UPDATE of 1", .windowUpdate(0, 1), .idleFrames),
        repeated("PRIORITY", .priority(1, on: 0), .idleFrames),
        repeated("frames of an unknown type", Frame(kind: .init(rawValue: 0xfe), payload: [1]), .idleFrames),
        Flood(
            testDescription: "CONTINUATION (CVE-2024-28182)",
            course: .endless(
                start: greeting + Frame.block(1, requestBlock(), flags: 0).bytes,
                unit: { _ in [UInt8](repeating: Frame.continuation(1, [], isLast: false).bytes, count: 1000) }),
            limit: .continuations),
        eachStream("requests that are reset (CVE-2023-44487)", .resets) { stream in
            Frame.request(stream, "GET", "/wait").bytes + Frame.reset(stream).bytes
        },
        // libnghttp2 1.52 resets the stream, newer ones end the connection (RFC 9113, section 6.9.1, permits both).
        eachStream("windows that overflow (CVE-2025-8671)", .provokedResets, libraryEnds: .flowControlError) { stream in
            Frame.request(stream, "GET", "/wait").bytes + Frame.windowUpdate(stream, 0x7fff_ffff).bytes
        },
        eachStream("malformed requests", .provokedResets) { stream in
            Frame.request(stream, fields: [("Upper", "1")]).bytes
        },
        headerBombs,
        Flood(
            testDescription: "connections", course: .brief(greeting + Frame.request(1).bytes), limit: nil),
    ]

    private static func repeated(_ name: String, _ frame: Frame, _ limit: ServerLimit) -> Flood {
        let open = Frame.request(1, "POST", "/wait", endStream: false).bytes
        let many = [UInt8](repeating: frame.bytes, count: 1000)
        return Flood(
            testDescription: name, course: .endless(start: greeting + open, unit: { _ in many }), limit: limit)
    }

    /// Something on stream after stream.
    private static func eachStream(
        _ name: String, _ limit: ServerLimit, after start: [UInt8] = [], libraryEnds: WireCode? = nil,
        _ make: @escaping @Sendable (_ stream: UInt32) -> [UInt8]
    ) -> Flood {
        let perUnit = 20
        return Flood(
            testDescription: name,
            course: .endless(start: greeting + start) { count in
                (count * perUnit..<(count + 1) * perUnit).flatMap { make(UInt32(2 * $0 + 3)) }
            }, limit: limit, libraryEnds: libraryEnds)
    }

    /// Fills the compression table with one field, and then names it 15,000 times in each request: 59 MB.
    private static var headerBombs: Flood {
        let field = [0x40] + Frame.literal("x") + Frame.literal(String(repeating: "y", count: 3900))
        let named = requestBlock() + [UInt8](repeating: 0xbe, count: 15_000)
        return eachStream(
            "HPACK bombs", .provokedResets,
            after: Frame.block(1, requestBlock() + field).bytes
        ) { Frame.block($0, named).bytes }
    }

    // MARK: Floods of connections that do next to nothing

    /// Streams that a client may have open.
    private static let streams = stride(from: UInt32(1), to: 201, by: 2)

    private static let slow = [
        Flood(
            testDescription: "windows that stay shut",
            course: .slow(
                Frame.preface + Frame.settings((4, 0)).bytes
                    + streams.flatMap { Frame.request($0, "GET", "/large").bytes },
                until: { $0.kind == .resetStream && $0.number(at: 0) == WireCode.cancel.rawValue }, count: 100),
            limit: .writeRate, hurry: { $0.writeTimeout = .milliseconds(100) }),
        Flood(
            testDescription: "slow headers",
            course: .slow(
                greeting + Frame.block(1, Array(requestBlock().prefix(3)), flags: 0).bytes, until: Self.isCalm, count: 1
            ),
            limit: .headerTime, hurry: { $0.headerTimeout = .milliseconds(100) }),
        Flood(
            testDescription: "slow bodies",
            course: .slow(
                greeting
                    + streams.flatMap {
                        Frame.request($0, "POST", "/read", endStream: false).bytes
                            + Frame.data($0, [1], endStream: false).bytes
                    },
                until: { $0.kind == .headers }, count: 100),
            limit: .bodyRate, hurry: { $0.bodyTimeout = .milliseconds(100) }),
        Flood(
            testDescription: "answers that are not read",
            course: .deaf(
                Frame.preface + Frame.settings((4, 0x7fff_ffff)).bytes + Frame.windowUpdate(0, 0x7fff_0000).bytes
                    + Frame.request(1, "GET", "/wait").bytes
                    + streams.dropFirst().flatMap { Frame.request($0, "GET", "/large").bytes }),
            limit: .writeRate,
            hurry: {
                $0.writeTimeout = .milliseconds(100)
                $0.refusalTimeout = .milliseconds(100)
            }),
    ]

    /// Whether this ends the connection with ENHANCE_YOUR_CALM.
    static func isCalm(_ frame: Frame) -> Bool {
        frame.kind == .goAway && frame.number(at: 4) == WireCode.enhanceYourCalm.rawValue
    }

    /// Whether this ends the connection as the library would.
    func isEndedByLibrary(_ frame: Frame) -> Bool {
        frame.kind == .goAway && frame.number(at: 4) == libraryEnds?.rawValue
    }
}

extension [UInt8] {
    /// The same bytes again and again.
    fileprivate init(repeating bytes: [UInt8], count: Int) {
        self = (0..<count).flatMap { _ in bytes }
    }
}
