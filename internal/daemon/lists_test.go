package daemon

import (
	"bytes"
	"crypto/x509/pkix"
	"log/slog"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shared-altsd/shared-altsd/certbind"
	"github.com/shared-altsd/shared-altsd/internal/testca"
	"github.com/shared-altsd/shared-altsd/internal/testlog"
	"github.com/shared-altsd/shared-altsd/internal/testprog"
)

// A listed is a machine whose CA and another one publish revocation lists, and the daemon's part of it.
type listed struct {
	t         *testing.T
	dir       string
	ca, other *testca.CA
	files     Files
	log       bytes.Buffer
	machine   *certbind.Machine
	*reloader
}

func newListed(t *testing.T) *listed {
	l := &listed{t: t, dir: testprog.Dir(t)}
	for _, ca := range []**testca.CA{&l.ca, &l.other} {
		var err error
		if *ca, err = testca.NewCA(testca.Options{}); err != nil {
			t.Fatal(err)
		}
	}
	issued, err := l.ca.Issue(testca.Leaf{Hosts: []string{"a.test"}})
	if err != nil {
		t.Fatal(err)
	}
	l.files = Files{Credentials: write(t, l.path("a.pem"), issued.PEM()),
		CAs:  []CAFile{{File: write(t, l.path("ca.pem"), append(l.ca.PEM(), l.other.PEM()...))}},
		CRLs: []CRLFile{{File: l.path("crl")}, {File: l.path("other.crl")}}, StateDir: l.path("state")}
	if err := os.Mkdir(l.files.StateDir, 0o700); err != nil {
		t.Fatal(err)
	}
	l.put("crl", l.ca, 5, -time.Hour)
	l.put("other.crl", l.other, 5, -time.Hour)
	return l
}

func (l *listed) path(name string) string { return filepath.Join(l.dir, name) }

// put makes a list of a CA, with a number, made some time from now.
func (l *listed) put(name string, ca *testca.CA, number int64, made time.Duration) {
	l.t.Helper()
	der, err := ca.CRL(nil, testca.CRLOptions{Number: big.NewInt(number), ThisUpdate: time.Now().Add(made)})
	if err != nil {
		l.t.Fatal(err)
	}
	write(l.t, l.path(name), der)
}

// start does what a start of the daemon does with the lists.
func (l *listed) start() error {
	l.t.Helper()
	l.log.Reset()
	log := slog.New(slog.NewTextHandler(&l.log, nil))
	l.t.Cleanup(func() { testlog.Load(l.t, "../..").Sections["The daemon"].CheckText(l.t, l.log.String()) })
	loaded, err := l.files.load("")
	if err != nil {
		l.t.Fatal(err)
	}
	memory, err := openListMemory(l.files.stateDir(), log)
	if err != nil {
		return err
	}
	l.machine, err = certbind.NewMachine(certbind.MachineConfig{Credential: loaded.credential, Name: loaded.name,
		Trust: l.files.demand(loaded.trust, memory.marks)})
	if err != nil {
		l.t.Fatal(err)
	}
	l.reloader = newReloader(l.files, l.files.state(), l.machine, noStandard(), memory, log, func(error, *refusal) {})
	l.reloader.remember()
	return nil
}

// reloads reloads and checks the outcome: want is in the error, "" for none.
func (l *listed) reloads(what, want string, req reloadRequest) {
	l.t.Helper()
	_, err := l.Reload(req)
	if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
		l.t.Errorf("%s: %v, want %q", what, err, want)
	}
}

// fault returns what is wrong with the machine now, by the trust in force.
func (l *listed) fault() string {
	f := firstFault(certbind.Check(l.machine.Credential(), "a.test", l.machine.Trust(), time.Now()))
	if f == nil {
		return ""
	}
	return f.String()
}

