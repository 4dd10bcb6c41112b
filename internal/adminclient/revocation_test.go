package adminclient

import (
	"testing"
	"time"

	"github.com/shared-altsd/shared-altsd/internal/adminpb"
)

// What status says of revocation is one line: each CA once, with its lists' age, end and place, or that it has none.
func TestRevocationLine(t *testing.T) {
	now := time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC)
	list := func(ca, source string, made, next time.Duration) *adminpb.RevocationList {
		return &adminpb.RevocationList{Ca: ca, Source: source, ThisUpdateUnix: now.Add(made).Unix(), NextUpdateUnix: now.Add(next).Unix()}
	}
	for _, tc := range []struct {
		name string
		r    *adminpb.Revocation
		want string
	}{
		{"of an older daemon", nil, "no list of any CA (--crl): nothing counts as revoked"},
		{"none", &adminpb.Revocation{Without: []string{"CN=A"}}, "no list of any CA (--crl): nothing counts as revoked"},
		{"one", &adminpb.Revocation{Lists: []*adminpb.RevocationList{list("CN=A", "/a.crl", -time.Hour, 3*time.Hour)}},
			`"CN=A": made 60 minutes ago, next 2026-05-04 15:00:00Z (3 more hours), from /a.crl`},
		{"two of one, and one without", &adminpb.Revocation{Without: []string{"CN=B"}, Lists: []*adminpb.RevocationList{
			list("CN=A", "/a.crl", -time.Hour, 3*time.Hour), list("CN=A", "/b.crl", -2*time.Hour, 4*time.Hour)}},
			`"CN=A": 2 lists, made 2 hours ago, next 2026-05-04 15:00:00Z (3 more hours), from /a.crl and 1 more; "CN=B": no list`},
	} {
		if got := revocationLine(tc.r, now); got != tc.want {
			t.Errorf("%s: %s\nwant %s", tc.name, got, tc.want)
		}
	}
}
