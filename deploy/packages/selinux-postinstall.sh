#!/bin/sh
# After the files are in place, at an installation and at an upgrade. The module goes into the policy also where SELinux is off, so
# that it is there when it is turned on; 200 is the priority of what packages bring.
set -e
module=/usr/share/selinux/packages/shared-altsd/shared_altsd.pp
if ! semodule -n -X 200 -i "$module"; then
	echo "shared-altsd-selinux: the policy of this system does not take $module (above), so that shared-altsd runs without a domain of"
	echo "its own: build it here from the sources in /usr/share/doc/shared-altsd-selinux, as /usr/share/doc/shared-altsd/docs/mac.md shows"
	exit 0
fi
if selinuxenabled; then
	load_policy
	for path in /usr/bin/shared-altsd /usr/bin/shared-altsd-signer /etc/shared-altsd /var/lib/shared-altsd /var/lib/shared-altsd-crl \
		/run/shared-altsd /run/shared-altsd-resolve /run/shared-altsd-signer; do
		[ ! -e "$path" ] || restorecon -R "$path" || :
	done
fi
if [ -d /run/systemd/system ]; then
	systemctl daemon-reload
	# The sockets have the label of who was to be started when they were made: they are made anew, which refuses callers for a moment.
	if selinuxenabled && systemctl -q is-active shared-altsd.socket; then
		echo "shared-altsd-selinux: in force after: systemctl restart shared-altsd.socket shared-altsd.service"
	fi
fi
