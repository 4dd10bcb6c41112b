#!/bin/sh
# After the files are in place: deb says "configure [old version]", rpm says how many versions are installed now.
set -e
case "$1" in
configure) old=$2 ;;
1) old= ;;
[2-9]*) old=yes ;;
*) exit 0 ;;
esac

systemd-sysusers shared-altsd-signer.conf

booted=
if [ -d /run/systemd/system ]; then
	booted=yes
	systemctl daemon-reload
fi
if [ -n "$old" ]; then
	# The daemon goes on by the statements in force meanwhile.
	[ -z "$booted" ] || systemctl try-restart shared-altsd-signer.service
	exit 0
fi
echo "shared-altsd-signer: make a key, and name it in /etc/shared-altsd/signer.conf (/usr/share/doc/shared-altsd/docs/hardware.md),"
echo "then: systemctl enable --now shared-altsd-signer.socket"