// TestRule33OlderLists: what anybody can send who can send a list, an older one, another CA's or none, is refused at a
// reload unless the administrator says so.
func TestRule33OlderLists(t *testing.T) {
	l := newListed(t)
	if err := l.start(); err != nil {
		t.Fatal(err)
	}
	none := reloadRequest{}
	l.reloads("the same", "", none)
	l.put("crl", l.ca, 6, -30*time.Minute)
	l.reloads("a newer one", "", none)
	l.put("crl", l.ca, 5, -time.Minute)
	l.reloads("a lower number, made later", "is older than the one that was in force here (number 6", none)
	l.reloads("still the same", "--accept-older-list", none)
	l.put("crl", l.other, 9, -time.Minute)
	l.reloads("another CA's in its place", "is gone: put it back", none)
	l.put("crl", l.ca, 7, 10*time.Minute)
	l.reloads("from the future", "set this machine's clock", none)
	l.put("crl", l.ca, 7, 4*time.Minute)
	l.reloads("a clock a little behind", "", none)

	l.put("crl", l.ca, 3, -2*time.Hour)
	l.reloads("accepted for another file", "is older than", reloadRequest{acceptOlder: []string{l.path("other.crl")}})
	l.reloads("accepted for no file of ours", "none of the lists of --crl", reloadRequest{acceptOlder: []string{"/none"}})
	l.reloads("accepted", "", reloadRequest{acceptOlder: []string{l.path("crl")}})
	l.reloads("accepted before", "", none)
	if got := l.log.String(); !strings.Contains(got, "let by the administrator") || !strings.Contains(got, "number 3") {
		t.Errorf("not logged: %s", got)
	}
	l.put("crl", l.ca, 2, -2*time.Hour)
	l.reloads("an even older one", "is older than", none)
	l.reloads("forgotten while it is there", "give --accept-older-list", reloadRequest{forget: []string{l.path("crl")}})
	l.put("crl", l.other, 10, -time.Minute)
	l.reloads("forgotten, another one", "no list of that CA", reloadRequest{forget: []string{"CN=nobody"}})
	l.reloads("forgotten", "", reloadRequest{forget: []string{l.path("crl")}})
	l.reloads("forgotten before", "", none)
	if fault := l.fault(); fault != "" {
		t.Errorf("in the end: %s", fault)
	}
}

// TestRule33Restart: after a restart the chains of a CA whose list is older than before, or gone, fail until it is there
// or let go; nothing else does, and a renewed certificate is taken.
func TestRule33Restart(t *testing.T) {
	l := newListed(t)
	if err := l.start(); err != nil {
		t.Fatal(err)
	}
	restart := func(what, want string) {
		t.Helper()
		if err := l.start(); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if got := l.fault(); want == "" && got != "" || !strings.Contains(got, want) {
			t.Errorf("%s: %q, want %q", what, got, want)
		}
	}
	restart("the same", "")
	l.put("crl", l.ca, 4, -time.Minute)
	restart("an older one", "is older than the one that was in force here (number 5")
	l.reloads("with it", "", reloadRequest{})
	if got := l.fault(); !strings.Contains(got, "is older than") {
		t.Errorf("after that reload: %q", got)
	}
	l.put("crl", l.other, 4, -time.Hour)
	restart("another CA's in its place", "is gone")
	l.put("crl", l.ca, 8, time.Hour)
	restart("one from the future", "")
	l.put("crl", l.ca, 5, -time.Minute)
	restart("what there was before the future", "")
	l.put("crl", l.ca, 4, -time.Minute)
	restart("an older one", "is older than")
	l.reloads("accepted", "", reloadRequest{acceptOlder: []string{l.path("crl")}})
	if got := l.fault(); got != "" {
		t.Errorf("accepted: %q", got)
	}
	restart("accepted before", "")
	crls := l.files.CRLs
	l.files.CRLs = nil
	restart("without lists", "")
	l.files.CRLs = crls

	// Check says the same of the files, and that nothing is remembered where that is so.
	l.put("crl", l.ca, 3, -time.Minute)
	var out bytes.Buffer
	if accepted, err := Check(&out, &l.files); err != nil || accepted || !strings.Contains(out.String(), "2 remembered") ||
		!strings.Contains(out.String(), "is older than") || !strings.Contains(out.String(), "reload --accept-older-list") {
		t.Errorf("check: %v, %v\n%s", accepted, err, out.String())
	}
	l.files.StateDir = ""
	out.Reset()
	if accepted, err := Check(&out, &l.files); err != nil || !accepted || !strings.Contains(out.String(), "no memory") {
		t.Errorf("check without a memory: %v, %v\n%s", accepted, err, out.String())
	}
	restart("without a memory", "")
	t.Setenv("STATE_DIRECTORY", l.path("state")+":/other")
	restart("systemd's directory", "is older than")
}

