package daemon

import (
	"crypto/x509"
	"strings"
	"testing"
	"time"
)

func TestAnotherHosts(t *testing.T) {
	for _, tc := range []struct {
		names []string
		host  string
		warns bool
	}{
		{[]string{"a.example.com"}, "a.example.com", false},
		{[]string{"A.Example.com"}, "a.EXAMPLE.com.", false},
		{[]string{"www.example.com", "a.example.com"}, "a.example.com", false},
		{[]string{"a.example.com"}, "a", false},
		{[]string{"a.example.com"}, "localhost.localdomain", false},
		{[]string{"a.example.com"}, "", false},
		{[]string{"a.example.com"}, "b", true},
		{[]string{"a.example.com"}, "b.example.com", true},
		{[]string{"a.example.com"}, "a.example.org", true},
		{[]string{"*.example.com"}, "a.example.com", true},
		{nil, "a.example.com", true},
	} {
		got := anotherHosts(&x509.Certificate{DNSNames: tc.names}, tc.host)
		if (len(got) == 1) != tc.warns || tc.warns && (!got[0].Warning || !strings.Contains(got[0].What, tc.host)) {
			t.Errorf("%v on %q: %v", tc.names, tc.host, got)
		}
	}
}

func TestShortLife(t *testing.T) {
	now := time.Now()
	for life, warns := range map[time.Duration]bool{5 * time.Minute: true, 10 * time.Minute: false, time.Hour: false} {
		if got := shortLife(&x509.Certificate{NotBefore: now, NotAfter: now.Add(life)}); (len(got) == 1) != warns {
			t.Errorf("%v: %v", life, got)
		}
	}
}
