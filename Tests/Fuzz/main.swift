// Tries damaged input, one sequence for each seed from FIRST on, COUNT of them, and ends at the first fault: frames on the
// server's connection, or replies on the connection to memcached. FILE holds the seed that is being tried: it is what is left
// if the process crashes.
//
//   fuzz frames|replies FIRST COUNT FILE

#if canImport(Glibc)
    import Glibc
#elseif canImport(Darwin)
    import Darwin
#endif

let arguments = CommandLine.arguments
guard arguments.count == 5, ["frames", "replies"].contains(arguments[1]), let first = UInt64(arguments[2]),
    let count = UInt64(arguments[3])
else {
    print("usage: fuzz frames|replies FIRST COUNT FILE")
    exit(64)
}
let file = open(arguments[4], O_WRONLY | O_CREAT | O_TRUNC, 0o644)
guard file >= 0 else {
    print("\(arguments[4]) cannot be written: \(errno)")
    exit(73)
}
let clock = ContinuousClock()
let began = clock.now
for seed in first..<first + count {
    // Always 20 digits, so that nothing of the last one is left behind it. Only reads the text while it is there.
    var digits = String(seed)
    digits = String(repeating: "0", count: 20 - digits.utf8.count) + digits
    guard digits.withCString({ pwrite(file, $0, 20, 0) }) == 20 else {
        print("\(arguments[4]) cannot be written: \(errno)")
        exit(74)
    }
    let faults: [String]
    if arguments[1] == "frames" {
        faults = try FrameSequence(seed: seed).faults()
    } else {
        var sequence = ReplySequence(seed: seed)
        faults = try sequence.faults()
    }
    guard faults.isEmpty else {
        print("seed \(seed): \(faults.joined(separator: ", "))")
        exit(1)
    }
}
print("\(count) sequences of \(arguments[1]) from seed \(first) in \(clock.now - began)")
