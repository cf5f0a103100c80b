package import NIOCore

/// Runs the handlers' tasks on an event loop: a task that was started there with `Task.immediate` and never suspends
/// runs through without a hop, and one that suspends comes back to the connection's thread.
package final class EventLoopTaskExecutor: TaskExecutor {
    private let eventLoop: any EventLoop

    package init(_ eventLoop: any EventLoop) {
        self.eventLoop = eventLoop
    }

    package func enqueue(_ job: consuming ExecutorJob) {
        let job = UnownedJob(job)
        eventLoop.execute { job.runSynchronously(on: self.asUnownedTaskExecutor()) }
    }
}
