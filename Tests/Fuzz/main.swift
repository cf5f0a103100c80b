// Tries sequences of frames on the server's connection, one for each seed from FIRST on, COUNT of them, and ends at the
// first fault. FILE holds the seed that is being tried: it is what is left if the process crashes.
//
//   fuzz-connection FIRST COUNT FILE

#if canImport(Glibc)
    import Glibc
#elseif canImport(Darwin)
    import Darwin
#endif

let arguments = CommandLine.arguments
guard arguments.count == 4, let first = UInt64(arguments[1]), let count = UInt64(arguments[2]) else {
    print("usage: fuzz-connection FIRST COUNT FILE")
    exit(64)
}
let file = open(arguments[3], O_WRONLY | O_CREAT | O_TRUNC, 0o644)
guard file >= 0 else {
    print("\(arguments[3]) cannot be written: \(errno)")
    exit(73)
}
let clock = ContinuousClock()
let began = clock.now
for seed in first..<first + count {
    // Always 20 digits, so that nothing of the last one is left behind it. Only reads the text while it is there.
    var digits = String(seed)
    digits = String(repeating: "0", count: 20 - digits.utf8.count) + digits
    guard digits.withCString({ pwrite(file, $0, 20, 0) }) == 20 else {
        print("\(arguments[3]) cannot be written: \(errno)")
        exit(74)
    }
    let faults = try FrameSequence(seed: seed).faults()
    guard faults.isEmpty else {
        print("seed \(seed): \(faults.joined(separator: ", "))")
        exit(1)
    }
}
print("\(count) sequences from seed \(first) in \(clock.now - began)")
