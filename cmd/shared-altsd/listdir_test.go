package main

import (
	"bytes"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/shared-altsd/shared-altsd/internal/testca"
	"github.com/shared-altsd/shared-altsd/internal/testprog"
)

// A fetched is machine a.test, which takes lists from a directory of another account's, and machine b.test, its peer.
type fetched struct {
	t        *testing.T
	ca       *testca.CA
	dir      string
	lists    string // the directory, not there at first
	a, b     *process
	leaf     *testca.Issued // of b.test
	uid, gid int            // whose the directory is
}

func newFetched(t *testing.T) *fetched {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to give a directory to another account")
	}
	attr, _ := ordinaryUser(t)
	f := &fetched{t: t, ca: newCA(t, testca.Options{}), dir: testprog.Dir(t), uid: int(attr.Credential.Uid), gid: int(attr.Credential.Gid)}
	f.lists = f.path("lists")
	f.leaf = issue(t, f.ca, testca.Leaf{Hosts: []string{"b.test"}})
	ca := write(t, f.path("ca.pem"), f.ca.PEM())
	f.renew()
	if err := os.Mkdir(f.path("state"), 0o700); err != nil {
		t.Fatal(err)
	}
	f.a = start(t, "--credentials", f.path("a.pem"), "--ca", ca, "--crl", f.lists+"/", "--state-dir", f.path("state"),
		"--metrics", "unix:"+f.path("metrics"))
	f.b = start(t, "--credentials", write(t, f.path("b.pem"), f.leaf.PEM()), "--ca", ca)
	return f
}

func (f *fetched) path(name string) string { return filepath.Join(f.dir, name) }

// renew gives a.test another certificate.
func (f *fetched) renew() {
	write(f.t, f.path("a.new"), issue(f.t, f.ca, testca.Leaf{Hosts: []string{"a.test"}}).PEM())
	f.must(os.Rename(f.path("a.new"), f.path("a.pem")))
}

func (f *fetched) must(err error) {
	f.t.Helper()
	if err != nil {
		f.t.Fatal(err)
	}
}

// list makes the CA's list of a number, which revokes b.test or nobody.
func (f *fetched) list(number int64, b bool) []byte {
	var revoked []*big.Int
	if b {
		revoked = append(revoked, f.leaf.Cert.SerialNumber)
	}
	return testca.MustCRL(f.t, f.ca, revoked, testca.CRLOptions{Number: big.NewInt(number)})
}

// put brings a file by rename, as the other account does.
func (f *fetched) put(name string, data []byte) {
	f.t.Helper()
	f.must(os.MkdirAll(f.lists, 0o755))
	f.must(os.Chown(f.lists, f.uid, f.gid))
	tmp := filepath.Join(f.lists, ".new")
	f.must(os.WriteFile(tmp, data, 0o644))
	f.must(os.Chown(tmp, f.uid, f.gid))
	f.must(os.Rename(tmp, filepath.Join(f.lists, name)))
}

// says waits until the daemon has logged a text, from the line first on.
func (f *fetched) says(first int, text string) { f.t.Helper(); f.a.log.waitAfter(f.t, first, text) }

// peer checks whether b.test is let in.
func (f *fetched) peer(what string, let bool) {
	f.t.Helper()
	_, _, err := talk(f.t, f.a.socket, f.b.socket)
	if let && err != nil || !let && (err == nil || !strings.Contains(err.Error(), "certificate_revoked")) {
		f.t.Errorf("%s: %v", what, err)
	}
}

// reload returns what the command says.
func (f *fetched) reload() (int, string) {
	code, out, errs := altsd(f.t, "reload", "--socket", f.a.socket)
	return code, out + errs
}

func (f *fetched) status() string {
	_, out, _ := altsd(f.t, "status", "--socket", f.a.socket)
	return out
}

