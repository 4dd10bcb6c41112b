#!/bin/sh
# Before the files go: deb says "remove", rpm says that 0 versions stay. An upgrade stops nothing.
set -e
case "$1" in
remove | 0) ;;
*) exit 0 ;;
esac
if [ -d /run/systemd/system ]; then
	systemctl stop 'shared-altsd-listen@*.service' || :
	systemctl stop shared-altsd-resolve.socket shared-altsd-resolve.service || :
	systemctl stop shared-altsd-fetch-crl.timer shared-altsd-fetch-crl.service || :
	systemctl stop shared-altsd-textfile.timer shared-altsd-textfile.service || :
	systemctl stop shared-altsd-renew.path shared-altsd-renew.timer shared-altsd-metrics.socket shared-altsd.socket shared-altsd.service || :
fi
systemctl --no-reload disable shared-altsd-fetch-crl.timer shared-altsd-textfile.timer shared-altsd-resolve.socket shared-altsd-renew.path shared-altsd-metrics.socket shared-altsd.socket \
	shared-altsd.service >/dev/null 2>&1 || :
if [ -L /etc/apparmor.d/shared-altsd ]; then
	[ "$(cat /sys/module/apparmor/parameters/enabled 2>/dev/null)" != Y ] || apparmor_parser -R /etc/apparmor.d/shared-altsd || :
	rm -f /etc/apparmor.d/shared-altsd
fi
