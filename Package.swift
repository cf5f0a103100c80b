// swift-tools-version: 6.2
import PackageDescription

/// One set of settings for every target: Swift 6 mode, warnings as errors, and the features that make imports and
/// isolation explicit.
let settings: [SwiftSetting] = [
    .swiftLanguageMode(.v6),
    .treatAllWarnings(as: .error),
    .enableUpcomingFeature("ExistentialAny"),
    .enableUpcomingFeature("MemberImportVisibility"),
    .enableUpcomingFeature("InternalImportsByDefault"),
    .enableUpcomingFeature("NonisolatedNonsendingByDefault"),
]

let collections = Target.Dependency.product(name: "DequeModule", package: "swift-collections")
let configuration = Target.Dependency.product(name: "Configuration", package: "swift-configuration")
let httpTypes = Target.Dependency.product(name: "HTTPTypes", package: "swift-http-types")
let lifecycle = Target.Dependency.product(name: "ServiceLifecycle", package: "swift-service-lifecycle")
let logging = Target.Dependency.product(name: "Logging", package: "swift-log")
let nio = Target.Dependency.product(name: "NIOCore", package: "swift-nio")
let signals = Target.Dependency.product(name: "UnixSignals", package: "swift-service-lifecycle")
let nioPosix = Target.Dependency.product(name: "NIOPosix", package: "swift-nio")
let nioSSL = Target.Dependency.product(name: "NIOSSL", package: "swift-nio-ssl")
let nioTLS = Target.Dependency.product(name: "NIOTLS", package: "swift-nio")

