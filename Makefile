# make build        bin/shared-altsd and bin/shared-altsd-signer
# make test         what a change must pass: style, static checks, all tests under the race detector
# make long         tests that take minutes each: races of a thousand rounds, and what DNS says later of connections that stand
# make fuzz         each fuzz target for some seconds; FUZZ_SECONDS=1800 for longer, seconds in all
SHELL := /bin/bash

GO ?= go
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
# What the tests need of Debian: a C compiler for the race detector and for the system's user database; ps.
DEBIAN_PACKAGES := gcc libc6-dev openssl procps
# A TPM and a PKCS #11 token in software, with what an administrator makes keys in them by.
DEBIAN_PACKAGES += swtpm tpm2-tools tpm2-openssl softhsm2 opensc
FUZZ_SECONDS ?= 75

.PHONY: build static test debian-packages lint unit fuzz exec-race long clean

build:
	$(GO) build -trimpath -o bin/shared-altsd ./cmd/shared-altsd
	$(GO) build -trimpath -o bin/shared-altsd-signer ./cmd/shared-altsd-signer

# Without cgo, for containers and other systems: docs/operate.md says which user database it reads.
static:
	CGO_ENABLED=0 $(GO) build -trimpath -o bin/shared-altsd-static ./cmd/shared-altsd

test: debian-packages lint unit

# As root on Debian, installs what is missing, without starting services of it; elsewhere says what is.
debian-packages:
	@command -v dpkg-query >/dev/null || exit 0; \
	missing=; for p in $(DEBIAN_PACKAGES); do \
		dpkg-query -W -f '$${Status}' $$p 2>/dev/null | grep -q 'ok installed' || missing="$$missing $$p"; done; \
	if [ -z "$$missing" ]; then exit 0; fi; \
	if [ "$$(id -u)" != 0 ]; then echo "not installed, and only root can:$$missing"; exit 0; fi; \
	policy=/usr/sbin/policy-rc.d; if [ ! -e $$policy ]; then trap "rm -f $$policy" EXIT; printf '#!/bin/sh\nexit 101\n' >$$policy; chmod 0755 $$policy; fi; \
	apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 install -y -qq --no-install-recommends $$missing

lint:
	@files=$$(find . -name '*.go' -not -path './.git/*' | xargs gofmt -l); \
	if [ -n "$$files" ]; then echo "gofmt has not been run on:"; echo "$$files"; exit 1; fi
	$(GO) vet ./...
	$(GO) run $(STATICCHECK) ./...

unit:
	.ci/gotest ./...

fuzz:
	.ci/fuzz $(FUZZ_SECONDS)

# Kills processes under exec while a stranger grasps at the relay's address: 1000 times.
exec-race:
	SHARED_ALTSD_EXEC_RACE_ROUNDS=1000 $(GO) test -count=1 -v -timeout 30m -run '^TestRule42Race$$' ./cmd/shared-altsd

# What waits for long, beside that: DNS is asked again about connections that stand.
long: exec-race
	.ci/gotest -tags long -run '^TestDNSWithdrawn$$' ./interop/e2e

clean:
	rm -rf bin dist

# The targets of these folders.
-include deploy/deploy.mk interop/interop.mk docs/audit.mk
