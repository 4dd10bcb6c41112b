# Included by the Makefile.
#
# make packages       dist/*.deb and dist/*.rpm, those of the signer in dist/signer, and the policy for SELinux in dist/selinux
# make release        dist/release: signed repositories for apt and dnf, bills of materials, checksums; RELEASE_KEY=FINGERPRINT of a key that gpg has
# make images         the docker images of deploy/compose.yaml, from scratch on static binaries
# make compose-test   two machines and a foreign one under docker compose, as a table
# make test-deploy    all that takes long: units, packages, two machines with systemd, compose, rules for Prometheus

NFPM := github.com/goreleaser/nfpm/v2/cmd/nfpm@v2.43.4
# The CA of smallstep, and its client, for the tests.
STEP_CA := github.com/smallstep/certificates/cmd/step-ca@v0.30.2
STEP := github.com/smallstep/cli/cmd/step@v0.28.7
VERSION ?= 0.2.0
ARCH ?= $(shell $(GO) env GOARCH)
DEPLOY_DEBIAN_PACKAGES := debootstrap prometheus prometheus-node-exporter rpm docker-compose systemd groff-base zsh fish softhsm2 opensc
DEPLOY_DEBIAN_PACKAGES += apt-utils createrepo-c gnupg ansible-core openssh-client
# The signer's program is built by cgo; its certificate is the test's own.
DEPLOY_DEBIAN_PACKAGES += gcc libc6-dev openssl
# What compiles and examines the policy for SELinux.
DEPLOY_DEBIAN_PACKAGES += checkpolicy semodule-utils policycoreutils setools selinux-utils selinux-policy-dev bzip2 cpio
# The time of the files in a package is that of the commit, so that it comes out the same each time.
# The program says the package's version, and so do its pages.
STAMP = -X github.com/shared-altsd/shared-altsd/internal/version.stamped=$(VERSION)
STATIC_BUILD = CGO_ENABLED=0 GOARCH=$(ARCH) $(GO) build -trimpath -ldflags='-s -w $(STAMP)'
export SOURCE_DATE_EPOCH ?= $(shell git log -1 --format=%ct 2>/dev/null)

.PHONY: packages packages-signer packages-selinux packages-next packages-last package-root release images step compose-test test-deploy deploy-debian-packages test-systemd test-prometheus test-units

package-root:
	mkdir -p dist/root
	$(STATIC_BUILD) -o dist/root/shared-altsd ./cmd/shared-altsd
	$(GO) build -trimpath -ldflags='$(STAMP)' -o dist/root/shared-altsd-host ./cmd/shared-altsd
	dist/root/shared-altsd-host man | gzip -9n >dist/root/shared-altsd.1.gz
	dist/root/shared-altsd-host man shared-altsd.conf.5 | gzip -9n >dist/root/shared-altsd.conf.5.gz
	for s in bash zsh fish; do dist/root/shared-altsd-host completion $$s >dist/root/completion.$$s || exit; done

