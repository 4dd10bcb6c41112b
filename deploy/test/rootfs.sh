#!/bin/sh
# Makes a docker image in which the deployment tests boot systemd, by debootstrap: Debian 12 with systemd, dbus, SSSD, rpm, dnf
# and CAs; with the argument postgres, Debian 12 with PostgreSQL 15; with ansible, Debian 12 as Ansible meets a new server; with
# podman, Debian 13 with a podman that has Quadlet and AppArmor 4; or with oldest, Debian 11, whose systemd is the oldest that the packages take.
# Prints the image's name. The name holds a digest of this file, so that an image already made is used again and a change here makes a new one.
set -eu
what=${1:-systemd}
packages=systemd,systemd-sysv,dbus,procps,iproute2
case $what in
systemd)
	suite=bookworm
	# sssd-proxy over libnss-extrausers gives accounts that only SSSD knows, by way of its real socket and responder.
	packages=$packages,rpm,dnf,man-db,bash-completion,sssd-common,sssd-proxy,libnss-sss,libnss-extrausers,openssl,curl,easy-rsa,golang-cfssl,certmonger,rsyslog
	;;
postgres)
	suite=bookworm
	packages=$packages,postgresql,locales
	;;
ansible)
	suite=bookworm
	packages=$packages,python3,python3-apt,openssh-server
	;;
podman)
	suite=trixie
	packages=$packages,podman,crun,netavark,nftables,catatonit,apparmor
	;;
oldest)
	suite=bullseye
	;;
*) echo "$0: $what: what is that?" >&2; exit 2 ;;
esac
# The mirror that this machine itself uses, or else debootstrap's default.
mirror=${DEBIAN_MIRROR:-$(apt-get indextargets --format '$(RELEASE) $(REPO_URI)' 'Created-By: Packages' 2>/dev/null |
	awk -v suite=bookworm '$1 == suite { print $2; exit }')}
image=shared-altsd-test/$what:$suite-$(sha256sum "$0" | cut -c1-12)
if docker image inspect "$image" >/dev/null 2>&1; then
	echo "$image"
	exit
fi
command -v debootstrap >/dev/null || { echo "$0: needs debootstrap (apt-get install debootstrap)" >&2; exit 1; }
dir=$(mktemp -d)
trap 'rm -rf --one-file-system "$dir"' EXIT
debootstrap --variant=minbase --include="$packages" "$suite" "$dir/root" ${mirror:+"$mirror"} >"$dir/log" 2>&1 || { tail -20 "$dir/log" >&2; exit 1; }
rm -rf "$dir"/root/var/cache/apt/archives/*.deb "$dir"/root/var/lib/apt/lists/*
# What has no place on a machine that lives in a container, and would only slow its start.
for unit in systemd-udevd.service systemd-timesyncd.service getty.target apt-daily.timer apt-daily-upgrade.timer \
	dpkg-db-backup.timer e2scrub_all.timer fstrim.timer man-db.timer rsyslog.service syslog.socket; do
	ln -sf /dev/null "$dir/root/etc/systemd/system/$unit"
done
rm -f "$dir/root/etc/machine-id" "$dir/root/usr/sbin/policy-rc.d"
: >"$dir/root/etc/machine-id"
tar -C "$dir/root" -c . | docker import --change 'CMD ["/lib/systemd/systemd"]' --change 'ENV container=docker' - "$image" >/dev/null
echo "$image"
