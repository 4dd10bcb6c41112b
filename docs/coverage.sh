#!/usr/bin/env bash
# Says for noiseproto, certbind and service how many statements their own tests run, and where those are that none runs. Fails if a
# package has 90 % or less.
set -euo pipefail
cd "$(dirname "$0")/.."
profile=$(mktemp)
trap 'rm -f "$profile"' EXIT
status=0
for package in noiseproto certbind service; do
	go test -count=1 -coverprofile="$profile" "./$package" >/dev/null
	percent=$(go tool cover -func="$profile" | awk 'END { print $NF + 0 }')
	echo "$package $percent %"
	# A line of the profile: file:line.column,line.column statements count
	sed -n 's#^github.com/shared-altsd/shared-altsd/\([^:]*\):\([0-9]*\)\..* 0$#    \1:\2#p' "$profile" | sort -t: -k1,1 -k2n
	awk "BEGIN { exit !($percent > 90) }" || status=1
done
exit $status
