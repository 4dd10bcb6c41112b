#!/bin/sh
# After the files went. Keys and certificates that an administrator put into /etc/shared-altsd are not ours to delete,
# and the system account stays, so that its uid is not given to somebody else.
set -e
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
