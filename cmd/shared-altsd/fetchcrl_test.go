package main

import (
	"crypto/x509/pkix"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/shared-altsd/shared-altsd/internal/testca"
	"github.com/shared-altsd/shared-altsd/internal/testprog"
)

// listServer serves at /list what its body holds.
func listServer(t *testing.T, body []byte) (url string, next func([]byte)) {
	t.Helper()
	var now atomic.Pointer[[]byte]
	now.Store(&body)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Write(*now.Load()) }))
	t.Cleanup(server.Close)
	return server.URL + "/list", func(b []byte) { now.Store(&b) }
}

// listsIn returns the names of the lists of a directory.
func listsIn(t *testing.T, dir string) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "*.crl"))
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// The unit's two steps: the certificates without the key, and the lists of their CA, by the daemon's configuration.
func TestFetchCRL(t *testing.T) {
	dir := testprog.Dir(t)
	into := filepath.Join(dir, "lists")
	if err := os.Mkdir(into, 0o755); err != nil {
		t.Fatal(err)
	}
	ca := newCA(t, testca.Options{})
	between := testca.MustIntermediate(t, ca, testca.Options{})
	url, next := listServer(t, testca.MustCRL(t, between, nil, testca.CRLOptions{}))
	leaf := issue(t, between, testca.Leaf{Hosts: []string{"a.test"}, ExtraExtensions: []pkix.Extension{testca.Places([]string{url})}})
	machine := write(t, filepath.Join(dir, "machine.pem"), leaf.PEM())
	chain := filepath.Join(dir, "public", "chain.pem")
	if code, out, errs := altsd(t, "fetch-crl", "--extract", machine, "--certificates", chain); code != 0 || out+errs != "" {
		t.Fatalf("exit status %d: %s%s", code, out, errs)
	}
	public, err := os.ReadFile(chain)
	if err != nil || strings.Contains(string(public), "KEY") || strings.Count(string(public), "BEGIN CERTIFICATE") != 2 {
		t.Fatalf("%v\n%s", err, public)
	}
	for path, want := range map[string]os.FileMode{chain: 0o644, filepath.Dir(chain): 0o755 | os.ModeDir} {
		if info, err := os.Stat(path); err != nil || info.Mode() != want {
			t.Errorf("%s: %v %v", path, info.Mode(), err)
		}
	}
	config := write(t, filepath.Join(dir, "conf"), []byte("ca = "+write(t, filepath.Join(dir, "ca.pem"), ca.PEM())+
		"\ncrl = /nowhere\nrequire-eku = 1.2.3\n"))
	metrics := filepath.Join(dir, "lists.prom")
	run := func(code int, want string, more ...string) {
		t.Helper()
		if !slices.Contains(more, "--certificates") {
			more = append(more, "--certificates", chain)
		}
		got, out, errs := altsd(t, append([]string{"fetch-crl", "--config", config, "--into", into, "--textfile", metrics}, more...)...)
		if got != code || !strings.Contains(out+errs, want) {
			t.Errorf("exit status %d, want %d and %q: %s%s", got, code, want, out, errs)
		}
	}
	// The place is on this machine, which a certificate cannot want.
	run(1, "leads to this machine")
	run(0, "list      "+url+": number ", "--url", url)
	if names := listsIn(t, into); len(names) != 1 {
		t.Errorf("lists: %v", names)
	}
	next([]byte("nonsense"))
	run(0, "the list that is there stays", "--url", url, "--jitter", "1ms")
	if text, err := os.ReadFile(metrics); err != nil || !strings.Contains(string(text), "shared_altsd_fetch_crl_failed{machine=") {
		t.Errorf("%v\n%s", err, text)
	}
	run(1, "only certificates belong there", "--certificates", machine)
	run(1, "cannot use the CA", "--ca", machine)
	run(1, "--certificates: ", "--certificates", filepath.Join(dir, "none"))
}

// A directory that this account may not write, and a full disk, are told, cost no list, and leave nothing half behind.
func TestFetchCRLNoRoom(t *testing.T) {
	ca := newCA(t, testca.Options{})
	dir := testprog.Dir(t)
	list := testca.MustCRL(t, ca, nil, testca.CRLOptions{})
	url, next := listServer(t, list)
	caFile := write(t, filepath.Join(dir, "ca.pem"), ca.PEM())
	if err := os.Chmod(caFile, 0o644); err != nil {
		t.Fatal(err)
	}
	into := filepath.Join(dir, "lists")
	if err := os.Mkdir(into, 0o755); err != nil {
		t.Fatal(err)
	}
	args := []string{"fetch-crl", "--ca", caFile, "--url", url, "--into", into}
	if os.Geteuid() != 0 {
		t.Skip("only root can be another account, and fill a disk of its own")
	}
	cmd := exec.Command(program(t), args...)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 1, Gid: 1}}
	if out, err := cmd.CombinedOutput(); cmd.ProcessState.ExitCode() != 1 || !strings.Contains(string(out), "permission denied: make the directory") {
		t.Errorf("%v: %s", err, out)
	}
	// In a mount namespace of its own the directory is a disk with room for one list and not for the next.
	var serials []*big.Int
	for i := range int64(4000) {
		serials = append(serials, big.NewInt(1<<60+i))
	}
	next(list)
	before, larger := filepath.Join(dir, "before"), filepath.Join(dir, "larger")
	if err := syscall.Mkfifo(larger, 0o600); err != nil {
		t.Fatal(err)
	}
	const script = `mount -t tmpfs -o size=64k tmpfs "$1" || exit 77
into=$1 before=$2 larger=$3; shift 3
"$@" || exit 78
cp "$into"/*.crl "$before"
echo fetched >"$larger"
read go <"$larger"
"$@"
echo "status $?"
cmp "$into"/*.crl "$before" && ls -A "$into"`
	full := exec.Command("unshare", append([]string{"-m", "--propagation", "private", "sh", "-c", script, "sh", into, before, larger,
		program(t)}, args...)...)
	var out strings.Builder
	full.Stdout, full.Stderr = &out, &out
	if err := full.Start(); err != nil {
		t.Skipf("no unshare: %v", err)
	}
	fetched := make(chan error, 1)
	go func() { // the FIFO's other end is not there if the script ends before
		_, err := os.ReadFile(larger)
		fetched <- err
	}()
	ended := make(chan error, 1)
	go func() { ended <- full.Wait() }()
	select {
	case err := <-ended:
		if full.ProcessState.ExitCode() == 77 {
			t.Skipf("no mount here: %s", out.String())
		}
		t.Fatalf("%v: %s", err, out.String())
	case err := <-fetched:
		if err != nil {
			t.Fatal(err)
		}
	}
	next(testca.MustCRL(t, ca, serials, testca.CRLOptions{}))
	if err := os.WriteFile(larger, []byte("go\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	err := <-ended
	for _, want := range []string{"no space left on device", "the list that is there stays", "fetch-crl.json\n"} {
		if err != nil || !strings.Contains(out.String(), want) {
			t.Errorf("%v, no %q: %s", err, want, out.String())
		}
	}
	if _, left, _ := strings.Cut(out.String(), "\nstatus 0\n"); strings.Count(left, "\n") != 3 {
		t.Errorf("half a list is left: %s", left)
	}
}
