# The matrix of gRPC libraries against real daemons, as a table, and the conformance suite; "make unit" runs the same tests. Included by the Makefile.
INTEROP_PACKAGES := g++ libgrpc++-dev libprotobuf-dev protobuf-compiler-grpc libssl-dev pkg-config make python3-grpcio python3-protobuf \
	python3-cryptography
DEBIAN_PACKAGES += $(INTEROP_PACKAGES)

.PHONY: interop
interop: debian-packages
	$(GO) test -count=1 -v ./interop/matrix/ ./interop/conformance/ ./internal/execns/ ./internal/sockowner/
	$(GO) test -count=1 -run Exec ./cmd/shared-altsd/

# The same with the libraries that are downloaded (interop/matrix/cache_test.go has their versions): a quarter of an hour.
.PHONY: interop-all
interop-all: DEBIAN_PACKAGES += default-jdk-headless maven python3-venv
interop-all: debian-packages
	SHARED_ALTSD_INTEROP=all .ci/gotest -race=false -timeout 45m -parallel 16 ./interop/matrix/

# What one account can do to the handshakes of another, as a table for docs/threat-model.md; as root.
.PHONY: bench-fairness
FAIRNESS_FLAGS ?=
bench-fairness: static
	$(GO) build -trimpath -o bin/fairness ./interop/fairness
	bin/fairness -daemon bin/shared-altsd-static $(FAIRNESS_FLAGS)

# What a channel costs as deployed, beside mutual TLS, as the tables of docs/benchmarks.md; five minutes on a quiet machine.
.PHONY: bench
BENCH_FLAGS ?=
bench: static
	$(GO) build -trimpath -o bin/bench ./interop/bench
	bin/bench -daemon bin/shared-altsd-static $(BENCH_FLAGS)
