package main

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shared-altsd/shared-altsd/internal/metrics"
	"github.com/shared-altsd/shared-altsd/internal/testca"
	"github.com/shared-altsd/shared-altsd/internal/testprog"
)

// status --textfile writes what a scrape reads, whole, for everybody to read; of a daemon that is gone, under the same name, that
// it is.
func TestStatusTextfile(t *testing.T) {
	sockets := testprog.Dir(t)
	p, _, _ := one(t, testca.Options{}, testca.Leaf{}, "--metrics", "unix:"+filepath.Join(sockets, "metrics"))
	if _, _, err := talk(t, p.socket, p.socket); err != nil {
		t.Fatal(err)
	}
	p.done("initiator", "responder")
	dir := testprog.Dir(t)
	file := filepath.Join(dir, "shared-altsd.prom")
	read := func() string {
		t.Helper()
		info, err := os.Lstat(file)
		if err != nil || info.Mode() != 0o644 {
			t.Fatalf("%v %v", info, err)
		}
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	// A link where the file belongs is replaced, and what it leads to stays as it is.
	victim := write(t, filepath.Join(dir, "victim"), []byte("mine"))
	if err := os.Symlink(victim, file); err != nil {
		t.Fatal(err)
	}
	if code, out, errs := altsd(t, "status", "--socket", p.socket, "--textfile", file); code != 0 || out+errs != "" {
		t.Fatalf("exit status %d: %s%s", code, out, errs)
	}
	if text, err := os.ReadFile(victim); string(text) != "mine" {
		t.Errorf("%q, %v", text, err)
	}
	text := read()
	names := func(text string) (names []string) {
		for line := range strings.Lines(text) {
			if name, _, found := strings.Cut(line, "} "); found && !strings.HasPrefix(name, "#") {
				names = append(names, name)
			}
		}
		return names
	}
	scraped, collected := names(scrape(t, filepath.Join(sockets, "metrics"))), names(text)
	if n := len(scraped) - 3 + 1; len(collected) != n { // without three of the process, and with shared_altsd_up
		t.Errorf("%d series, %d want:\n%s", len(collected), n, text)
	}
	if len(scraped) > metrics.MaxSeries {
		t.Errorf("%d series", len(scraped))
	}
	for _, want := range []string{`shared_altsd_up{machine="a.test"} 1`, `shared_altsd_handshakes_total{role="initiator",result="accepted",machine="a.test"} 1`} {
		if !strings.Contains(text, want+"\n") {
			t.Errorf("no %s in\n%s", want, text)
		}
	}
	// Any account may write it that may write there.
	if attr, _ := ordinaryUser(t); attr != nil {
		theirs := testprog.Dir(t)
		if err := os.Chown(theirs, int(attr.Credential.Uid), int(attr.Credential.Gid)); err != nil {
			t.Fatal(err)
		}
		for _, c := range []struct{ dir, want string }{{theirs, ""}, {dir, "let this account write in that directory"}} {
			cmd := exec.Command(program(t), "status", "--socket", p.socket, "--textfile", filepath.Join(c.dir, "x.prom"))
			cmd.SysProcAttr = attr
			out, err := cmd.CombinedOutput()
			if (err == nil) != (c.want == "") || !strings.Contains(string(out), c.want) {
				t.Errorf("%v: %s", err, out)
			}
		}
	}
	if code := p.stop(); code != 0 {
		t.Errorf("exit status %d", code)
	}
	if code, out, errs := altsd(t, "status", "--socket", p.socket, "--textfile", file); code != 1 || out != "" ||
		!strings.Contains(errs, "no daemon") {
		t.Errorf("without a daemon: exit status %d: %s%s", code, out, errs)
	}
	const down = "# HELP shared_altsd_up 1 if the daemon answered when this was written.\n# TYPE shared_altsd_up gauge\n" +
		"shared_altsd_up{machine=\"a.test\"} 0\n"
	if text := read(); text != down {
		t.Errorf("without a daemon:\n%s", text)
	}
	// What is no file of ours names no machine.
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	write(t, file, []byte("shared_altsd_up{machine=\"Ä\"} 1\n"))
	altsd(t, "status", "--socket", p.socket, "--textfile", file)
	if text := read(); !strings.Contains(text, `{machine="`+strings.ToLower(host)+`"} 0`) {
		t.Errorf("under another name:\n%s", text)
	}
	if left, err := fs.Glob(os.DirFS(dir), ".new-*"); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
	if code, _, errs := altsd(t, "status", "--json", "--textfile", file); code != 2 || !strings.Contains(errs, "--json") {
		t.Errorf("both: %d %s", code, errs)
	}
}
