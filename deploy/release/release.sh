#!/usr/bin/env bash
# Makes the release of the commit that is checked out: signed repositories for apt and for dnf, with a bill of materials beside each
# package, the public key and checksums. `make release` runs it; docs/install.md says how it is used. Of the environment:
#
#   VERSION             of the packages
#   RELEASE_DIR         where the release goes: one that is there is replaced as a whole, at the end
#   RELEASE_KEY         the fingerprint of a key that gpg has, by GNUPGHOME or an agent; without it one for a trial is made and thrown away
#   RELEASE_ARCHS       architectures, as Go names them; the signer's package is for this machine's alone
#   RELEASE_ADD         earlier releases, whose packages come along if the same key has signed them
#   RELEASE_PACKAGES    folders whose packages come along as they are: signers that were built on other machines
#   RELEASE_TIME        seconds: the date of the repositories; the commit's if it is not given
#   RELEASE_VALID_DAYS  after so many days from then apt takes the tree as withheld from its updates
set -euo pipefail
cd "$(dirname "$0")/../.."
umask 022
export LC_ALL=C TZ=UTC
GPG_TTY=${GPG_TTY:-$(tty || true)} # where gpg asks for the key's passphrase
export GPG_TTY
# Neither make's variables nor what this machine's builds are set to; the program says its commit.
unset MAKEFLAGS MFLAGS MAKEOVERRIDES MAKELEVEL SOURCE_DATE_EPOCH GOAMD64 GOARM64 GOEXPERIMENT GODEBUG CGO_CFLAGS CGO_CPPFLAGS CGO_LDFLAGS
export GOFLAGS=-buildvcs=true

fail() { echo "make release: $*" >&2; exit 1; }
for tool in git gpg gpgv apt-ftparchive createrepo_c rpmsign rpmkeys checkmodule semodule_package; do
	command -v $tool >/dev/null || fail "there is no $tool: as root on Debian, make deploy-debian-packages"
done
commit=$(git rev-parse --verify HEAD)
committed=$(git log -1 --format=%ct "$commit")
time=${RELEASE_TIME:-$committed}
[[ $time =~ ^[0-9]{1,10}$ ]] || fail "RELEASE_TIME=$time: want seconds since 1970"
[[ ${RELEASE_VALID_DAYS:-1} =~ ^[1-9][0-9]{0,3}$ ]] || fail "RELEASE_VALID_DAYS=$RELEASE_VALID_DAYS: want days, from 1 to 9999"
[[ $VERSION =~ ^[0-9]+\.[0-9]+\.[0-9]+$ ]] || fail "VERSION=$VERSION: want three numbers, as 1.2.3"
if [ -n "$(ls -A "$RELEASE_DIR" 2>/dev/null)" ] && [ ! -e "$RELEASE_DIR/RELEASE" ]; then
	fail "RELEASE_DIR=$RELEASE_DIR is there, and no release, so it is not replaced: name another folder"
fi
[ -z "$(git status --porcelain)" ] || echo "make release: changes that are not committed are not in it"
mkdir -p "$(dirname "$RELEASE_DIR")"
work=$(mktemp -d "$(dirname "$RELEASE_DIR")/.release.XXXXXX")
work=$(cd "$work" && pwd)
trap 'rm -rf "$work"' EXIT

# The key, and with it the time that signatures bear: the same key and commit give the same bytes.
if [ -z "${RELEASE_KEY:-}" ]; then
	echo "make release: RELEASE_KEY is not given, so this is for a trial: its key is thrown away"
	GNUPGHOME=$(mktemp -d) # not below $work, whose name may be too long for the socket of gpg's agent
	export GNUPGHOME
	trap 'gpgconf --kill gpg-agent; rm -rf "$work" "$GNUPGHOME"' EXIT
	gpg --batch --quiet --pinentry-mode loopback --passphrase '' --faked-system-time "$time" \
		--quick-generate-key 'shared-altsd, for a trial alone' rsa3072 sign never 2>/dev/null
	RELEASE_KEY=$(gpg --batch --trust-model always --list-secret-keys --with-colons | awk -F: '$1 == "fpr" { print $10; exit }')
