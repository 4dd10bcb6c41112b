package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/shared-altsd/shared-altsd/internal/metrics"
	"github.com/shared-altsd/shared-altsd/internal/testca"
	"github.com/shared-altsd/shared-altsd/internal/testprog"
)

// A daemon that trusts many CAs and lists, and DNS besides, and refuses for all that can be made here, has the series that it began
// with, and no more than a fleet can bear.
func TestRule65Daemon(t *testing.T) {
	dir := testprog.Dir(t)
	path := func(name string) string { return filepath.Join(dir, name) }
	if err := os.Mkdir(path("lists"), 0o755); err != nil {
		t.Fatal(err)
	}
	ca := newCA(t, testca.Options{})
	bundle := ca.PEM()
	for i := range 20 {
		other := newCA(t, testca.Options{Name: fmt.Sprint("CA ", i)})
		bundle = append(bundle, other.PEM()...)
		write(t, path(fmt.Sprintf("lists/%d.crl", i)), testca.MustCRL(t, other, nil, testca.CRLOptions{}))
	}
	write(t, path("lists/none.crl"), []byte("no list"))
	p := start(t, "--credentials", write(t, path("a.pem"), issue(t, ca, testca.Leaf{Hosts: []string{"a.test"}}).PEM()),
		"--ca", write(t, path("ca.pem"), bundle), "--ca", "dns.test=dane", "--resolver-socket", path("none"),
		"--crl", path("lists")+"/", "--metrics", "unix:"+path("metrics"))
	series := func() (names []string) {
		for line := range strings.Lines(scrape(t, path("metrics"))) {
			if name, _, found := strings.Cut(line, "} "); found && !strings.HasPrefix(line, "#") {
				names = append(names, name)
			}
		}
		return names
	}
	idle := series()
	if len(idle) > metrics.MaxSeries {
		t.Errorf("%d series:\n%s", len(idle), strings.Join(idle, "\n"))
	}
	stranger := newCA(t, testca.Options{})
	q := start(t, "--credentials", write(t, path("b.pem"), issue(t, stranger, testca.Leaf{Hosts: []string{"b.test"}}).PEM()),
		"--ca", path("ca.pem"), "--ca", write(t, path("stranger.pem"), stranger.PEM()))
	if _, _, err := talk(t, p.socket, p.socket); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		client, server string
		targets        []string
	}{{p.socket, p.socket, []string{"nobody@b.test"}}, {p.socket, q.socket, nil}, {q.socket, p.socket, nil}} {
		if _, _, err := talk(t, c.client, c.server, c.targets...); err == nil {
			t.Errorf("%v was let through", c)
		}
	}
	altsd(t, "reload", "--socket", p.socket, "--credentials", path("b.pem")) // is refused
	if busy := series(); !slices.Equal(idle, busy) {
		t.Errorf("other series than at the start:\n%q\n%q", idle, busy)
	}
	t.Logf("%d series", len(idle))
}
