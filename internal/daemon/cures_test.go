package daemon

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/shared-altsd/shared-altsd/certbind"
	"github.com/shared-altsd/shared-altsd/internal/expiry"
)

// Each setting that certbind may name has a flag, of serve or of reload. (That serve has it is tested beside serve.)
func TestSettingFlags(t *testing.T) {
	for s := certbind.SettingKey; s <= certbind.SettingDomainAccounts; s++ {
		if !strings.HasPrefix(strings.TrimPrefix(settingFlags[s], "reload "), "--") {
			t.Errorf("setting %d has the flag %q", s, settingFlags[s])
		}
	}
	if len(settingFlags) != int(certbind.SettingDomainAccounts) {
		t.Errorf("%d settings have flags, want %d", len(settingFlags), certbind.SettingDomainAccounts)
	}
}

func TestWithFlag(t *testing.T) {
	_, noCA := certbind.NewTrust(certbind.TrustConfig{})
	account := fmt.Errorf("cannot use this: %w", certbind.ValidAccount("a@b", false))
	for err, want := range map[error]string{
		noCA:                "no CA is trusted, so that every peer would be refused; name one (--ca)",
		account:             account.Error() + " (--account-domain, or --allow-domain-accounts)",
		errors.New("other"): "other",
	} {
		if got := withFlag(err); got.Error() != want || !errors.Is(got, err) {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	if withFlag(nil) != nil {
		t.Error("an error out of nothing")
	}
	f := certbind.Fault{What: "what", Cure: "cure", Setting: certbind.SettingCAs}
	if got := faultWithFlag(f); got.String() != "what; cure (--ca)" {
		t.Errorf("got %q", got)
	}
	f.Setting = 0
	if got := faultWithFlag(f); got != f {
		t.Errorf("got %q", got)
	}
}

func TestExpiryFlags(t *testing.T) {
	now := time.Now()
	end := func(kind string, ends time.Duration) expiry.Item {
		return expiry.Item{Kind: kind, NotBefore: now.Add(-365 * expiry.Day), NotAfter: now.Add(ends)}
	}
	young := expiry.Item{Kind: expiry.CA, NotBefore: now.Add(expiry.Day), NotAfter: now.Add(9 * expiry.Day)}
	items := []expiry.Item{end(expiry.Leaf, expiry.Day), end(expiry.Chain, 0), end(expiry.CA, expiry.Day),
		end(expiry.CRL, -expiry.Day), young}
	notices := judgeExpiry(items, now)
	want := []string{"reload the daemon", "reload the daemon", " (--ca)", " (--crl-stale-ok)", "of the CA"}
	if len(notices) != len(want) {
		t.Fatalf("got %+v", notices)
	}
	for i, n := range notices {
		if n.Item != items[i] || !strings.HasSuffix(n.Cure, want[i]) {
			t.Errorf("got %q, want %q at its end", n.Cure, want[i])
		}
	}
}
