package main

import (
	"fmt"
	"path/filepath"
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
