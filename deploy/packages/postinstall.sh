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

# The profile that lets exec make its namespace, where AppArmor knows of those. One older than 4.0 would fail over the file at each
# boot. An administrator's file of that name stays, and so does his word that the profile is not to be (aa-disable).
profile=/etc/apparmor.d/shared-altsd
if [ -e /etc/apparmor.d/abi/4.0 ]; then
	[ -e "$profile" ] || ln -sf /usr/share/shared-altsd/apparmor/shared-altsd "$profile"
	if [ "$(cat /sys/module/apparmor/parameters/enabled 2>/dev/null)" = Y ] && [ ! -e /etc/apparmor.d/disable/shared-altsd ]; then
		apparmor_parser -r -T -W "$profile" || echo "shared-altsd: AppArmor did not take $profile, so that exec may be refused a user namespace"
	fi
fi

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
