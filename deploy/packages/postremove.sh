#!/bin/sh
# After the files went. Keys and certificates that an administrator put into /etc/shared-altsd are not ours to delete,
# and the system account stays, so that its uid is not given to somebody else.
set -e
# A version before 0.2.0 has no AppArmor profile: over a link to nothing AppArmor's start would fail. At deb's "upgrade" the file is there
# still, at rpm's it is gone.
profile=/etc/apparmor.d/shared-altsd
if [ -L "$profile" ]; then
	case "$1" in
	upgrade) ! dpkg --compare-versions "$2" lt 0.2.0 || rm -f "$profile" ;;
	[1-9]*) [ -e "$profile" ] || rm -f "$profile" ;;
	esac
fi
case "$1" in
remove | purge | 0) ;;
*) exit 0 ;;
esac
if [ -d /run/systemd/system ]; then
	systemctl daemon-reload
fi
if [ "$1" != remove ]; then
	rmdir /etc/shared-altsd/conf.d /etc/shared-altsd/policy.d /etc/shared-altsd/denied.d /etc/shared-altsd/listen /etc/shared-altsd 2>/dev/null || :
fi
