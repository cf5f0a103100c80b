# The few commands that people type. Each installs the Debian packages that it needs and that are not there.

JOBS ?= 2
# Tests of time-outs need a machine that is not busy with a thousand others.
export SWT_EXPERIMENTAL_MAXIMUM_PARALLELIZATION_WIDTH ?= 8
BUILD_PACKAGES := libnghttp2-dev libmemcached-dev pkg-config
RUN_PACKAGES := memcached haproxy curl nghttp2-client openssl chromium python3-h2
SEQUENCES ?= 1000000
SEEDS ?= 10000
FIRST ?= 1
MODEL_PACKAGES := spin gcc
BENCH_PACKAGES := nghttp2-server python3 valgrind

.PHONY: demo test sanitize simulate model fuzz lint bench packages

demo: packages            ## two nodes, one session, kill -9: Samples/Failover
	swift build -j $(JOBS) -c release --product failover-node
	Samples/Failover/demo

test: packages            ## all tests, with real memcached, HTTP/2 clients and kill -9
	swift build -j $(JOBS) --build-tests
	swift test -j $(JOBS) --skip-build --skip 'DrainTests|ClusterFaultTests|BrokenRuleTests|SimulationTests'
	# Alone: a balancer that gets no time takes nodes for dead that are not, clusters under load make time-outs late, and
	# simulations keep the threads that others wait for.
	swift test -j $(JOBS) --skip-build --filter 'DrainTests|ClusterFaultTests'
	swift test -j $(JOBS) --skip-build --filter 'BrokenRuleTests|SimulationTests'
	# The nodes once more, on the other way to memcached.
	MEMCACHED_TRANSPORT=libmemcached swift test -j $(JOBS) --skip-build --filter 'EndToEndTests.(FailoverTests|LockTests|StopTests)'
	MEMCACHED_TRANSPORT=libmemcached swift test -j $(JOBS) --skip-build --filter 'DrainTests|ClusterFaultTests'

sanitize: packages        ## the concurrent tests under the thread sanitizer, the C boundary under the address sanitizer
	# The simulator, the fuzzers, the placement of keys and the tests of single rules have one thread each.
	swift test -j $(JOBS) --sanitize thread --scratch-path .build/thread -Xswiftc -DLIMPET_THREAD_SANITIZER \
	    --filter '^(LimpetTests|LimpetMemcachedTests|LimpetServerTests)' --skip 'RFC|stays within the protocol|tells each caller|PlacementTests|BrokenRuleTests|SimulationTests'
	# What XCTest and Foundation leave behind is not ours to free.
	ASAN_OPTIONS=detect_leaks=0 swift test -j $(JOBS) --sanitize address --scratch-path .build/address \
	    --filter '^(LimpetMemcachedTests|LimpetServerTests)' --skip 'a hundred thousand keys'

simulate:                 ## the coherence of a cluster under seeded schedules and faults: SEEDS of them from FIRST on
	swift build -j $(JOBS) -c release --product Simulate
	.build/release/Simulate --seeds $(SEEDS) --first $(FIRST)

model: BUILD_PACKAGES := $(MODEL_PACKAGES)
model: RUN_PACKAGES :=
model: packages           ## every interleaving of the protocol in small scopes, and each of its rules broken: Tests/Model
	JOBS=$(JOBS) Tests/Model/run

fuzz: packages            ## damaged frames and replies against the connections, under the address sanitizer: SEQUENCES of them
	JOBS=$(JOBS) Tests/Fuzz/run $(SEQUENCES)

lint:                     ## the formatter's rules, as errors
	swift format lint --strict --recursive Package.swift Sources Tests Samples Benchmarks

bench: RUN_PACKAGES += $(BENCH_PACKAGES)
bench: packages           ## the figures of Benchmarks/
	Benchmarks/run

packages:
	@missing=$$(for package in $(BUILD_PACKAGES) $(RUN_PACKAGES); do \
	    dpkg -s $$package >/dev/null 2>&1 || echo $$package; done); \
	if [ -n "$$missing" ]; then \
	    echo "installing:" $$missing; \
	    if [ "$$(id -u)" -eq 0 ]; then sudo=; else sudo=sudo; fi; \
	    $$sudo apt-get update -qq && \
	    $$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing >/dev/null; \
	fi
