#!/bin/sh
# Builds the last release, whose version and commit deploy/last-release names, from this repository's history, for the tests of
# upgrades (docs/upgrade.md): programs and their source into DIR, or with "packages" its packages.
#
#	deploy/last-release.sh programs DIR
#	deploy/last-release.sh packages DIR
set -eu
[ $# = 2 ] || { echo "usage: $0 programs|packages DIR" >&2; exit 2; }
top=$(cd "$(dirname "$0")/.." && pwd)
what=$1
mkdir -p "$2"
dir=$(cd "$2" && pwd)
read -r version commit <"$top/deploy/last-release"
case $commit in
*[!0-9a-f]* | '') echo "$0: deploy/last-release has to be a version and a whole commit hash, and is: $version $commit" >&2; exit 1 ;;
esac
if ! git -C "$top" cat-file -e "$commit^{commit}" 2>/dev/null; then
	echo "$0: the commit of the last release, $commit ($version), is not in this clone." >&2
	if [ "$(git -C "$top" rev-parse --is-shallow-repository 2>/dev/null)" = true ]; then
		echo "$0: the clone is shallow: git fetch --unshallow" >&2
	else
		echo "$0: it needs a clone with its history: git fetch --tags, or clone again, and no archive of the sources alone" >&2
	fi
	exit 1
fi
source=$dir/source
[ "$what" = programs ] || source=$(mktemp -d)
mkdir -p "$source"
git -C "$top" archive "$commit" | tar -x -C "$source"
cd "$source"
stamp="-X github.com/shared-altsd/shared-altsd/internal/version.stamped=$version"
case $what in
programs)
	go build -ldflags="$stamp" -o "$dir/shared-altsd" ./cmd/shared-altsd
	CGO_ENABLED=0 go build -ldflags="$stamp" -o "$dir/shared-altsd-static" ./cmd/shared-altsd
	go build -ldflags="$stamp" -o "$dir/shared-altsd-signer" ./cmd/shared-altsd-signer
	CGO_ENABLED=0 go build -o "$dir/testapp" ./deploy/testapp
	;;
packages)
	trap 'rm -rf "$source"' EXIT
	make --no-print-directory packages VERSION="$version" PACKAGE_DIR="$dir" \
		SOURCE_DATE_EPOCH="$(git -C "$top" log -1 --format=%ct "$commit")"
	CGO_ENABLED=0 go build -o "$dir/testapp" ./deploy/testapp
	;;
*) echo "$0: $what: what is that?" >&2; exit 2 ;;
esac
