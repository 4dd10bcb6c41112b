package main

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/shared-altsd/shared-altsd/internal/companion"
	"github.com/shared-altsd/shared-altsd/internal/resolve"
	"github.com/shared-altsd/shared-altsd/internal/testdns"
	"github.com/shared-altsd/shared-altsd/internal/testprog"
)

const resolveUID = 54341 // the account that the companion runs as

// resolver starts the companion in the network of d, as its own account.
func resolver(t *testing.T, d *testdns.DNS, args ...string) *testprog.Process {
	t.Helper()
	program, err := testprog.Path()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, append([]string{"resolve"}, args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: resolveUID, Gid: resolveUID}}
	p, err := d.Start(cmd)
	if err == nil {
		_, err = p.Told.WaitText(0, "READY=1")
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Kill)
	return p
}

// The companion answers a daemon from its own account, also after it was started again, and stops when it is told.
func TestResolve(t *testing.T) {
	d := testdns.New(t, testdns.Zone{Name: "good.example", Records: []string{"_shared-alts.alpha 300 IN TLSA 3 1 1 0123"}},
		testdns.Zone{Name: "bad.example", Kind: testdns.Expired, Records: []string{"_shared-alts.alpha IN TLSA 3 1 1 0123"}})
	run := filepath.Join(testprog.Dir(t), "run")
	if err := errors.Join(os.Mkdir(run, 0o755), os.Chown(run, resolveUID, resolveUID)); err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(run, "socket")
	args := []string{"--resolver", "127.0.0.1", "--socket", socket, "--client", "54342"}
	p := resolver(t, d, args...)
	client := companion.NewClient(socket, resolve.Protocol)
	defer client.Close()
	lookup := func(machine string) *resolve.Answer {
		t.Helper()
		req, err := resolve.LookupRequest(machine)
		if err != nil {
			t.Fatal(err)
		}
		b, err := client.Call(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		a, err := resolve.ParseAnswer(b)
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	for machine, want := range map[string]resolve.Outcome{"alpha.good.example": resolve.Secure, "beta.good.example": resolve.Absent,
		"alpha.bad.example": resolve.Bogus} {
		if a := lookup(machine); a.Outcome != want {
			t.Errorf("%s: %+v, want %v", machine, a, want)
		}
	}
	b, err := client.Call(t.Context(), resolve.ProbeRequest())
	if err != nil {
		t.Fatal(err)
	}
	if probe, err := resolve.ParseProbe(b); err != nil || probe.Outcome != resolve.Secure || probe.Resolver != testdns.Resolver {
		t.Errorf("%+v, %v", probe, err)
	}
	if err := p.Stop(); err != nil {
		t.Error(err)
	}
	req, _ := resolve.LookupRequest("alpha.good.example")
	if _, err := client.Call(t.Context(), req); err == nil || !strings.Contains(err.Error(), "systemctl start shared-altsd-resolve.socket") {
		t.Errorf("while it is away: %v", err)
	}
	second := resolver(t, d, args...)
	if a := lookup("alpha.good.example"); a.Outcome != resolve.Secure {
		t.Errorf("after it is back: %+v", a)
	}
	if _, err := second.Log.WaitText(0, "the resolver validates"); err != nil || strings.Contains(p.Log.String(), "level=WARN") {
		t.Errorf("%v\n%s", err, p.Log)
	}

	// Once, by hand.
	program, err := testprog.Path()
	if err != nil {
		t.Fatal(err)
	}
	conf := func(text string) string {
		return testprog.Write(t, filepath.Join(t.TempDir(), "resolv.conf"), []byte(text))
	}
	for _, tt := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"--resolver", "127.0.0.1", "alpha.good.example"}, 0, "secure for "},
		{[]string{"--resolver", "127.0.0.1", "beta.good.example"}, 1, "_shared-alts.beta.good.example. by 127.0.0.1:53: absent"},
		{[]string{"--resolver", "127.0.0.1", "alpha.bad.example"}, 1, "bogus (SERVFAIL, "},
		{[]string{"--resolver", "127.0.0.3", "alpha.good.example"}, 1, "unsigned"},
		{[]string{"--resolver", "127.0.0.4", "alpha.good.example"}, 1, "silent (nobody answers at 127.0.0.4:53"},
		{[]string{"--resolv-conf", conf("nameserver 127.0.0.1\noptions trust-ad\n"), "alpha.good.example"}, 0, "secure"},
		{[]string{"--config", conf("resolver = 127.0.0.1 # ours\n"), "alpha.good.example"}, 0, "secure"},
		{[]string{"--config", conf("nameserver 127.0.0.1\n"), "alpha.good.example"}, 2, ":1: no '='"},
		{[]string{"--resolv-conf", conf("nameserver 127.0.0.1\n"), "alpha.good.example"}, 1, "options trust-ad"},
		{[]string{"--resolver", "127.0.0.1", "Alpha.good.example"}, 1, "lower-case"},
		{[]string{"--resolver", "127.0.0.1:5353"}, 1, "every account of this machine may take port 5353"},
		{[]string{"--resolver", "127.0.0.1"}, 1, "no socket: start it by its socket unit"},
		{[]string{"--resolver", "127.0.0.1", "--socket", filepath.Join(filepath.Dir(run), "mine"), "--client", "no-such-account-here"}, 1, "--client"},
	} {
		cmd := exec.Command(program, append([]string{"resolve"}, tt.args...)...)
		var out []byte
		if err := d.Do(func() (err error) { out, err = cmd.CombinedOutput(); return err }); err != nil != (tt.code != 0) {
			t.Errorf("%q: %v", tt.args, err)
		}
		if cmd.ProcessState.ExitCode() != tt.code || !strings.Contains(string(out), tt.want) {
			t.Errorf("%q: exit status %d, %q, want %d, %q", tt.args, cmd.ProcessState.ExitCode(), out, tt.code, tt.want)
		}
	}

	// Killed and started again under load, each call is answered, or says that it was away.
	ctx, stop := context.WithCancel(t.Context())
	var asking sync.WaitGroup
	for range 4 {
		asking.Go(func() {
			for ctx.Err() == nil {
				b, err := client.Call(ctx, req)
				if away := (*companion.AwayError)(nil); err != nil && ctx.Err() == nil && !errors.As(err, &away) {
					t.Error(err)
				}
				if a, _ := resolve.ParseAnswer(b); err == nil && a.Outcome != resolve.Secure {
					t.Errorf("%+v", a)
				}
			}
		})
	}
	time.Sleep(100 * time.Millisecond)
	second.Kill()
	resolver(t, d, args...)
	stop()
	asking.Wait()
	if a := lookup("alpha.good.example"); a.Outcome != resolve.Secure {
		t.Errorf("after all: %+v", a)
	}
}
