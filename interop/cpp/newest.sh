#!/bin/sh
# Makes DIR/root a root with the newest gRPC that Debian has (experimental over sid), a C++ compiler and what else building
# interop/cpp takes. Packages are only unpacked and nothing is configured: it is for chroot, and for its own loader.
set -eu
dir=$1
mirror=${DEBIAN_MIRROR:-$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 2>/dev/null | grep -v security | head -n 1)}
mkdir -p "$dir/apt/state/lists/partial" "$dir/apt/cache/archives/partial" "$dir/root"
: >"$dir/apt/status"
for suite in sid experimental; do
	echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] ${mirror:-http://deb.debian.org/debian} $suite main"
done >"$dir/apt/sources.list"
printf '%s\n' 'Package: src:grpc' 'Pin: release a=experimental' 'Pin-Priority: 990' >"$dir/apt/preferences"
apt() {
	apt-get -qq -o Dir::State="$dir/apt/state" -o Dir::State::status="$dir/apt/status" -o Dir::Cache="$dir/apt/cache" \
		-o Dir::Etc::sourcelist="$dir/apt/sources.list" -o Dir::Etc::sourceparts=/dev/null -o Dir::Etc::preferences="$dir/apt/preferences" -o Dir::Etc::preferencesparts=/dev/null \
		-o APT::Install-Recommends=false -o APT::Sandbox::User=root "$@"
}
# A mirror answers now and then that it does not.
again() { "$@" || { sleep 5; "$@"; } || { sleep 20; "$@"; }; }
again apt update
again apt install --download-only -y base-files libgrpc++-dev protobuf-compiler-grpc libprotobuf-dev libssl-dev g++ make pkgconf dash coreutils
for deb in "$dir"/apt/cache/archives/*.deb; do dpkg -x "$deb" "$dir/root"; done
rm -rf "$dir/apt"
