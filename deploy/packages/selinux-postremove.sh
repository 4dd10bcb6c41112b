#!/bin/sh
# After the files went: rpm says how many versions stay.
set -e
[ "$1" = 0 ] || exit 0
semodule -n -X 200 -r shared_altsd || :
if selinuxenabled; then
	load_policy
	for path in /usr/bin/shared-altsd /usr/bin/shared-altsd-signer /etc/shared-altsd /var/lib/shared-altsd /var/lib/shared-altsd-crl \
		/run/shared-altsd /run/shared-altsd-resolve /run/shared-altsd-signer; do
		[ ! -e "$path" ] || restorecon -R "$path" || :
	done
fi
if [ -d /run/systemd/system ]; then
	systemctl daemon-reload
fi
