import HTTPTypes

@testable import LimpetServer

extension FrameSequence {
    private static let handler: HTTP2Server.Handler = { request in
        switch request.path {
        case "/read": return .text("\(try await request.body.collect(upTo: 1 << 20).count)")
        case "/wait": await Signal().wait()
        case "/yield": await Task.yield()
        case "/large": return ServerResponse(status: .ok, body: ResponseBody([UInt8](repeating: 7, count: 30_000)))
        default: break
        }
        return .text("hello")
    }

    /// What the server does wrong with the sequence: whatever a client sends, it keeps to the protocol, and forgets the
    /// connection at its end.
    func faults() throws -> [String] {
        var faults: [String] = []
        let connection = try RawConnection(handshake: false, handler: Self.handler)
        try connection.send(bytes: Frame.preface)
        var frames = try connection.take()
        for piece in pieces where !connection.isClosed {
            try connection.send(bytes: piece)
            frames += try connection.take()
        }
        if connection.hasPartOfFrame { faults.append("the last frame is not whole") }
        faults += Self.faults(in: frames)
        if let goAway = frames.last(where: { $0.kind == .goAway }), goAway.number(at: 4) != 0, !connection.isClosed {
            faults.append("the connection is open after GOAWAY \(goAway.number(at: 4))")
        }
        if isIntact {
            if connection.isClosed { faults.append("the connection is closed without a reason") }
            let answered = Set(frames.filter { $0.kind == .headers }.map(\.stream))
            if !self.answered.isSubset(of: answered) { faults.append("a request is not answered") }
        }
        try connection.finish()
        if connection.openConnections != 0 { faults.append("handlers are left") }
        if connection.isHandlerAlive { faults.append("the connection is not freed") }
        return faults
    }

    /// What is wrong with what the server has sent: rules of RFC 9113 that hold whatever it has received.
    private static func faults(in frames: [Frame]) -> [String] {
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