// TestRule33Memory: a damaged memory does not keep the daemon from starting, one that others could write does.
func TestRule33Memory(t *testing.T) {
	l := newListed(t)
	file := filepath.Join(l.files.StateDir, memoryFile)
	if err := l.start(); err != nil {
		t.Fatal(err)
	}
	good, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{"half": good[:len(good)/2], "empty": nil, "no key": []byte(`[{"issuer":"x"}]`),
		"number": bytes.Replace(good, []byte(`"number": "5"`), []byte(`"number": "five"`), 1)} {
		write(t, file, data)
		if err := l.start(); err != nil || !strings.Contains(l.log.String(), "remembered anew") {
			t.Errorf("%s: %v, log %q", name, err, l.log.String())
		}
		if kept, err := os.ReadFile(file + ".damaged"); err != nil || !bytes.Equal(kept, data) {
			t.Errorf("%s: not kept: %v", name, err)
		}
		if now, err := os.ReadFile(file); err != nil || !bytes.Equal(now, good) {
			t.Errorf("%s: not begun anew: %v %s", name, err, now)
		}
	}
	if err := os.Chmod(file, 0o666); err != nil {
		t.Fatal(err)
	}
	if err := l.start(); err == nil || !strings.Contains(err.Error(), "chmod go-w") {
		t.Errorf("a file of everybody's: %v", err)
	}
	if err := os.Chmod(file, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(l.files.StateDir, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := l.start(); err == nil || !strings.Contains(err.Error(), "chmod go-w") {
		t.Errorf("a directory of everybody's: %v", err)
	}
	// It cannot be written any more: the daemon goes on, and says so.
	if err := os.Chmod(l.files.StateDir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := l.start(); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(l.files.StateDir); err != nil {
		t.Fatal(err)
	}
	l.put("crl", l.ca, 6, -time.Minute)
	l.reloads("nowhere to write", "", reloadRequest{})
	if !strings.Contains(l.log.String(), "could not be written down") {
		t.Errorf("nowhere to write: %q", l.log.String())
	}
}

// putFor is put for a list with an issuing distribution point.
func (l *listed) putFor(name string, number int64, made time.Duration, scope pkix.Extension) {
	l.t.Helper()
	write(l.t, l.path(name), testca.MustCRL(l.t, l.ca, nil, testca.CRLOptions{Number: big.NewInt(number),
		ThisUpdate: time.Now().Add(made), Extensions: []pkix.Extension{scope}}))
}

// A CA that begins to write a place into its list, which its certificates do not name, cuts off nobody: the reload is
// refused while the list before it is good, and taken where the administrator says that the list is complete.
func TestRule14ReloadLeavesOut(t *testing.T) {
	l := newListed(t)
	if err := l.start(); err != nil {
		t.Fatal(err)
	}
	l.putFor("crl", 6, -time.Minute, testca.ListFor("", "http://ca.test/crl"))
	_, err := l.Reload(reloadRequest{})
	if err == nil || !strings.Contains(err.Error(), "--crl complete=FILE") {
		t.Fatalf("got %v", err)
	}
	l.reloader.files.CRLs[0].Complete = true
	if _, err := l.Reload(reloadRequest{}); err != nil {
		t.Fatal(err)
	}
	// The memory goes on from the list without a place.
	l.putFor("crl", 4, -time.Minute, testca.ListFor("", "http://ca.test/crl"))
	if _, err := l.Reload(reloadRequest{}); err == nil || !strings.Contains(err.Error(), "is older") {
		t.Fatalf("got %v", err)
	}
}

// A list that is divided is remembered by its parts, over restarts too.
func TestRule33Scopes(t *testing.T) {
	l := newListed(t)
	l.files.CRLs = append(l.files.CRLs, CRLFile{File: l.path("ca.crl")})
	l.putFor("ca.crl", 1, -time.Minute, testca.ListFor("CA"))
	if err := l.start(); err != nil {
		t.Fatal(err)
	}
	l.putFor("crl", 1, -time.Minute, testca.ListFor("user"))
	if _, err := l.Reload(reloadRequest{}); err != nil {
		t.Fatal(err)
	}
	for _, again := range []bool{false, true} {
		if again {
			l.putFor("crl", 1, -time.Minute, testca.ListFor("user"))
			if err := l.start(); err != nil {
				t.Fatal(err)
			}
		}
		l.putFor("crl", 0, -time.Minute, testca.ListFor("user"))
		if _, err := l.Reload(reloadRequest{}); err == nil || !strings.Contains(err.Error(), "user certificates") {
			t.Errorf("restarted %v: %v", again, err)
		}
	}
	// As the CA means it.
	if _, err := l.Reload(reloadRequest{acceptOlder: []string{l.path("crl")}}); err != nil {
		t.Error(err)
	}
}
