# The matrix of gRPC libraries against real daemons, as a table, and the conformance suite; "make unit" runs the same tests. Included by the Makefile.
INTEROP_PACKAGES := g++ libgrpc++-dev libprotobuf-dev protobuf-compiler-grpc libssl-dev pkg-config make python3-grpcio python3-protobuf \
	python3-cryptography
DEBIAN_PACKAGES += $(INTEROP_PACKAGES)
# Zones, their signatures and a resolver that validates, for internal/testdns; nsupdate and delv of docs/dns.md. systemd-resolved is
# not installed, which would take /etc/resolv.conf over: the tests download and unpack it (SHARED_ALTSD_CACHE), and need its library.
DEBIAN_PACKAGES += knot bind9-utils bind9-dnsutils unbound iproute2 libsystemd-shared

.PHONY: interop
interop: debian-packages
	$(GO) test -count=1 -v ./interop/matrix/ ./interop/conformance/ ./internal/execns/ ./internal/sockowner/
	$(GO) test -count=1 -run Exec ./cmd/shared-altsd/

# The same with the libraries that are downloaded (interop/matrix/cache_test.go has their versions): a quarter of an hour.
.PHONY: interop-all
interop-all: DEBIAN_PACKAGES += default-jdk-headless maven python3-venv
interop-all: debian-packages
	SHARED_ALTSD_INTEROP=all .ci/gotest -race=false -timeout 45m -parallel 16 ./interop/matrix/

# Unchanged programs through forwards, on two machines with networks of their own; as root. node with npm, and cargo (Rust 1.88 or
# later), have to be there: what they download and build is kept in SHARED_ALTSD_CACHE.
PROGRAMS_PACKAGES := iproute2 postgresql rsync openssh-client openssh-server curl nginx-light prometheus prometheus-node-exporter ruby ruby-grpc python3-websockets
.PHONY: interop-programs
interop-programs: DEBIAN_PACKAGES += $(PROGRAMS_PACKAGES)
interop-programs: debian-packages
	SHARED_ALTSD_PROGRAMS=1 .ci/gotest -race=false -timeout 15m ./interop/programs/

# What one account can do to the handshakes of another, as a table for docs/threat-model.md; as root.
.PHONY: bench-fairness
FAIRNESS_FLAGS ?=
bench-fairness: static
	$(GO) build -trimpath -o bin/fairness ./interop/fairness
	bin/fairness -daemon bin/shared-altsd-static $(FAIRNESS_FLAGS)

# What a channel costs as deployed, beside mutual TLS, and what a forwarded connection does, beside other forwarders, as the
# tables of docs/benchmarks.md; eight minutes on a quiet machine. haproxy is a Debian package.
.PHONY: bench
BENCH_FLAGS ?=
BENCH_FORWARDS_FLAGS ?=
bench: static
	$(GO) build -trimpath -o bin/bench ./interop/bench
	bin/bench -daemon bin/shared-altsd-static $(BENCH_FLAGS)
	bin/bench -daemon bin/shared-altsd-static -table forwards $(BENCH_FORWARDS_FLAGS)

# A million handshakes by stock and altscreds clients, of which none may fail, and for which the daemons may hold no more at the end than
# when a tenth of them was done; an hour on two processors.
.PHONY: soak
SOAK_HANDSHAKES ?= 1000000
soak: static
	$(GO) build -trimpath -o bin/bench ./interop/bench
	bin/bench -daemon bin/shared-altsd-static -soak $(SOAK_HANDSHAKES)

# What a daemon of a large fleet has to do, for docs/benchmarks.md; as root, for idle applications of several accounts.
.PHONY: fleet
FLEET_FLAGS ?=
fleet: static
	$(GO) run ./interop/fleet -daemon bin/shared-altsd-static $(FLEET_FLAGS)
