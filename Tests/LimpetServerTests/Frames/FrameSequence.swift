/// Numbers that a seed determines (SplitMix64).
struct SeededGenerator: RandomNumberGenerator {
    private var state: UInt64

    init(seed: UInt64) { state = seed &* 0x9e37_79b9_7f4a_7c15 }

    mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var word = state
        word = (word ^ word >> 30) &* 0xbf58_476d_1ce4_e5b9
        word = (word ^ word >> 27) &* 0x94d0_49bb_1331_11eb
        return word ^ word >> 31
    }
}

/// What a client sends behind its preface, determined by a seed: frames that make sense one after the other, most of them
/// then damaged, cut into pieces as a network does.
struct FrameSequence {
    private(set) var pieces: [[UInt8]] = []
    /// Whether the frames were left as they were.
    let isIntact: Bool
    /// The streams that the server answers, if so.
    private(set) var answered: Set<UInt32> = []

    private var requests: [UInt32] = []

    private var random: SeededGenerator
    private var nextStream: UInt32 = 1
    private var openStreams: [UInt32] = []

    init(seed: UInt64) {
        random = SeededGenerator(seed: seed)
        isIntact = Int.random(in: 0..<4, using: &random) == 0
        var frames: [[UInt8]] = [Frame.emptySettings.bytes]
        for _ in 0..<Int.random(in: 1...12, using: &random) { frames += makeFrames().map(\.bytes) }
        if isIntact {
            frames += openStreams.map { Frame.data($0, []).bytes }
        } else {
            for _ in 0..<Int.random(in: 1...4, using: &random) { damage(&frames) }
        }
        cut(frames.flatMap { $0 })
    }

    // MARK: Frames

    private mutating func makeFrames() -> [Frame] {
        switch Int.random(in: 0..<20, using: &random) {
        case 0..<7: return makeRequest()
        case 7..<11:
            guard let stream = openStreams.randomElement(using: &random) else { return makeRequest() }
            let count = [0, 1, 100, 2000].randomElement(using: &random) ?? 0
            let ends = Int.random(in: 0..<3, using: &random) == 0
            let frame = Frame.data(stream, [UInt8](repeating: 7, count: count), endStream: ends)
            if ends { openStreams.removeAll { $0 == stream } }
            return [Bool.random(using: &random) ? frame : frame.padded(UInt8.random(in: 0...255, using: &random))]
        case 11: return [.ping(UInt8.random(in: 0...255, using: &random))]
        case 12: return [.windowUpdate(0, UInt32.random(in: 1...100_000, using: &random))]
        case 13:
            guard let stream = requests.randomElement(using: &random) else { return makeRequest() }
            return [.windowUpdate(stream, UInt32.random(in: 1...100_000, using: &random))]
        case 14:
            guard let reset = requests.randomElement(using: &random) else { return makeRequest() }
            openStreams.removeAll { $0 == reset }
            requests.removeAll { $0 == reset }
            answered.remove(reset)
            return [.reset(reset)]
        case 15: return [.settings((4, UInt32.random(in: 0...40_000, using: &random)), (1, 4096))]
        case 16: return [.priority(nextStream, on: 0)]
        case 17:
            let kind = Frame.Kind(rawValue: UInt8.random(in: 0x0a...0xff, using: &random))
            return [Frame(kind: kind, stream: nextStream, payload: [1, 2, 3])]
        case 18:
            guard let stream = openStreams.popLast() else { return makeRequest() }
            return [.block(stream, Frame.field("x-trailer", "1"))]
        default: return [.settings((2, 0), (0x77, 5))]
        }
    }

    private mutating func makeRequest() -> [Frame] {
        let stream = nextStream
        nextStream += 2 * UInt32.random(in: 1...3, using: &random)
        requests.append(stream)
        let path = ["/", "/read", "/wait", "/yield", "/large"].randomElement(using: &random) ?? "/"
        if path != "/wait" { answered.insert(stream) }
        let hasBody = Bool.random(using: &random)
        if hasBody { openStreams.append(stream) }
        let entry: [UInt8] = [0x40] + Frame.literal("x-kept") + Frame.literal("\(stream)") + [0xbe]
        var frame = Frame.request(stream, hasBody ? "POST" : "GET", path, endStream: !hasBody)
        frame.payload += entry
        guard Int.random(in: 0..<5, using: &random) == 0 else { return [frame] }
        let cut = Int.random(in: 0...frame.payload.count, using: &random)
        return [
            .block(stream, Array(frame.payload[..<cut]), flags: frame.flags & ~Frame.endHeaders),
            .continuation(stream, Array(frame.payload[cut...])),
        ]
    }

    // MARK: Damage

    private mutating func damage(_ frames: inout [[UInt8]]) {
        let index = Int.random(in: 0..<frames.count, using: &random)
        let other = Int.random(in: 0..<frames.count, using: &random)
        let byte = frames[index].isEmpty ? 0 : Int.random(in: 0..<frames[index].count, using: &random)
        switch Int.random(in: 0..<9, using: &random) {
        case 0 where !frames[index].isEmpty: frames[index][byte] ^= 1 << UInt8.random(in: 0..<8, using: &random)
        case 1 where !frames[index].isEmpty: frames[index][byte] = UInt8.random(in: 0...255, using: &random)
        // The header of a frame is where most is decided.
        case 2 where frames[index].count >= 9:
            frames[index][Int.random(in: 0..<9, using: &random)] = UInt8.random(in: 0...255, using: &random)
        case 3: frames[index].removeLast(frames[index].count - byte)
        case 4: frames.swapAt(index, other)
        case 5: frames.remove(at: index)
        case 6: frames.insert(frames[other], at: index)
        case 7: frames += [[UInt8]](repeating: frames[index], count: Int.random(in: 1...300, using: &random))
        default:
            let noise = (0..<Int.random(in: 1...40, using: &random)).map { _ in
                UInt8.random(in: 0...255, using: &random)
            }
            frames.insert(noise, at: index)
        }
        if frames.isEmpty { frames = [[0]] }
    }

    /// Cuts the bytes where a network might: nowhere, at a few places, or behind each byte of a short stretch.
    private mutating func cut(_ bytes: [UInt8]) {
        guard !bytes.isEmpty else { return }
        var cuts: Set<Int> = []
        switch Int.random(in: 0..<4, using: &random) {
        case 0: break
        case 1:
            let start = Int.random(in: 0..<bytes.count, using: &random)
            cuts = Set(start..<min(start + 60, bytes.count))
        default:
            for _ in 0..<Int.random(in: 1...8, using: &random) {
                cuts.insert(Int.random(in: 0..<bytes.count, using: &random))
            }
        }
        var start = 0
        for cut in cuts.sorted() + [bytes.count] where cut > start {
            pieces.append(Array(bytes[start..<cut]))
            start = cut
        }
    }
}
