# Included by the Makefile.
#
# make model          docs/spec/model by ProVerif, if that is on PATH: every query, and every broken variant
# make coverage       statements covered of noiseproto, certbind and service, and what is not
# make reproducible   the same commit built in two folders, compared byte for byte
# make sbom           bin/shared-altsd.cdx.json and bin/shared-altsd-signer.cdx.json, the bills of materials of what "make build" builds

.PHONY: model coverage reproducible sbom

model:
	@command -v proverif >/dev/null || { echo "proverif is not on PATH; docs/spec/model/README.md says how to get it"; exit 1; }
	docs/spec/model/run

coverage:
	docs/coverage.sh

reproducible:
	docs/reproducible.sh

sbom: build
	for p in shared-altsd shared-altsd-signer; do $(GO) run ./internal/sbom bin/$$p >bin/$$p.cdx.json && echo bin/$$p.cdx.json || exit; done
