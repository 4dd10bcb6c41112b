#!/bin/sh
# Before the files go: deb says "remove", rpm says that 0 versions stay. An upgrade stops nothing.
set -e
case "$1" in
remove | 0) ;;
*) exit 0 ;;
esac
if [ -d /run/systemd/system ]; then
	systemctl stop shared-altsd-signer.socket shared-altsd-signer.service || :
fi
systemctl --no-reload disable shared-altsd-signer.socket shared-altsd-signer.service >/dev/null 2>&1 || :