PACKAGE_DIR ?= dist
packages: package-root
	mkdir -p $(PACKAGE_DIR)
	rm -f $(PACKAGE_DIR)/*.deb $(PACKAGE_DIR)/*.rpm
	for p in deb rpm; do VERSION=$(VERSION) ARCH=$(ARCH) $(GO) run $(NFPM) package --config deploy/packages/nfpm.yaml \
		--packager $$p --target $(PACKAGE_DIR)/ || exit; done
	@if [ $(ARCH) = "$$($(GO) env GOHOSTARCH)" ]; then $(MAKE) --no-print-directory packages-signer; else \
		echo "no package of the signer for $(ARCH): it needs a C compiler for that, so build it there"; fi
	@if command -v checkmodule >/dev/null && command -v semodule_package >/dev/null; then $(MAKE) --no-print-directory packages-selinux; else \
		echo "no package of the policy for SELinux: it needs checkmodule and semodule_package (on Debian checkpolicy and semodule-utils)"; fi

# The signer needs cgo, so that it is built for the machine that it is built on.
packages-signer:
	mkdir -p dist/root $(PACKAGE_DIR)/signer
	CGO_ENABLED=1 $(GO) build -trimpath -ldflags='-s -w $(STAMP)' -o dist/root/shared-altsd-signer ./cmd/shared-altsd-signer
	dist/root/shared-altsd-signer man | gzip -9n >dist/root/shared-altsd-signer.1.gz
	rm -f $(PACKAGE_DIR)/signer/*.deb $(PACKAGE_DIR)/signer/*.rpm
	glibc=$$(objdump -T dist/root/shared-altsd-signer | grep -o 'GLIBC_[0-9.]*' | cut -c7- | sort -V | tail -n1); \
	for p in deb rpm; do GLIBC=$$glibc VERSION=$(VERSION) ARCH=$(ARCH) $(GO) run $(NFPM) package --config deploy/packages/signer.yaml \
		--packager $$p --target $(PACKAGE_DIR)/signer/ || exit; done

# The policy module for SELinux; the version of its format is one that every system takes on which the units start.
packages-selinux:
	mkdir -p dist/root $(PACKAGE_DIR)/selinux
	checkmodule -M -m -c 19 -o dist/root/shared_altsd.mod deploy/selinux/shared_altsd.te
	semodule_package -o dist/root/shared_altsd.pp -m dist/root/shared_altsd.mod -f deploy/selinux/shared_altsd.fc
	rm -f $(PACKAGE_DIR)/selinux/*.rpm
	VERSION=$(VERSION) $(GO) run $(NFPM) package --config deploy/packages/selinux.yaml --packager rpm --target $(PACKAGE_DIR)/selinux/

# The same as a later version, to upgrade to.
packages-next: packages
	$(MAKE) --no-print-directory packages VERSION=99.0.0 PACKAGE_DIR=dist/next

# What deploy/release/release.sh says at its top.
RELEASE_DIR ?= dist/release
RELEASE_ARCHS ?= amd64 arm64
release:
	@VERSION='$(VERSION)' RELEASE_DIR='$(RELEASE_DIR)' RELEASE_KEY='$(RELEASE_KEY)' RELEASE_ARCHS='$(RELEASE_ARCHS)' RELEASE_ADD='$(RELEASE_ADD)' \
		RELEASE_PACKAGES='$(RELEASE_PACKAGES)' RELEASE_TIME='$(RELEASE_TIME)' RELEASE_VALID_DAYS='$(RELEASE_VALID_DAYS)' deploy/release/release.sh

# Those of the last release, to upgrade from and to roll back to, with its application for the tests.
packages-last:
	deploy/last-release.sh packages dist/last

step:
	CGO_ENABLED=0 GOBIN=$(CURDIR)/dist/tools $(GO) install $(STEP_CA)
	CGO_ENABLED=0 GOBIN=$(CURDIR)/dist/tools $(GO) install $(STEP)

images:
	mkdir -p dist/image/socket-dir
	cp deploy/Dockerfile dist/image/Dockerfile
	echo 'root:x:0:0::/:/' >dist/image/passwd
	$(STATIC_BUILD) -o dist/image/shared-altsd ./cmd/shared-altsd
	$(STATIC_BUILD) -o dist/image/app ./deploy/testapp
	docker build -q --target daemon -t shared-altsd:local dist/image
	docker build -q --target app -t shared-altsd-app:local dist/image

# DEPLOY_TEST chooses among the tests, as go test -run does.
DEPLOY_TEST = $(GO) test -tags deploy -count=1 -v -timeout 40m ./deploy/test -run

compose-test: images
	$(DEPLOY_TEST) '^TestCompose$$'

test-systemd: packages-next packages-last images step
	$(DEPLOY_TEST) '^TestSystemd'

test-units: package-root packages-signer
	$(DEPLOY_TEST) '^TestUnits|^TestUser|^TestCompletion|^TestManual|^TestComposeFile'

test-prometheus:
	$(DEPLOY_TEST) '^TestPrometheus'

test-deploy: deploy-debian-packages packages-next packages-last images step
	$(GO) vet -tags deploy ./deploy/...
	$(DEPLOY_TEST) .

deploy-debian-packages:
	@$(MAKE) --no-print-directory debian-packages DEBIAN_PACKAGES='$(DEPLOY_DEBIAN_PACKAGES)'
