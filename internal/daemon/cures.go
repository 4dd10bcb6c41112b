package daemon

import (
	"fmt"
	"time"

	"github.com/shared-altsd/shared-altsd/certbind"
	"github.com/shared-altsd/shared-altsd/internal/expiry"
)

// settingFlags are the flags of serve, and of reload, by which an administrator changes what certbind names as the cure
// of an error or a fault.
var settingFlags = map[certbind.Setting]string{
	certbind.SettingKey:            "--key",
	certbind.SettingMachineName:    "--machine-name",
	certbind.SettingCAs:            "--ca",
	certbind.SettingCRLStaleOK:     "--crl-stale-ok",
	certbind.SettingRequireEKU:     "--require-eku",
	certbind.SettingOlderList:      "reload --accept-older-list",
	certbind.SettingForgetList:     "reload --forget-list",
	certbind.SettingLists:          "--crl",
	certbind.SettingCompleteList:   "--crl complete=FILE",
	certbind.SettingDomainAccounts: "--account-domain, or --allow-domain-accounts",
}

// expiryFlags are the flags that go with the cure of what ends.
var expiryFlags = map[string]string{expiry.CA: "--ca", expiry.CRL: "--crl-stale-ok"}

// withFlag returns an error with the flag that cures it, if one does.
func withFlag(err error) error {
	if flag := settingFlags[certbind.SettingOf(err)]; flag != "" {
		return fmt.Errorf("%w (%s)", err, flag)
	}
	return err
}

// faultWithFlag returns a fault with the flag that cures it, if one does.
func faultWithFlag(f certbind.Fault) certbind.Fault {
	if flag := settingFlags[f.Setting]; flag != "" {
		f.Cure += " (" + flag + ")"
	}
	return f
}

// judgeExpiry is expiry.Judge, with the flags that cure what it says.
func judgeExpiry(items []expiry.Item, now time.Time) []expiry.Notice {
	notices := expiry.Judge(items, now)
	for i := range notices {
		if flag := expiryFlags[notices[i].Kind]; flag != "" && !notices[i].NotYet {
			notices[i].Cure += " (" + flag + ")"
		}
	}
	return notices
}
