package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/shared-altsd/shared-altsd/internal/testca"
	"github.com/shared-altsd/shared-altsd/internal/testprog"
)

// Certificates of minutes, as step-ca issues them, renewed under load: no handshake is lost, neither for what is left of a
// certificate nor while the next one comes into force.
func TestRenewalUnderLoad(t *testing.T) {
	t.Parallel()
	dir := testprog.Dir(t)
	ca := newCA(t, testca.Options{})
	caFile := write(t, filepath.Join(dir, "ca.pem"), ca.PEM())
	short := func(name string) *testca.Issued {
		i := issue(t, ca, testca.Leaf{Hosts: []string{name}, NotBefore: time.Now().Add(-10 * time.Second),
			NotAfter: time.Now().Add(2 * time.Minute)})
		write(t, filepath.Join(dir, name+".pem"), i.PEM())
		return i
	}
	daemon := func(name string) *process {
		short(name)
		return start(t, "--credentials", filepath.Join(dir, name+".pem"), "--ca", caFile)
	}
	a, b := daemon("a.test"), daemon("b.test")
	var end atomic.Bool
	var made atomic.Int64
	var load sync.WaitGroup
	for range 4 {
		load.Go(func() {
			for !end.Load() {
				serverIs, clientIs, err := talk(t, a.socket, b.socket)
				if err != nil || serverIs != me(t)+"@b.test" || clientIs != me(t)+"@a.test" {
					t.Errorf("%s %s %v", serverIs, clientIs, err)
					return
				}
				made.Add(1)
			}
		})
	}
	for range 3 {
		for _, p := range []struct {
			*process
			name string
		}{{a, "a.test"}, {b, "b.test"}} {
			p.log.waitAfter(t, 0, fmt.Sprintf("msg=reloaded machine=%s serial=%x", p.name, short(p.name).Cert.SerialNumber))
		}
	}
	end.Store(true)
	load.Wait()
	if made.Load() == 0 {
		t.Error("no handshake was made")
	}
	t.Logf("%d handshakes over 6 renewals", made.Load())
}

// A daemon that has a copy of its certificate, as systemd gives it, and a renewal that is refused: metric and status say
// so for as long as no renewal has come into force, however good the copy is.
func TestRefusedRenewal(t *testing.T) {
	t.Parallel()
	dir, ca := testprog.Dir(t), newCA(t, testca.Options{})
	path := func(name string) string { return filepath.Join(dir, name) }
	certificate := func(ca *testca.CA) []byte { return issue(t, ca, testca.Leaf{Hosts: []string{"a.test"}}).PEM() }
	if err := os.Mkdir(path("copy"), 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, path("ca.pem"), ca.PEM())
	cmd := exec.Command(program(t), "serve", "--socket", path("socket"), "--metrics", "unix:"+path("metrics"),
		"--credentials", write(t, path("copy/machine.pem"), certificate(ca)), "--ca", path("ca.pem"))
	cmd.Env = append(os.Environ(), "CREDENTIALS_DIRECTORY="+path("copy"))
	p := launch(t, path("socket"), cmd)
	p.told.waitAfter(t, 0, "READY=1")
	renew := func() (int, string) {
		code, out, errs := altsd(t, "reload", "--socket", p.socket, "--credentials", path("machine.pem"))
		return code, out + errs
	}
	says := func(when, metric string, want ...string) {
		t.Helper()
		if body := scrape(t, path("metrics")); !strings.Contains(body, `shared_altsd_last_reload_successful{machine="a.test"}`+metric+"\n") {
			t.Errorf("%s: no %s in\n%s", when, metric, body)
		}
		_, text, _ := altsd(t, "status", "--socket", p.socket)
		for _, w := range want {
			if !strings.Contains(text, w) {
				t.Errorf("%s: no %q in\n%s", when, w, text)
			}
		}
	}
	other := newCA(t, testca.Options{})
	write(t, path("machine.pem"), certificate(other))
	if code, out := renew(); code != 1 || !strings.Contains(out, "(--ca)") {
		t.Errorf("a foreign certificate: %d %s", code, out)
	}
	says("refused", " 0", "refused      the certificate handed over, since ", "does not lead to a CA", " stay in force meanwhile")
	n := p.log.Count()
	write(t, path("ca.pem"), append(ca.PEM(), newCA(t, testca.Options{}).PEM()...))
	p.log.waitAfter(t, n, `still_refused="the certificate handed over"`)
	says("after a reload of ca.pem", " 0", "refused      the certificate handed over, since ", "does not lead to a CA")
	if code, out, _ := altsd(t, "reload", "--socket", p.socket); code != 0 ||
		!strings.Contains(out, "changed:  nothing\nnote:     the daemon's certificate is systemd's copy") {
		t.Errorf("reload without it: %d %s", code, out)
	}
	says("after a reload without it", " 0")
	// The renewal is good, once its CA is trusted.
	write(t, path("ca.pem"), append(ca.PEM(), other.PEM()...))
	if code, out := renew(); code != 0 || !strings.Contains(out, "changed:  certificate ") {
		t.Errorf("once its CA is trusted: %d %s", code, out)
	}
	p.log.waitAfter(t, n, "CA added: "+other.Cert.Subject.String()) // by then, or by the daemon itself before
	says("in force", " 1")
	// One that cannot be read is refused before the daemon has seen it.
	if err := os.Remove(path("machine.pem")); err != nil {
		t.Fatal(err)
	}
	if code, out := renew(); code != 1 || !strings.Contains(out, "no such file") {
		t.Errorf("gone: %d %s", code, out)
	}
	says("gone", " 0", "no such file")
	write(t, path("machine.pem"), certificate(ca))
	if code, out := renew(); code != 0 {
		t.Errorf("there again: %d %s", code, out)
	}
	says("there again", " 1")
}
