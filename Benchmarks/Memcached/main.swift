import Limpet
import LimpetMemcached
import LimpetTesting
import Logging

// What an operation of the store costs, with both transports beside each other. `README.md` holds the last figures.
//
//   BenchmarkMemcached                     loads of 64 callers: operations a second, client CPU
//   BenchmarkMemcached caller              one caller, beside an echo over a plain socket
//   BenchmarkMemcached half                how long a commit takes at half of the peak load
//   BenchmarkMemcached count LOAD NUMBER SERVER   so many operations of the pipelined transport, for a profiler, with a
//                                                 memcached that is there: profilers do not like children

let arguments = CommandLine.arguments
let server = arguments.count == 5 ? nil : try await MemcachedServer.start("-m", "64")
let clients = try Clients(server?.address ?? arguments[4])
try await clients.fill()

switch arguments.dropFirst().first {
case nil: try await compareLoads(clients)
case "caller": try await compareOneCaller(clients)
case "half": try await measureAtHalf(clients)
case "count" where arguments.count == 5: try await count(clients, arguments[2], Int(arguments[3]) ?? 0)
default: fatalError("unknown: \(arguments.dropFirst())")
}

/// The loads, three times each, the transports in turn.
func compareLoads(_ clients: Clients) async throws {
    print("| load | transport | operations a second | client CPU µs an operation |")
    print("| --- | --- | --- | --- |")
    for load in Load.all {
        var lines: [[Measurement]] = [[], []]
        for _ in 0..<3 {
            for (index, client) in clients.all.enumerated() { lines[index].append(try await client.measure(load)) }
        }
        for (client, measurements) in zip(clients.all, lines) {
            let rates = measurements.map { "\(Int($0.rate / 1000))" }.joined(separator: " ")
            let costs = measurements.map { decimal($0.microseconds) }.joined(separator: " ")
            print("| \(load.name) | \(client.name) | \(rates) thousand | \(costs) |")
        }
    }
}

/// One caller at a time: nothing to share a round trip with.
func compareOneCaller(_ clients: Clients) async throws {
    let echo = try Echo(bytes: Client.value.count)
    var trips: [Double] = []
    var calls: [[Double]] = [[], []]
    for _ in 0..<5 {
        trips.append(try echo.microsecondsOfRoundTrip(20_000))
        for (index, client) in clients.all.enumerated() {
            calls[index].append(try await client.measure(.get, callers: 1, calls: 20_000).microsecondsOfCall)
        }
    }
    print("one caller, a get of 1 KiB, µs, five runs")
    print("echo: \(trips.map(decimal).joined(separator: " "))")
    for (client, times) in zip(clients.all, calls) {
        print("\(client.name): \(times.map(decimal).joined(separator: " "))")
    }
}

/// Swaps begin at a steady rate, half of what is possible, whether the ones before are done or not.
func measureAtHalf(_ clients: Clients) async throws {
    for client in clients.all {
        let peak = try await client.measure(.swap).rate
        for _ in 0..<3 {
            let times = try await client.times(rate: peak / 2, seconds: 5)
            let line = [0.5, 0.99, 0.999].map { decimal(times[Int(Double(times.count - 1) * $0)]) }
            print(
                "\(client.name): peak \(Int(peak)), \(times.count / 5) commits a second: "
                    + "median \(line[0]), p99 \(line[1]), p99.9 \(line[2]) µs")
        }
    }
}

func count(_ clients: Clients, _ name: String, _ number: Int) async throws {
    guard let load = Load.all.first(where: { $0.name == name }) else { fatalError("no load \(name)") }
    _ = try await clients.pipelined.measure(load, callers: 64, calls: max(1, number / 64 / load.operations))
}

func decimal(_ number: Double) -> String { "\((number * 100).rounded() / 100)" }
