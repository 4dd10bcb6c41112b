package daemon

import (
	"bytes"
	"encoding/asn1"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shared-altsd/shared-altsd/certbind"
	"github.com/shared-altsd/shared-altsd/internal/testca"
	"github.com/shared-altsd/shared-altsd/internal/testprog"
)

// The log says once that the config file is another than what is in force, when it has been so for a while.
func TestUntoldConfig(t *testing.T) {
	dir := testprog.Dir(t)
	path := write(t, filepath.Join(dir, "conf"), nil)
	var logs bytes.Buffer
	s, err := newSettings(&Config{Again: &Again{Path: path, Read: func() (Config, map[string][]string, error) {
		return Config{}, nil, nil
	}}}, slog.New(slog.NewTextHandler(&logs, nil)))
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	says := func(what string, after time.Duration, want int) {
		t.Helper()
		now = now.Add(after)
		s.look(now)
		if got := strings.Count(logs.String(), "in force after a reload"); got != want {
			t.Errorf("%s: said %d times, want %d: %s", what, got, want, logs.String())
		}
	}
	says("as it was", 0, 0)
	says("as it was, later", time.Hour, 0)
	write(t, path, []byte("# more\n"))
	says("just changed", 0, 0)
	says("changed for a while", untoldAfter, 1)
	says("still", time.Hour, 1)
	if err := os.Mkdir(filepath.Join(dir, ConfDir), 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, ConfDir, "10.conf"), nil)
	says("a file more", 0, 1)
	says("a file more for a while", untoldAfter, 2)
}

// A config file that a reload refused is read again when it changes, as what was asked for; one that nobody asked for is not.
// And what DNS vouches for begins at a start.
func TestConfigOwed(t *testing.T) {
	dir := testprog.Dir(t)
	ca := testca.MustCA(t, testca.Options{})
	f := Files{Credentials: write(t, filepath.Join(dir, "a.pem"), testca.MustIssue(t, ca, testca.Leaf{Hosts: []string{"a.test"}}).PEM()),
		CAs: []CAFile{{File: write(t, filepath.Join(dir, "ca.pem"), ca.PEM())}}}
	path := write(t, filepath.Join(dir, "conf"), []byte("1"))
	next, failure := Config{Files: f}, error(nil)
	given := map[string][]string{"ca": {"x"}}
	config := Config{Files: f, Again: &Again{Path: path, Read: func() (Config, map[string][]string, error) { return next, given, failure }}}
	var logs bytes.Buffer
	log := slog.New(slog.NewTextHandler(&logs, nil))
	settings, err := newSettings(&config, log)
	if err != nil {
		t.Fatal(err)
	}
	l, err := f.load("")
	if err != nil {
		t.Fatal(err)
	}
	m, err := certbind.NewMachine(certbind.MachineConfig{Credential: l.credential, Name: l.name, Trust: l.trust})
	if err != nil {
		t.Fatal(err)
	}
	r := newReloader(f, f.state(), m, noStandard(), &listMemory{marks: certbind.Marks{}}, log, func(error, *refusal) {})
	r.settings = settings

	next.Files.RequireEKU, given = asn1.ObjectIdentifier{1, 2, 3}, map[string][]string{"ca": {"x"}, "require-eku": {"1.2.3"}, "socket": {"/x"}}
	write(t, path, []byte("22"))
	for range 3 {
		r.poll()
	}
	if r.files.RequireEKU != nil {
		t.Error("a config file came into force that nobody asked for")
	}
	failure = errors.New("conf:1: a mistake")
	if _, err := r.Reload(reloadRequest{}); err == nil || !strings.Contains(err.Error(), "conf:1") || r.files.RequireEKU != nil {
		t.Errorf("a mistake: %v", err)
	}
	failure = nil
	r.poll()
	r.poll()
	if r.files.RequireEKU != nil {
		t.Error("read again though it is as it was")
	}
	write(t, path, []byte("333"))
	for range 3 {
		r.poll()
	}
	if r.files.RequireEKU == nil || r.Refused() != nil {
		t.Errorf("mended: %v", r.Refused())
	}
	if got := r.settings.note(); got != "in force after a restart: socket" {
		t.Errorf("note %q", got)
	}
	if !strings.Contains(logs.String(), "configuration: require-eku") {
		t.Error(logs.String())
	}

	next.Files.CAs = append([]CAFile{{Names: []string{"d.test"}, File: dnsVouches}}, f.CAs...)
	given = map[string][]string{"ca": {"d.test=dane", "x"}, "require-eku": {"1.2.3"}}
	if _, err := r.Reload(reloadRequest{}); err != nil || r.files.trustsDNS() || r.settings.note() != "in force after a restart: ca" {
		t.Errorf("DNS: %v, note %q", err, r.settings.note())
	}
}
