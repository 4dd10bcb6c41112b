package daemon

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/shared-altsd/shared-altsd/certbind"
	"github.com/shared-altsd/shared-altsd/internal/policy"
	"github.com/shared-altsd/shared-altsd/internal/testca"
	"github.com/shared-altsd/shared-altsd/internal/testlog"
	"github.com/shared-altsd/shared-altsd/internal/testprog"
)

// lets says whether a policy lets a peer in.
func lets(p *policy.Policy, account, machine string) bool {
	return p.Judge(&policy.Connection{Direction: policy.In, Account: "greeter",
		Peer: policy.Peer{Account: account, Machine: machine}}).Allowed
}

func put(t *testing.T, dir, name, text string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	return write(t, path, []byte(text))
}

func remove(t *testing.T, path string) {
	t.Helper()
	if err := os.RemoveAll(path); err != nil {
		t.Fatal(err)
	}
}

func TestReadPolicy(t *testing.T) {
	dir := testprog.Dir(t)
	for path, want := range map[string]string{filepath.Join(dir, "away"): "or leave --policy out", dir: "has no file of rules"} {
		if _, err := ReadPolicy(path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", path, err, want)
		}
	}
	for _, name := range []string{"20-b.policy", "10-a.policy", "B.policy", "a.policy.new", ".hidden.policy", "notes.txt"} {
		put(t, dir, name, "# "+name+"\n")
	}
	files, err := ReadPolicy(dir)
	var names []string
	for _, f := range files {
		names = append(names, filepath.Base(f.Name))
	}
	if want := []string{"10-a.policy", "20-b.policy", "B.policy"}; err != nil || !slices.Equal(names, want) {
		t.Errorf("read %q, %v, want %q", names, err, want)
	}
	if err := os.Chmod(filepath.Join(dir, "20-b.policy"), 0o666); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadPolicy(dir); err == nil || !strings.Contains(err.Error(), "may be written by") {
		t.Errorf("a file that everybody may write: %v", err)
	}
	dir = testprog.Dir(t)
	remarks := strings.Repeat(strings.Repeat("#", 1023)+"\n", policy.MaxBytes/1024)
	put(t, dir, "10-a.policy", remarks)
	put(t, dir, "20-b.policy", "#\n")
	put(t, dir, "30-c.policy", remarks)
	if _, err := readPolicy(dir, ""); err == nil || !strings.Contains(err.Error(), "20-b.policy: the files have more than 16777216 bytes together") {
		t.Error(err)
	}
	put(t, dir, "10-a.policy", remarks+"#")
	if _, err := ReadPolicy(dir); err == nil || !strings.Contains(err.Error(), "10-a.policy has more than 16777216 bytes: this is not the file that was meant") {
		t.Error(err)
	}
}

