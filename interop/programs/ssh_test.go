package programs

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/shared-altsd/shared-altsd/internal/testdoc"
)

// TestSSH has ssh by a ProxyCommand: the host is proved before ssh hears a word of it.
func TestSSH(t *testing.T) {
	w := theWorld(t)
	need(t, "ssh", "ssh-keygen", "/usr/sbin/sshd")
	alpha, beta := w.alpha, w.beta
	alice, far := alpha.account("alice"), beta.account("alice")
	ssh := alpha.folder(t, alice, ".ssh", 0o700)
	alpha.must(t, alice, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", ssh+"/id_ed25519")
	public, err := os.ReadFile(ssh + "/id_ed25519.pub")
	if err != nil {
		t.Fatal(err)
	}
	beta.folder(t, far, ".ssh", 0o700)
	beta.file(t, far, ".ssh/authorized_keys", string(public), 0o600)
	beta.must(t, root, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", beta.folder(t, root, "sshd", 0o700)+"/host_key")
	conf := beta.file(t, root, "sshd_config", fmt.Sprintf("ListenAddress 127.0.0.1:22\nHostKey %s/sshd/host_key\nUsePAM no\nPidFile none\n"+
		"PrintLastLog no\n", beta.home(root)), 0o600)
	beta.serve(t, beta.command(root, "/usr/sbin/sshd", "-D", "-e", "-f", conf))
	beta.waitPort(t, 22)
	const listen = "beta: sshd, at its port of loopback"
	beta.forward(t, root, words(t, beta, root, step(t, listen))...)

	call := func(replaced ...string) outcome {
		t.Helper()
		return alpha.run(t, alice, "sh", "-c", step(t, "alpha, as alice\nssh", replaced...))
	}
	known := func() string {
		b, _ := os.ReadFile(ssh + "/known_hosts")
		return string(b)
	}
	// Another account of beta has a forward to the very sshd: not the host that was asked for.
	backup := beta.account("backup")
	beta.forward(t, backup, words(t, beta, backup, step(t, listen, ":2222", ":2223"))...)
	o := call("%h:2222", "%h:2223")
	if o.code != 255 || known() != "" || strings.Contains(o.stderr, "host key") {
		t.Errorf("another account's forward: %+v, known hosts %q", o, known())
	}
	if o := call(); o.code != 0 || o.stdout != "alice\n" {
		t.Errorf("%+v", o)
	}
	if !strings.Contains(known(), " ssh-ed25519 ") {
		t.Errorf("known hosts: %q", known())
	}
	// The shorter line, now that the host's key is known.
	line := strings.TrimSpace(testdoc.Blocks(t, page, t.Name())[0])
	if o := alpha.run(t, alice, "sh", "-c", line+" id -un"); o.code != 0 || o.stdout != "alice\n" {
		t.Errorf("%s: %+v", line, o)
	}
	// Much each way, and ends that ssh waits for.
	big := strings.Repeat("0123456789abcdef", 1<<19)
	in := alpha.feed(t, alice, strings.NewReader(big), "sh", "-c", step(t, "alpha, as alice\nssh", "id -un", "cat"))
	if in.code != 0 || in.stdout != big {
		t.Errorf("8 MiB and back: exit status %d, %d bytes, %s", in.code, len(in.stdout), in.stderr)
	}
}

// words returns the arguments of a line of the page that begins with shared-altsd listen, as the shell reads them.
func words(t testing.TB, m *machine, a account, line string) []string {
	t.Helper()
	arguments, found := strings.CutPrefix(line, "shared-altsd listen ")
	if !found {
		t.Fatalf("%q is not a command of listen", line)
	}
	out := m.must(t, a, "sh", "-c", `printf '%s\n' `+arguments)
	return strings.Split(strings.TrimSuffix(out, "\n"), "\n")
}
