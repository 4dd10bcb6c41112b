package programs

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shared-altsd/shared-altsd/internal/testdoc"
)

// TestRsync has an rsync on beta for each connection, as inetd would start it.
func TestRsync(t *testing.T) {
	w := theWorld(t)
	need(t, "rsync")
	alpha, beta := w.alpha, w.beta
	alice, backup := alpha.account("alice"), beta.account("backup")
	files := beta.folder(t, backup, "files", 0o755)
	conf := beta.file(t, backup, "rsyncd.conf", step(t, "beta: /etc/shared-altsd/rsyncd.conf", "/srv/files", files), 0o600)
	beta.forward(t, backup, words(t, beta, backup, step(t, "beta: one rsync for each connection", "/etc/shared-altsd/rsyncd.conf", conf))...)

	big := strings.Repeat("0123456789abcdef", 1<<19)
	from := alpha.folder(t, alice, "from", 0o755)
	alpha.folder(t, alice, "src", 0o755)
	alpha.file(t, alice, "from/big", big, 0o644)
	alpha.file(t, alice, "from/small", "small\n", 0o644)
	const call = "alpha, as alice\nRSYNC"
	if o := alpha.run(t, alice, "sh", "-c", "cd "+from+" && "+step(t, call)); o.code != 0 {
		t.Fatalf("%+v", o)
	}
	for name, want := range map[string]string{"big": big, "small": "small\n"} {
		path := filepath.Join(files, name)
		if got, err := os.ReadFile(path); err != nil || string(got) != want {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
		if owner := beta.must(t, backup, "stat", "-c", "%U", path); owner != "backup\n" {
			t.Errorf("%s is %q's", name, owner)
		}
	}
	back := alpha.folder(t, alice, "back", 0o755)
	o := alpha.run(t, alice, "sh", "-c", "cd "+back+" && "+step(t, call, "-a ./ rsync://beta.example.com/files/", "-a rsync://beta.example.com/files/ ./"))
	if o.code != 0 || alpha.must(t, alice, "diff", "-r", from, back) != "" {
		t.Errorf("%+v", o)
	}
	// By rsync's own -e.
	alpha.file(t, alice, "src/more", "more\n", 0o644)
	if o := alpha.run(t, alice, "sh", "-c", testdoc.Blocks(t, page, t.Name())[0]); o.code != 0 {
		t.Errorf("%+v", o)
	}
	if got, err := os.ReadFile(filepath.Join(files, "more")); err != nil || string(got) != "more\n" {
		t.Errorf("more: %q, %v", got, err)
	}
	// bob is not let in.
	bob := alpha.account("bob")
	if o := alpha.run(t, bob, "sh", "-c", "cd "+from+" && "+step(t, call)); o.code == 0 {
		t.Errorf("bob: %+v", o)
	}
}