// Rules come into force with everything else, all or none, and a directory that is gone or empty opens nothing.
func TestPolicyReload(t *testing.T) {
	dir := testprog.Dir(t)
	ca := testca.MustCA(t, testca.Options{})
	rules := filepath.Join(dir, "policy.d")
	put(t, rules, "10.policy", "allow in greeter alice@a.test\n")
	f := Files{Credentials: put(t, dir, "m.pem", string(testca.MustIssue(t, ca, testca.Leaf{Hosts: []string{"a.test"}}).PEM())),
		CAs: []CAFile{{File: put(t, dir, "ca.pem", string(ca.PEM()))}}, Policy: rules}
	l, err := f.load("")
	if err != nil {
		t.Fatal(err)
	}
	m, err := certbind.NewMachine(certbind.MachineConfig{Credential: l.credential, Name: l.name, Trust: l.trust})
	if err != nil {
		t.Fatal(err)
	}
	var now *policy.Policy
	forgotten := 0
	s := &standard{rules: l.rules, apply: func(p *policy.Policy) { now = p }, forget: func() { forgotten++ }}
	s.start()
	var logs bytes.Buffer
	r := newReloader(f, f.state(), m, s, &listMemory{marks: certbind.Marks{}}, slog.New(slog.NewTextHandler(&logs, nil)), func(error, *refusal) {})
	polls := func() { r.poll(); r.poll() }
	want := func(when string, alice, bob bool, refused bool) {
		t.Helper()
		if lets(now, "alice", "a.test") != alice || lets(now, "bob", "a.test") != bob || (r.Refused() != nil) != refused {
			t.Errorf("%s: alice %v, bob %v, refused %v", when, lets(now, "alice", "a.test"), lets(now, "bob", "a.test"), r.Refused())
		}
	}
	polls()
	want("at the start", true, false, false)
	put(t, rules, "20.policy", "allow in greeter bob@a.test\nmode permissive\n")
	polls()
	want("a file more", true, true, false)
	if !strings.Contains(logs.String(), "policy: 2 rules, permissive (was 1 rules, enforcing)") {
		t.Errorf("the log does not say what changed:\n%s", &logs)
	}
	put(t, rules, "20.policy", "allow in greeter carol\n")
	polls()
	want("a mistake", true, true, true)
	remove(t, filepath.Join(rules, "20.policy"))
	polls()
	want("a file less", true, false, false)
	if forgotten != 2 {
		t.Errorf("what rules would refuse was forgotten %d times", forgotten)
	}
	if err := os.Rename(filepath.Join(rules, "10.policy"), filepath.Join(rules, "10.policy.off")); err != nil {
		t.Fatal(err)
	}
	polls()
	want("an empty directory", true, false, true)
	remove(t, rules)
	polls()
	want("no directory", true, false, true)
	put(t, rules, "10.policy", "deny in * alice@*\nallow in * *@*\n")
	put(t, dir, "m.pem", "nonsense")
	polls()
	want("good rules beside a broken credential", true, false, true)
}

// A store of denials, and what it has put in force.
type testStore struct {
	*deniedStore
	t    *testing.T
	now  *policy.Policy
	logs bytes.Buffer
}

func openStore(t *testing.T, dir string) *testStore {
	t.Helper()
	s := &testStore{t: t}
	p := &standard{apply: func(p *policy.Policy) { s.now = p }, forget: func() {}}
	var err error
	t.Cleanup(func() { testlog.Load(t, "../..").Sections["The daemon"].CheckText(t, s.logs.String()) })
	if s.deniedStore, err = openDenied(dir, p, slog.New(slog.NewTextHandler(&s.logs, nil))); err != nil {
		t.Fatal(err)
	}
	p.start()
	return s
}

func (s *testStore) want(when string, mallory, eve, refused bool) {
	s.t.Helper()
	s.poll()
	s.poll()
	if lets(s.now, "mallory", "b.test") != mallory || lets(s.now, "eve", "b.test") != eve || (s.standing.Load() != nil) != refused {
		s.t.Errorf("%s: mallory %v, eve %v, refused %v", when, lets(s.now, "mallory", "b.test"), lets(s.now, "eve", "b.test"),
			s.standing.Load())
	}
}