fi
[[ $RELEASE_KEY =~ ^[0-9A-F]{40}$ ]] || fail "RELEASE_KEY=$RELEASE_KEY: want a whole fingerprint, 40 digits without spaces, as gpg --list-secret-keys prints it"
key=$(gpg --batch --trust-model always --list-keys --with-colons "$RELEASE_KEY") || fail "gpg has no key $RELEASE_KEY: see GNUPGHOME"
case $(awk -F: '$1 == "pub" { print $2; exit }' <<<"$key") in
e | r | d | i) fail "the key $RELEASE_KEY is expired, revoked or disabled: no machine would believe it" ;;
esac
created=$(awk -F: '$1 == "pub" || $1 == "sub" { if ($6 > last) last = $6 } END { print last + 0 }' <<<"$key")
signed=$((created > time ? created : time))
fake=$(date -u -d "@$signed" +%Y%m%dT%H%M%S)!
sign() { gpg --batch --yes --quiet --faked-system-time "$fake" --digest-algo SHA512 --local-user "$RELEASE_KEY" "$@" 2>"$work/gpg.log" || fail "gpg: $(cat "$work/gpg.log")"; }

# From a clone, so that nothing is in it that is not in the commit, whoever may read or write the files here. Without tags, since what
# a clone knows of them would be in the program.
src=$work/src
git clone -q --no-tags --no-checkout . "$src"
git -C "$src" -c advice.detachedHead=false checkout -q --detach "$commit"
tree=$work/release
pool=$tree/apt/pool/main/s/shared-altsd rpms=$tree/dnf/packages
mkdir -p "$pool" "$rpms"
sbom() { (cd "$src" && go run ./internal/sbom "$1" "$VERSION"); }
for arch in $RELEASE_ARCHS; do
	make -s -C "$src" packages VERSION="$VERSION" ARCH="$arch" PACKAGE_DIR="dist/$arch" >"$work/log" 2>&1 || { cat "$work/log" >&2; fail "packages for $arch"; }
	for file in "$src/dist/$arch"/*.{deb,rpm} "$src/dist/$arch"/signer/*.{deb,rpm} "$src/dist/$arch"/selinux/*.rpm; do
		[ -e "$file" ] || continue # no signer for other architectures
		program=shared-altsd to=$pool
		[[ $file != */signer/* ]] || program=shared-altsd-signer
		[[ $file != *.rpm ]] || to=$rpms
		cp "$file" "$to/"
		[[ $file != */selinux/* ]] || continue # has no program
		sbom "$src/dist/root/$program" >"$to/$(basename "$file").cdx.json"
	done
	# The policy for SELinux has no program, and is the same for each architecture.
	cp "$src/dist/$arch"/selinux/*.rpm "$rpms/"
done

# take adds the packages of a folder.
take() {
	while IFS= read -r -d '' file; do
		to=$pool
		[[ $file != *.rpm ]] || to=$rpms
		name=$(basename "$file")
		if [[ $file != *.rpm ]] && [ -e "$to/$name" ] && ! cmp -s "$file" "$to/$name"; then
			fail "$name of $2 is another package of the same name: a release that is out is never changed, so raise VERSION"
		fi
		cp "$file" "$to/"
		[ ! -e "$file.cdx.json" ] || cp "$file.cdx.json" "$to/"
	done < <(find "$1" -type f \( -name '*.deb' -o -name '*.rpm' \) -print0)
}
# An earlier release is believed by its key, and of what lies there that alone which was signed.
gpg --batch --export "$RELEASE_KEY" >"$work/key.gpg"
[ -s "$work/key.gpg" ] || fail "gpg exports no key $RELEASE_KEY"
for from in ${RELEASE_ADD:-}; do
	[ -e "$from/SHA256SUMS" ] || fail "RELEASE_ADD: $from is no release, without SHA256SUMS; RELEASE_PACKAGES is for other folders"
	rm -rf "$work/from"
	cp -r --no-dereference "$from/." "$work/from"
	(
		cd "$work/from"
		gpgv --quiet --keyring "$work/key.gpg" SHA256SUMS.asc SHA256SUMS 2>"$work/log" || fail "RELEASE_ADD: $from/SHA256SUMS is not signed by $RELEASE_KEY: $(cat "$work/log")"
		sha256sum --quiet --strict -c SHA256SUMS >&2 || fail "RELEASE_ADD: $from is not what its SHA256SUMS says"
		more=$(comm -13 <(cut -c67- SHA256SUMS | sort) <(find . ! -type d ! -path ./SHA256SUMS ! -path ./SHA256SUMS.asc -printf '%P\n' | sort))
		[ -z "$more" ] || fail "RELEASE_ADD: $from has what its SHA256SUMS does not name: $more"
	)
	take "$work/from" "$from"
done
for from in ${RELEASE_PACKAGES:-}; do
	[ -d "$from" ] || fail "RELEASE_PACKAGES: $from is no folder"
	take "$from" "$from"
done
[ -n "$(find "$pool" -name '*.deb')" ] && [ -n "$(find "$rpms" -name '*.rpm')" ] || fail "there is no package: see RELEASE_ARCHS"

# apt.
(
	cd "$tree/apt"
	stable=dists/stable
	sha256=(-oAPT::FTPArchive::MD5=false -oAPT::FTPArchive::SHA1=false -oAPT::FTPArchive::SHA512=false)
	for arch in $(for deb in "$pool"/*.deb; do dpkg-deb -f "$deb" Architecture; done | sort -u); do
		index=$stable/main/binary-$arch
		mkdir -p "$index"
		apt-ftparchive "${sha256[@]}" --arch "$arch" packages pool >"$index/Packages"
		gzip -9nk "$index/Packages"
		# By their digest too, so that a client that has the older Release finds what it names while a newer tree replaces this one.
		mkdir -p "$index/by-hash/SHA256"
		for file in Packages Packages.gz; do
			cp "$index/$file" "$index/by-hash/SHA256/$(sha256sum "$index/$file" | cut -d' ' -f1)"
		done
		archs="${archs:-}${archs:+ }$arch"
	done
	at() { date -u -d "@$1" '+%a, %d %b %Y %H:%M:%S UTC'; }
	field=-oAPT::FTPArchive::Release::
	apt-ftparchive "${sha256[@]}" "${field}Origin=shared-altsd" "${field}Label=shared-altsd" "${field}Suite=stable" \
		"${field}Codename=stable" "${field}Architectures=$archs" "${field}Components=main" "${field}Acquire-By-Hash=yes" \
		"${field}Date=$(at "$time")" release "$stable" >"$work/Release"
	if [ -n "${RELEASE_VALID_DAYS:-}" ]; then # apt-ftparchive can only count from now on
		sed -i "/^Date: /a Valid-Until: $(at $((time + RELEASE_VALID_DAYS * 86400)))" "$work/Release"
	fi
	mv "$work/Release" "$stable/Release"
	sign --clearsign --output "$stable/InRelease" "$stable/Release"
	sign --armor --detach-sign --output "$stable/Release.gpg" "$stable/Release"
)

# dnf. A package that this key has signed already stays as it is.
gpg --batch --armor --export-options export-minimal --export "$RELEASE_KEY" >"$tree/shared-altsd.asc"
rpmkeys --dbpath "$work/rpmdb" --import "$tree/shared-altsd.asc"
for file in "$rpms"/*.rpm; do
	if ! rpmkeys --dbpath "$work/rpmdb" --define '_pkgverify_level all' --checksig "$file" >/dev/null 2>&1; then
		rpmsign --define "_gpg_name $RELEASE_KEY" --define "__gpg $(command -v gpg)" --define "__gpg_sign_cmd %{__gpg} gpg --batch --no-verbose --no-armor \
			--faked-system-time $fake --digest-algo SHA256 -u $RELEASE_KEY -sbo %{__signature_filename} %{__plaintext_filename}" \
			--addsign "$file" >"$work/log" 2>&1 || { cat "$work/log" >&2; fail "rpmsign $file"; }
		rpmkeys --dbpath "$work/rpmdb" --define '_pkgverify_level all' --checksig "$file" >"$work/log" 2>&1 || fail "$(cat "$work/log")"
	fi
	touch -d "@$time" "$file"
done
createrepo_c --quiet --no-database --general-compress-type=gz --checksum=sha256 --workers=1 --revision="$time" --set-timestamp-to-revision \
	--excludes='*.json' "$tree/dnf" 2>"$work/log" || fail "createrepo_c: $(cat "$work/log")"
sign --armor --detach-sign --output "$tree/dnf/repodata/repomd.xml.asc" "$tree/dnf/repodata/repomd.xml"

printf 'version %s\ncommit %s\ngo %s\nkey %s\n' "$VERSION" "$commit" "$(go env GOVERSION)" "$RELEASE_KEY" >"$tree/RELEASE"
(cd "$tree" && find . -type f -printf '%P\n' | sort | xargs -d '\n' sha256sum) >"$work/SHA256SUMS"
mv "$work/SHA256SUMS" "$tree/SHA256SUMS"
sign --armor --detach-sign --output "$tree/SHA256SUMS.asc" "$tree/SHA256SUMS"

rm -rf "$RELEASE_DIR"
mv "$tree" "$RELEASE_DIR"
echo "$RELEASE_DIR: $VERSION of commit ${commit:0:12}, signed by $RELEASE_KEY, $(find "$RELEASE_DIR" -name '*.deb' -o -name '*.rpm' | wc -l) packages"
