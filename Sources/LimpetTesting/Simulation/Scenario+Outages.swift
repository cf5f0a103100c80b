extension Scenario {
    /// What goes wrong, with outages that overlap as the one that they are.
    var joinedFaults: [Fault] {
        var joined: [Fault] = []
        for fault in faults.sorted(by: { $0.time < $1.time }) {
            if let index = joined.lastIndex(where: { $0.reaches(fault) }) {
                joined[index].join(fault)
            } else {
                joined.append(fault)
            }
        }
        return joined
    }

    /// Since when some node has not reached a server all the time: what it has not heard of by then, it does not know when the server's
    /// memory is lost.
    func beginOfSilence(of server: Int, before time: VirtualTime) -> VirtualTime {
        // One poll to notice that the server is back.
        let notice = peerPoll + peerPoll
        return joinedFaults.reversed().reduce(time) { since, fault in
            switch fault.kind {
            case .outage(server, let length, _, _), .cut(_, server, let length):
                fault.time < since && since <= fault.time + length + notice ? fault.time : since
            default: since
            }
        }
    }
}

extension Scenario.Fault {
    /// Whether another outage of the same server, or of the same way to it, begins before this one ends.
    fileprivate func reaches(_ other: Self) -> Bool {
        switch (kind, other.kind) {
        case (.outage(let server, let length, _, _), .outage(let otherServer, _, _, _)):
            server == otherServer && other.time <= time + length
        case (.cut(let node, let server, let length), .cut(let otherNode, let otherServer, _)):
            (node, server) == (otherNode, otherServer) && other.time <= time + length
        default: false
        }
    }

    fileprivate mutating func join(_ other: Self) {
        switch (kind, other.kind) {
        case (.outage(let server, let length, let refuses, let loses), .outage(_, let more, _, let otherLoses)):
            kind = .outage(
                server: server, for: max(length, other.time + more - time), refuses: refuses, loses: loses || otherLoses
            )
        case (.cut(let node, let server, let length), .cut(_, _, let more)):
            kind = .cut(node: node, server: server, for: max(length, other.time + more - time))
        default: break
        }
    }
}
