import Foundation
import HTTPTypes
import Testing

@testable import LimpetServer

/// Sequences of frames, damaged by chance. `LIMPET_FUZZ_SEQUENCES` tells how many, `LIMPET_FUZZ_SEED` the first one's
/// seed: a failure names its own, and so does a file if the process ends.
@Suite struct `Whatever a client sends, the server` {
    @Test func `stays within the protocol and forgets the connection at its end`() throws {
        let environment = ProcessInfo.processInfo.environment
        let first = environment["LIMPET_FUZZ_SEED"].flatMap { UInt64($0) } ?? 0
        #if DEBUG
            let standard = 300
        #else
            let standard = 100_000
        #endif
        let count = environment["LIMPET_FUZZ_SEQUENCES"].flatMap { Int($0) } ?? standard
        let file = FileManager.default.temporaryDirectory.appending(path: "limpet-fuzz-\(UUID().uuidString)")
        try Data().write(to: file)
        let current = try FileHandle(forWritingTo: file)
        for seed in first..<first + UInt64(count) {
            try current.seek(toOffset: 0)
            try current.write(contentsOf: Data("LIMPET_FUZZ_SEED=\(seed)\n".utf8))
            let faults = try faults(of: FrameSequence(seed: seed))
            #expect(faults == [], "LIMPET_FUZZ_SEED=\(seed) LIMPET_FUZZ_SEQUENCES=1 repeats it")
            if !faults.isEmpty { break }
        }
        try current.close()
        try FileManager.default.removeItem(at: file)
    }

    private static let handler: HTTP2Server.Handler = { request in
        switch request.path {
        case "/read": return .text("\(try await request.body.collect(upTo: 1 << 20).count)")
        case "/wait": await Signal().wait()
        case "/yield": await Task.yield()
        case "/large": return ServerResponse(status: .ok, body: ResponseBody([UInt8](repeating: 7, count: 100_000)))
        default: break
        }
        return .text("hello")
    }

    /// What the server does wrong with a sequence.
    private func faults(of sequence: FrameSequence) throws -> [String] {
        var faults: [String] = []
        let connection = try RawConnection(handshake: false, handler: Self.handler)
        try connection.send(bytes: FrameClient.preface)
        var frames = try connection.take()
        for piece in sequence.pieces where !connection.isClosed {
            try connection.send(bytes: piece)
            frames += try connection.take()
        }
        if connection.hasPartOfFrame { faults.append("the last frame is not whole") }
        faults += self.faults(in: frames)
        if let goAway = frames.last(where: { $0.kind == .goAway }), goAway.number(at: 4) != 0, !connection.isClosed {
            faults.append("the connection is open after GOAWAY \(goAway.number(at: 4))")
        }
        if sequence.isIntact {
            if connection.isClosed { faults.append("the connection is closed without a reason") }
            let answered = Set(frames.filter { $0.kind == .headers }.map(\.stream))
            if !sequence.answered.isSubset(of: answered) { faults.append("a request is not answered") }
        }
        try connection.finish()
        if connection.openConnections != 0 { faults.append("handlers are left") }
        if connection.isHandlerAlive { faults.append("the connection is not freed") }
        return faults
    }

    /// What is wrong with what the server has sent: rules of RFC 9113 that hold whatever it has received.
    private func faults(in frames: [Frame]) -> [String] {
        var faults: [String] = []
        var ended: Set<UInt32> = []
        var begun: Set<UInt32> = []
        for frame in frames {
            switch frame.kind {
            case .headers:
                if !begun.insert(frame.stream).inserted { faults.append("a second response") }
                if frame.flags & Frame.endHeaders == 0 { faults.append("a field block without an end") }
            case .data:
                if !begun.contains(frame.stream) { faults.append("DATA before HEADERS") }
            case .settings, .ping, .goAway:
                if frame.stream != 0 { faults.append("a frame of the connection on a stream") }
            case .resetStream, .windowUpdate: break
            default: faults.append("a frame that the server never sends: \(frame.kind.rawValue)")
            }
            if frame.kind == .headers || frame.kind == .data {
                if ended.contains(frame.stream) { faults.append("a frame behind the end of its stream") }
                if frame.endsStream { ended.insert(frame.stream) }
            }
            if frame.kind == .resetStream, frame.number(at: 0) != 0 { ended.insert(frame.stream) }
            if frame.payload.count > 16_384 { faults.append("a frame over the maximum size") }
        }
        return faults
    }
}
