package main

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shared-altsd/shared-altsd/internal/testca"
	"github.com/shared-altsd/shared-altsd/internal/testprog"
)

// What will soon end is said by one rule: the same words, or none, by check, by the log and by the daemon's admin
// service in both forms of status.
func TestOneJudgeOfExpiry(t *testing.T) {
	const day = 24 * time.Hour
	ends := func(life, left time.Duration) (notBefore, notAfter time.Time) {
		notAfter = time.Now().Add(left + 30*time.Minute)
		return notAfter.Add(-life), notAfter
	}
	for _, tt := range []struct {
		name       string
		what       string // is said to end; empty: nothing
		life, left time.Duration
		want, cure string
	}{
		{"a year's certificate, 31 days left", "leaf", 365 * day, 31 * day, "", ""},
		{"a year's certificate, 20 days left", "leaf", 365 * day, 20 * day, "this machine's certificate ends in 20 days", "renew it"},
		{"90 days' certificate, 20 days left", "leaf", 90 * day, 20 * day, "", ""},
		{"90 days' certificate, 6 days left", "leaf", 90 * day, 6 * day, "this machine's certificate ends in 6 days", "renew it"},
		{"12 hours' certificate, 4 hours left", "leaf", 12 * time.Hour, 4 * time.Hour, "", ""},
		{"12 hours' certificate, 2 hours left", "leaf", 12 * time.Hour, 2 * time.Hour, "this machine's certificate ends in 2 hours", "renew it"},
		{"intermediate", "chain", 365 * day, 20 * day, "of this machine's certificate ends in 20 days", "renew it"},
		{"CA", "ca", 365 * day, 20 * day, "ends in 20 days", "(--ca)"},
		{"revocation list", "crl", 9 * day, 23 * time.Hour, "ends in 23 hours", "(--crl-stale-ok)"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := testprog.Dir(t)
			notBefore, notAfter := ends(tt.life, tt.left)
			var caTime, subTime testca.Options
			leaf := testca.Leaf{Hosts: []string{"a.test"}}
			var list testca.CRLOptions
			_, list.NextUpdate = ends(9*day, 8*day)
			switch tt.what {
			case "leaf":
				leaf.NotBefore, leaf.NotAfter = notBefore, notAfter
			case "chain":
				subTime.NotBefore, subTime.NotAfter = notBefore, notAfter
			case "ca":
				caTime.NotBefore, caTime.NotAfter = notBefore, notAfter
			case "crl":
				list.ThisUpdate, list.NextUpdate = notBefore, notAfter
			}
			ca := newCA(t, caTime)
			sub, err := ca.Intermediate(subTime)
			if err != nil {
				t.Fatal(err)
			}
			der, err := ca.CRL(nil, list)
			if err != nil {
				t.Fatal(err)
			}
			flags := []string{"--credentials", write(t, filepath.Join(dir, "a.pem"), issue(t, sub, leaf).PEM()),
				"--ca", write(t, filepath.Join(dir, "ca.pem"), ca.PEM()), "--crl", write(t, filepath.Join(dir, "list"), der)}
			p := start(t, flags...)
			// A reload returns after what it brought was announced, and what has not changed is not announced again.
			if code, _, errs := altsd(t, "reload", "--socket", p.socket); code != 0 {
				t.Fatal(errs)
			}
			said := map[string]string{"the log": p.log.String()}
			for name, command := range map[string][]string{"check": append([]string{"check"}, flags...),
				"status": {"status", "--socket", p.socket}, "status --json": {"status", "--socket", p.socket, "--json"}} {
				code, out, errs := altsd(t, command...)
				if code != 0 {
					t.Fatalf("%s: exit status %d: %s%s", name, code, out, errs)
				}
				said[name] = strings.ReplaceAll(out, `\"`, `"`)
			}
			end := ", on " + notAfter.UTC().Format("2006-01-02 15:04 UTC")
			for place, text := range said {
				switch {
				case tt.want == "" && strings.Contains(text, "ends in"):
					t.Errorf("%s warns:\n%s", place, text)
				case tt.want != "" && (strings.Count(text, tt.want+end) != 1 || strings.Count(text, "ends in") != 1 ||
					!strings.Contains(text, tt.cure)):
					t.Errorf("%s does not say once %q and %q:\n%s", place, tt.want+end, tt.cure, text)
				}
			}
		})
	}
}