let package = Package(
    name: "limpet",
    products: [
        .library(name: "Limpet", targets: ["Limpet"]),
        .library(name: "LimpetMemcached", targets: ["LimpetMemcached"]),
        .library(name: "LimpetServer", targets: ["LimpetServer"]),
        .library(name: "LimpetTesting", targets: ["LimpetTesting"]),
        .executable(name: "counter", targets: ["Counter"]),
        .executable(name: "failover-node", targets: ["Failover"]),
    ],
    dependencies: [
        .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.0"),
        .package(url: "https://github.com/apple/swift-collections", from: "1.6.0"),
        // Without the JSON trait: the file is parsed and checked by ConfigurationFile.swift.
        .package(url: "https://github.com/apple/swift-configuration", from: "1.4.0", traits: []),
        .package(url: "https://github.com/apple/swift-crypto", from: "4.5.0"),
        .package(url: "https://github.com/apple/swift-distributed-tracing", from: "1.7.0"),
        .package(url: "https://github.com/apple/swift-http-types", from: "1.8.0"),
        .package(url: "https://github.com/apple/swift-log", from: "1.16.0"),
        .package(url: "https://github.com/apple/swift-metrics", from: "2.13.0"),
        .package(url: "https://github.com/apple/swift-nio", from: "2.101.0"),
        .package(url: "https://github.com/apple/swift-nio-ssl", from: "2.37.0"),
        .package(url: "https://github.com/apple/swift-protobuf", from: "1.39.0"),
        .package(url: "https://github.com/swift-server/swift-service-lifecycle", from: "2.13.0"),
    ],
    targets: [
        .systemLibrary(
            name: "CMemcached", path: "Modules/CMemcached", pkgConfig: "libmemcached",
            providers: [.apt(["libmemcached-dev"])]),
        .systemLibrary(
            name: "CNghttp2", path: "Modules/CNghttp2", pkgConfig: "libnghttp2",
            providers: [.apt(["libnghttp2-dev"])]),

        // The core: no NIO, no C.
        .target(
            name: "Limpet",
            dependencies: [
                collections, configuration, httpTypes, lifecycle, logging, signals,
                .product(name: "HeapModule", package: "swift-collections"),
                .product(name: "Crypto", package: "swift-crypto"),
                .product(name: "Metrics", package: "swift-metrics"),
                .product(name: "SwiftProtobuf", package: "swift-protobuf"),
            ],
            exclude: ["Store/SessionRecord.proto"],
            swiftSettings: settings),
        .target(
            name: "LimpetMemcached",
            dependencies: [
                "Limpet", "CMemcached", collections, configuration, lifecycle, logging, nio, nioPosix, nioSSL,
            ],
            swiftSettings: settings),
        .target(
            name: "LimpetServer",
            dependencies: [
                "Limpet", "CNghttp2", collections, configuration, httpTypes, lifecycle, logging, nio, nioPosix, nioSSL,
                nioTLS, .product(name: "Metrics", package: "swift-metrics"),
                .product(name: "Tracing", package: "swift-distributed-tracing"),
                .product(name: "_NIOFileSystem", package: "swift-nio"),
            ],
            swiftSettings: settings),
        .target(
            name: "LimpetTesting",
            dependencies: ["Limpet", httpTypes, logging],
            swiftSettings: settings),

        .executableTarget(
            name: "Counter",
            dependencies: ["Limpet", "LimpetMemcached", "LimpetServer", lifecycle, logging],
            path: "Samples/Counter", swiftSettings: settings),
        .executableTarget(
            name: "Failover",
            dependencies: [
                "Limpet", "LimpetMemcached", "LimpetServer", httpTypes, lifecycle, logging,
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
            ],
            path: "Samples/Failover", exclude: ["README.md", "demo", "haproxy.cfg", "node.json"],
            swiftSettings: settings),
        .executableTarget(
            name: "BenchmarkServer",
            dependencies: ["Limpet", "LimpetServer", httpTypes, lifecycle, logging, nio, signals],
            path: "Benchmarks/Server", exclude: ["README.md", "idle", "run"], swiftSettings: settings),

        .executableTarget(
            name: "BenchmarkSessions", dependencies: ["Limpet", httpTypes, logging], path: "Benchmarks/Sessions",
            exclude: ["README.md", "page", "run"], swiftSettings: settings),

        .executableTarget(
            name: "BenchmarkMemcached",
            dependencies: [
                "Limpet", "LimpetMemcached", "LimpetServer", "LimpetTesting", collections, logging, nio, nioPosix,
            ],
            path: "Benchmarks/Memcached", exclude: ["README.md", "allocations", "run"], swiftSettings: settings),

        .executableTarget(
            name: "Simulate", dependencies: ["Limpet", "LimpetTesting"], path: "Tests/Simulation",
            exclude: ["README.md"], swiftSettings: settings),

        .executableTarget(
            name: "BenchmarkCoherence",
            dependencies: ["Limpet", "LimpetMemcached", "LimpetTesting", httpTypes, logging],
            path: "Benchmarks/Coherence", exclude: ["README.md", "run"], swiftSettings: settings),

        .testTarget(
            name: "LimpetTests",
            dependencies: [
                "Limpet", "LimpetTesting", configuration, httpTypes, logging,
                .product(name: "MetricsTestKit", package: "swift-metrics"),
            ],
            swiftSettings: settings),
        .testTarget(
            name: "LimpetMemcachedTests",
            dependencies: [
                "CMemcached", "Limpet", "LimpetMemcached", "LimpetServer", "LimpetTesting", collections, lifecycle,
                logging,
                nio, nioPosix, nioSSL, .product(name: "InMemoryLogging", package: "swift-log"),
                .product(name: "NIOEmbedded", package: "swift-nio"),
            ],
            swiftSettings: settings),
        .testTarget(
            name: "LimpetServerTests",
            dependencies: [
                "Limpet", "LimpetServer", httpTypes, lifecycle, logging, nio, nioPosix, nioSSL, nioTLS,
                .product(name: "InMemoryLogging", package: "swift-log"),
                .product(name: "InMemoryTracing", package: "swift-distributed-tracing"),
                .product(name: "Metrics", package: "swift-metrics"),
                .product(name: "MetricsTestKit", package: "swift-metrics"),
                .product(name: "NIOEmbedded", package: "swift-nio"),
                .product(name: "Tracing", package: "swift-distributed-tracing"),
            ],
            exclude: ["python-h2-client"], swiftSettings: settings),
        .testTarget(
            name: "EndToEndTests",
            dependencies: [
                "Counter", "Failover", "Limpet", "LimpetMemcached", "LimpetServer", "LimpetTesting", configuration,
            ],
            exclude: ["cluster-clients", "goaway-client", "page-client"],
            swiftSettings: settings),
    ]
)

// The connections under damaged frames and replies, as a program: `make fuzz`. It needs the internals of the modules that hold
// them, and the address sanitizer in these and in itself and nowhere else: what else they are built of is what every release
// build has.
if Context.environment["LIMPET_FUZZ"] != nil {
    let instrumented: [SwiftSetting] = settings + [.unsafeFlags(["-sanitize=address", "-enable-testing"])]
    for target in package.targets where ["LimpetMemcached", "LimpetServer"].contains(target.name) {
        target.swiftSettings = instrumented
    }
    package.targets.removeAll(where: \.isTest)
    package.targets.append(
        .executableTarget(
            name: "Fuzz",
            dependencies: [
                "Limpet", "LimpetMemcached", "LimpetServer", "LimpetTesting", httpTypes, logging, nio,
                .product(name: "Metrics", package: "swift-metrics"),
                .product(name: "NIOEmbedded", package: "swift-nio"),
                .product(name: "Tracing", package: "swift-distributed-tracing"),
            ],
            path: "Tests/Fuzz", exclude: ["run"], swiftSettings: instrumented,
            linkerSettings: [.unsafeFlags(["-sanitize=address"])]))
}
