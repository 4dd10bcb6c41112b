#!/usr/bin/env bash
# Clones the commit that is checked out into two folders of different length, builds each with "make build" and "make static",
# and compares the programs byte for byte. Uncommitted changes are not in it.
set -euo pipefail
cd "$(dirname "$0")/.."
commit=$(git rev-parse HEAD)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

one=$work/a two=$work/another/folder/of/another/length
for dir in "$one" "$two"; do
	git clone -q --no-hardlinks . "$dir"
	git -C "$dir" checkout -q "$commit"
	# Neither the build cache nor the time of the files may help.
	find "$dir" -path "$dir/.git" -prune -o -type f -exec touch -d "@$RANDOM" {} +
	GOCACHE=$work/cache-$(basename "$dir") make -s -C "$dir" build static
done
status=0
for program in shared-altsd shared-altsd-static shared-altsd-signer; do
	if cmp "$one/bin/$program" "$two/bin/$program"; then
		sha256sum "$one/bin/$program" | sed "s#$one/##"
	else
		status=1
	fi
done
exit $status