// await waits until status says something.
func (f *fetched) await(what, text string) {
	f.t.Helper()
	for range 150 {
		if strings.Contains(f.status(), text) {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	f.t.Fatalf("%s: status never says %q:\n%s", what, text, f.status())
}

// TestRule56Withhold: the account whose directory of lists it is can withhold a list and nothing else. What is no list is
// passed over; one that is gone, older or spoilt leaves the one in force; a renewed certificate is taken all the same.
func TestRule56Withhold(t *testing.T) {
	t.Parallel()
	f := newFetched(t)
	f.says(0, "no such file or directory")
	f.peer("without a directory", true)
	if text := f.status(); !strings.Contains(text, "no list of any CA") || !strings.Contains(text, "passed over") {
		t.Errorf("without a directory:\n%s", text)
	}
	mark := f.a.log.Count()
	f.put("ca.crl", f.list(1, false))
	f.says(mark, "list added: "+f.lists+"/ca.crl")
	f.peer("with a list", true)
	f.await("with a list", "from "+f.lists+"/ca.crl")

	link := func(from string) func(string) error { return func(to string) error { return os.Symlink(from, to) } }
	file := func(data []byte) func(string) error {
		return func(to string) error { f.put(filepath.Base(to), data); return nil }
	}
	impostor := newCA(t, testca.Options{Name: f.ca.Cert.Subject.CommonName})
	hostile := []struct {
		name, want string
		make       func(path string) error
	}{
		{"link to a secret", "not a plain file", link("/etc/shadow")},
		{"link to a good list", "not a plain file", link("ca.crl")},
		{"link to itself", "not a plain file", func(p string) error { return os.Symlink(filepath.Base(p), p) }},
		{"hard link", "CERTIFICATE", func(p string) error { return os.Link(f.path("ca.pem"), p) }},
		{"FIFO", "not a plain file", func(p string) error { return syscall.Mkfifo(p, 0o666) }},
		{"device", "not a plain file", func(p string) error { return syscall.Mknod(p, syscall.S_IFCHR|0o666, 5<<8) }},
		{"socket", "not a plain file", func(p string) error { return syscall.Mknod(p, syscall.S_IFSOCK|0o666, 0) }},
		{"directory", "not a plain file", func(p string) error { return os.Mkdir(p, 0o755) }},
		{"huge", "has more than 16777216 bytes", func(p string) error { f.put(filepath.Base(p), nil); return os.Truncate(p, 1<<40) }},
		{"empty", "the file is empty", file(nil)},
		{"garbage", "not a revocation list", file([]byte("\x30\x03garbage"))},
		{"many small elements", "not a revocation list", file(append([]byte{0x30, 0x83, 0x20, 0, 0}, bytes.Repeat([]byte{5, 0}, 1<<20)...))},
		{"a certificate", "CERTIFICATE", file(f.ca.PEM())},
		{"a key", "PRIVATE KEY", file(f.leaf.KeyPEM)},
		{"another CA's", "no CA that is known", file(testca.MustCRL(t, newCA(t, testca.Options{}), nil, testca.CRLOptions{}))},
		{"forged", "its signature is not that CA's", file(testca.MustCRL(t, impostor, []*big.Int{f.leaf.Cert.SerialNumber}, testca.CRLOptions{}))},
		{"delta", "delta list", file(testca.MustCRL(t, f.ca, nil, testca.CRLOptions{Extensions: []pkix.Extension{testca.DeltaIndicator}}))},
		{"older, beside the good one", "is as new", file(f.list(0, true))},
		{"from the future", "5 minutes from now", file(testca.MustCRL(t, f.ca, []*big.Int{f.leaf.Cert.SerialNumber}, testca.CRLOptions{ThisUpdate: time.Now().Add(time.Hour)}))},
	}
	name := func(i int) string { return filepath.Join(f.lists, fmt.Sprintf("x%d.crl", i)) }
	for i, tt := range hostile {
		f.must(tt.make(name(i)))
	}
	if code, out := f.reload(); code != 0 {
		t.Errorf("reload: %d %s", code, out)
	}
	f.peer("among hostile files", true)
	lines := strings.Split(f.status(), "\n")
	for i, tt := range hostile {
		if !slices.ContainsFunc(lines, func(l string) bool { return strings.Contains(l, name(i)+": ") && strings.Contains(l, tt.want) }) {
			t.Errorf("%s: no %q in\n%s", tt.name, tt.want, strings.Join(lines, "\n"))
		}
		f.must(os.RemoveAll(name(i)))
	}
	f.put("a\x1b[2J\nb.crl", f.list(9, true))
	f.await("a name of control characters", `a\x1b[2J\nb.crl`)
	f.peer("a name of control characters", true)
	f.must(os.Remove(filepath.Join(f.lists, "a\x1b[2J\nb.crl")))

	mark = f.a.log.Count()
	f.put("ca.crl", f.list(5, true))
	f.says(mark, "revocation lists reloaded")
	f.peer("a newer list", false)

	good := f.list(5, true)
	for _, tt := range []struct {
		name, want string
		do         func() error
	}{
		{"older", "is older than the one that was in force", func() error { f.put("ca.crl", f.list(4, false)); return nil }},
		{"removed", "is gone", func() error { return os.Remove(filepath.Join(f.lists, "ca.crl")) }},
		{"spoilt", "is gone", func() error { f.put("ca.crl", good[:len(good)-1]); return nil }},
		{"a link", "is gone", func() error {
			f.put("good", good)
			f.must(os.Symlink("good", filepath.Join(f.lists, "link")))
			return os.Rename(filepath.Join(f.lists, "link"), filepath.Join(f.lists, "ca.crl"))
		}},
		{"the directory removed", "is gone", func() error { return os.RemoveAll(f.lists) }},
		{"the directory a file", "is gone", func() error { return os.WriteFile(f.lists, good, 0o644) }},
		{"the directory a link of the account's", "is gone", func() error {
			f.must(os.Remove(f.lists))
			f.must(os.Mkdir(f.path("elsewhere"), 0o755))
			return os.Symlink(f.path("elsewhere"), f.lists)
		}},
	} {
		f.must(tt.do())
		f.await(tt.name, tt.want)
		f.peer(tt.name, false)
		if code, out := f.reload(); code != 1 || !strings.Contains(out, tt.want) {
			t.Errorf("%s: reload: %d %s", tt.name, code, out)
		}
		f.peer(tt.name+", reloaded", false)
	}
	// A certificate is not held up.
	serial := func() string {
		_, s := asJSON(t, "status", "--socket", f.a.socket)
		return fmt.Sprint(s["certificate"])
	}
	was := serial()
	f.renew()
	if code, out := f.reload(); code != 0 || serial() == was {
		t.Errorf("a renewed certificate: %d %s", code, out)
	}
	f.peer("with a renewed certificate", false)
	f.await("a renewed certificate", "\nrefused ")

	// In the end all is well again.
	f.must(os.Remove(f.lists))
	f.put("ca.crl", f.list(6, false))
	f.await("the next list", "from "+f.lists+"/ca.crl")
	for range 150 {
		if !strings.Contains(f.status(), "\nrefused ") {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	if text := f.status(); strings.Contains(text, "\nrefused ") || strings.Contains(text, "passed over") {
		t.Errorf("in the end:\n%s", text)
	}
	f.peer("in the end", true)
	if text := scrape(t, f.path("metrics")); !strings.Contains(text, "shared_altsd_crl_passed_over{machine=\"a.test\"} 0") {
		t.Error("no metric of what is passed over")
	}
	code, out, errs := altsd(t, "check", "--credentials", f.path("a.pem"), "--ca", f.path("ca.pem"), "--crl", f.lists, "--state-dir",
		f.path("state"))
	if code != 0 || !strings.Contains(out, "list      "+f.lists+"/ca.crl of ") {
		t.Errorf("check: %d %s%s", code, out, errs)
	}
}

// TestRule56Crowd: a hundred thousand files in the directory, renamed all the time, cost the daemon little and the lists in
// force nothing.
func TestRule56Crowd(t *testing.T) {
	t.Parallel()
	f := newFetched(t)
	f.put("ca.crl", f.list(1, true))
	f.await("a list", "from "+f.lists+"/ca.crl")
	data := bytes.Repeat([]byte("x"), 10)
	for i := range 20_000 {
		name := filepath.Join(f.lists, strconv.Itoa(i))
		if i%2 == 0 {
			name += ".crl"
		}
		f.must(os.WriteFile(name, data, 0o644))
	}
	f.await("the crowd", "more than 256 files")
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		from, to := filepath.Join(f.lists, "0.crl"), filepath.Join(f.lists, "1.new.crl")
		for {
			select {
			case <-stop:
				return
			default:
				os.Rename(from, to)
				from, to = to, from
			}
		}
	}()
	f.peer("in a crowd", false)
	f.renew()
	if code, out := f.reload(); code != 0 {
		t.Errorf("a renewed certificate in a crowd: %d %s", code, out)
	}
	f.peer("in a crowd, renewed", false)
	close(stop)
	<-stopped
	f.must(os.RemoveAll(f.lists))
	f.put("ca.crl", f.list(2, false))
	for range 150 {
		if _, _, err := talk(t, f.a.socket, f.b.socket); err == nil {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	f.peer("after the crowd", true)
}