// What was denied stays so whatever happens to the files, until they say otherwise.
func TestRule48DeniedStaysDenied(t *testing.T) {
	const mallory, eve = "deny any * mallory@b.test # by root: INC-1\n", "deny any * eve@b.test\n"
	dir := testprog.Dir(t)
	s := openStore(t, dir)
	if s.now != nil {
		t.Error("nothing is denied, and a policy is in force")
	}
	s.want("without files", true, true, false)
	put(t, dir, DeniedFile, mallory)
	s.want("denied.policy", false, true, false)
	put(t, dir, DeniedMore+"/fleet.policy", eve)
	s.want("denied.d", false, false, false)
	for _, broken := range []string{"deny any * mallory\n", "allow any * *@*\n", "mode permissive\n", "deny any * x@y.test \x00\n"} {
		put(t, dir, DeniedMore+"/fleet.policy", broken)
		s.want("with "+broken, false, false, true)
		if _, _, err := s.Read("uid 0"); err == nil || !strings.Contains(err.Error(), "fleet.policy:1") {
			t.Errorf("read: %v", err)
		}
	}
	remove(t, filepath.Join(dir, DeniedMore))
	s.want("denied.d is gone", false, false, true)
	put(t, dir, DeniedMore+"/other.txt", "")
	s.want("denied.d is there again, and empty, as where a disk is away", false, false, true)
	put(t, dir, DeniedMore+"/fleet.policy", "# nobody\n")
	s.want("mended", false, true, false)
	remove(t, filepath.Join(dir, DeniedMore+"/fleet.policy"))
	s.want("a file less that denied nobody", false, true, false)
	remove(t, filepath.Join(dir, DeniedFile))
	s.want("denied.policy is gone", false, true, true)
	put(t, dir, DeniedFile, "")
	s.want("an empty one", true, true, false)
	put(t, dir, DeniedFile, mallory+eve)
	sum, n, err := s.Read("uid 0, who says for alice")
	if files, e := ReadDenied(dir); err != nil || e != nil || n != 2 || sum != files.Sum() {
		t.Errorf("read: %x, %d, %v, %v", sum, n, err, e)
	}
	for _, want := range []string{`msg=denied entry="denied.policy: deny any * eve@b.test" by="uid 0, who says for alice"`,
		`msg="denial lifted" entry="denied.policy: deny any * mallory@b.test # by root: INC-1"`, "level=ERROR"} {
		if !strings.Contains(s.logs.String(), want) {
			t.Errorf("the log does not say %s:\n%s", want, &s.logs)
		}
	}
	remove(t, dir)
	s.want("all is gone", false, false, true)
}

func TestRule48DeniedAtTheStart(t *testing.T) {
	dir := testprog.Dir(t)
	if _, err := openDenied(filepath.Join(dir, "away"), &standard{}, slog.New(slog.DiscardHandler)); err == nil {
		t.Error("a directory that is not there")
	}
	put(t, dir, DeniedFile, "deny any *\n")
	if _, err := openDenied(dir, &standard{}, slog.New(slog.DiscardHandler)); err == nil ||
		!strings.Contains(err.Error(), "denied.policy:1") {
		t.Errorf("a mistake: %v", err)
	}
	put(t, dir, DeniedFile, strings.Repeat("deny any * x@b.test\n", 2*entriesLogged))
	s := openStore(t, dir)
	put(t, dir, DeniedFile, "")
	s.want("all lifted", true, true, false)
	if n := strings.Count(s.logs.String(), "denial lifted"); n != entriesLogged+1 {
		t.Errorf("%d lines for one change", n)
	}
}

// A file that is there for a moment is neither a mistake nor a rule: those read are there together.
func TestReadPolicyWhileFilesComeAndGo(t *testing.T) {
	dir := testprog.Dir(t)
	put(t, dir, "10.policy", "allow in greeter alice@a.test\n")
	path := filepath.Join(dir, "20.policy")
	var stop atomic.Bool
	var done sync.WaitGroup
	done.Go(func() {
		for !stop.Load() {
			_ = os.WriteFile(path, []byte("allow in * *@*\n"), 0o600)
			_ = os.Remove(path)
		}
	})
	read, changing := 0, 0
	for range 2000 {
		_, err := ReadPolicy(dir)
		switch {
		case err == nil:
			read++
		case errors.Is(err, errChanging):
			changing++
		default:
			t.Errorf("a file that has gone is a mistake: %v", err)
			stop.Store(true)
		}
		if stop.Load() {
			break
		}
	}
	stop.Store(true)
	done.Wait()
	if read == 0 {
		t.Errorf("nothing was read, and %d times files changed", changing)
	}
}
