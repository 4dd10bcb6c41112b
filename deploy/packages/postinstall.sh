#!/bin/sh
# After the files are in place: deb says "configure [old version]", rpm says how many versions are installed now.
set -e
case "$1" in
configure) old=$2 ;;
1) old= ;;
[2-9]*) old=yes ;;
*) exit 0 ;;
esac

systemd-sysusers shared-altsd.conf

booted=
if [ -d /run/systemd/system ]; then
	booted=yes
	systemctl daemon-reload
fi
if [ -n "$old" ]; then
	# The socket stays open meanwhile: callers wait in its queue and are not refused.
	[ -z "$booted" ] || systemctl try-restart shared-altsd-resolve.service shared-altsd.service
	exit 0
fi
# Enabled or not as the distribution's policy says. Without a certificate the first two are passed over, and the third waits for
# it.
systemctl preset shared-altsd.socket shared-altsd.service shared-altsd-renew.path >/dev/null 2>&1 || :
if [ -n "$booted" ]; then
	for unit in shared-altsd.socket shared-altsd.service shared-altsd-renew.path; do
		! systemctl -q is-enabled "$unit" || systemctl start "$unit" || :
	done
fi
if [ ! -e /etc/shared-altsd/machine.pem ]; then
	echo "shared-altsd: put this machine's certificate and key into /etc/shared-altsd/machine.pem (root's, mode 0600)"
	echo "and the CA into /etc/shared-altsd/ca.pem (mode 0644), then: systemctl enable --now shared-altsd.service shared-altsd-renew.path"
fi
