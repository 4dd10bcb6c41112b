//go:build deploy

package deploytest

import (
	"encoding/asn1"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/shared-altsd/shared-altsd/internal/purpose"
	"github.com/shared-altsd/shared-altsd/internal/testca"
	"github.com/shared-altsd/shared-altsd/internal/testdoc"
)

// A controller is where Ansible runs: a folder with the playbook and the variables of docs/fleet.md, and an inventory.
type controller struct {
	dir      string
	machines []*machine
	commands map[string]string // of docs/fleet.md, by the comment above each
}

func newController(t *testing.T, pki *pki, machines ...*machine) *controller {
	c := &controller{dir: t.TempDir(), machines: machines, commands: map[string]string{}}
	c.run(t, "ssh-keygen -q -t ed25519 -N '' -f key; mkdir files group_vars repo")
	key, err := os.ReadFile(filepath.Join(c.dir, "key.pub"))
	if err != nil {
		t.Fatal(err)
	}
	inventory := "[cluster]\n"
	for _, m := range machines {
		m.sh(t, "rm -f /etc/apt/sources.list; install -d -m 0700 /root/.ssh; systemctl start ssh")
		m.put(t, "/root/.ssh/authorized_keys", key, "0600")
		address := strings.TrimSpace(must(t, "docker", "inspect", "-f", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", m.id))
		inventory += fmt.Sprintf("%s.test ansible_host=%s\n", m.name, address)
		leaf := testca.Leaf{Hosts: []string{m.name + ".test"}, UnknownEKUs: []asn1.ObjectIdentifier{purpose.OID()}}
		c.put(t, "files/"+m.name+".test.pem", testca.MustIssue(t, pki.ca, leaf).PEM())
	}
	c.put(t, "files/hpc-ca.pem", pki.ca.PEM())
	c.put(t, "inventory", []byte(inventory))
	roles, err := filepath.Abs(filepath.Join(root, "deploy/ansible/roles"))
	if err != nil {
		t.Fatal(err)
	}
	c.put(t, "ansible.cfg", fmt.Appendf(nil, "[defaults]\ninventory = inventory\nroles_path = %s\nhost_key_checking = false\n"+
		"local_tmp = %[2]s/tmp\nprivate_key_file = %[2]s/key\nremote_user = root\nretry_files_enabled = false\n"+
		"[ssh_connection]\npipelining = true\ncontrol_path_dir = %[2]s/cp\n", roles, c.dir))
	for _, text := range testdoc.Blocks(t, "docs/fleet.md", "TestSystemdAnsible") {
		text = strings.NewReplacer("https://repo.example.com/shared-altsd", "file:/srv/repo", "hpc.example.com", "test").Replace(text)
		if name := regexp.MustCompile(`^# (\S+\.yml)\n`).FindStringSubmatch(text); name != nil {
			c.put(t, name[1], []byte(text))
			continue
		}
		for _, part := range strings.Split(text, "\n\n") {
			comment, command, _ := strings.Cut(strings.TrimSpace(part), "\n")
			c.commands[strings.TrimPrefix(comment, "# ")] = command
		}
	}
	c.repository(t)
	return c
}

func (c *controller) put(t *testing.T, name string, data []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(c.dir, name), data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// repository makes a small signed one of the package, on each machine.
func (c *controller) repository(t *testing.T) {
	t.Helper()
	found, _ := filepath.Glob(filepath.Join(root, "dist/*.deb"))
	if len(found) != 1 {
		t.Fatalf("%d packages in dist, want one: run make packages", len(found))
	}
	deb, err := os.ReadFile(found[0])
	if err != nil {
		t.Fatal(err)
	}
	c.run(t, "mkdir -m 700 gnupg; mkdir -p repo/apt/pool repo/apt/dists/stable/main/binary-amd64")
	c.put(t, "repo/apt/pool/"+filepath.Base(found[0]), deb)
	c.run(t, `export GNUPGHOME=$PWD/gnupg
gpg -q --batch --passphrase '' --quick-generate-key test default default never 2>/dev/null
gpg -q --armor --export test >files/shared-altsd.asc
cd repo/apt; apt-ftparchive packages pool >dists/stable/main/binary-amd64/Packages
apt-ftparchive -o APT::FTPArchive::Release::Components=main -o APT::FTPArchive::Release::Suite=stable release dists/stable >Release
mv Release dists/stable; gpg -q --clearsign -o dists/stable/InRelease dists/stable/Release; rm dists/stable/Release
gpgconf --kill gpg-agent; chmod -R a+rX ../../repo`)
	for _, m := range c.machines {
		must(t, "docker", "cp", c.dir+"/repo", m.id+":/srv/repo")
	}
}

// try runs a shell script in the controller's folder.
func (c *controller) try(script string) (string, error) {
	cmd := exec.Command("sh", "-ec", script)
	cmd.Dir = c.dir
	cmd.Env = append(os.Environ(), "ANSIBLE_CONFIG="+c.dir+"/ansible.cfg", "HOME="+c.dir, "LC_ALL=C.UTF-8", "ANSIBLE_NOCOLOR=1")
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (c *controller) run(t *testing.T, script string) string {
	t.Helper()
	out, err := c.try(script)
	if err != nil {
		t.Fatalf("%s: %v\n%s", script, err, out)
	}
	return out
}

// play runs a command of docs/fleet.md, with more at its end.
func (c *controller) play(t *testing.T, name string, more string) string {
	t.Helper()
	command := c.commands[name]
	if command == "" {
		t.Fatalf("docs/fleet.md has no command %q: %q", name, c.commands)
	}
	return c.run(t, command+" "+more)
}

// recap returns how many tasks changed a machine, and how many failed.
func recap(t *testing.T, m *machine, out string) (changed, failed string) {
	t.Helper()
	line := regexp.MustCompile(m.name + `\.test +: ok=\d+ +changed=(\d+) +unreachable=0 +failed=(\d+)`).FindStringSubmatch(out)
	if line == nil {
		t.Fatalf("no recap of %s in\n%s", m.name, out)
	}
	return line[1], line[2]
}

// TestSystemdAnsible: the role of deploy/ansible, on two machines that have nothing yet, by the page that shows it: a dry run, the first
// one, a second that changes nothing, and one variable from permissive to enforcing.
func TestSystemdAnsible(t *testing.T) {
	image := strings.TrimSpace(must(t, "deploy/test/rootfs.sh", "ansible"))
	net := network(t)
	pki := newPKI(t)
	alpha, beta := boot(t, image, net, "alpha", "deb"), boot(t, image, net, "beta", "deb")
	c := newController(t, pki, alpha, beta)
	for _, m := range c.machines {
		m.sh(t, fmt.Sprintf("useradd -u %d -M alice; useradd -M mallory", aliceUID))
	}
	const dry, change, enforce = "what it would change, on machines that have nothing yet as well", "to change it", "to have the rules refuse"
	unchanged := func(what, out string) {
		t.Helper()
		for _, m := range c.machines {
			if changed, _ := recap(t, m, out); changed != "0" {
				t.Errorf("%s changes %s tasks of %s:\n%s", what, changed, m.name, out)
			}
		}
	}
	calls := func(account string, want string) {
		t.Helper()
		waitFor(t, account+"'s call", func() (bool, string) {
			out, err := alpha.try("setpriv --reuid=" + account + " --regid=" + account + " --clear-groups timeout 20 shared-altsd ping beta.test:7400")
			return want == "" && err == nil || want != "" && err != nil && strings.Contains(out, want), out
		})
	}
	daemonOf := func(m *machine) string { return m.property(t, "shared-altsd.service", "MainPID") }

	c.play(t, dry, "")
	if out := alpha.sh(t, "ls /usr/bin/shared-altsd /etc/shared-altsd /etc/apt/sources.list.d 2>/dev/null || true"); strings.Contains(out, "shared-altsd") {
		t.Errorf("a dry run left %s", out)
	}
	c.play(t, change, "")
	for _, m := range c.machines {
		m.sh(t, "systemd-run -q --unit pong -p User=daemon /usr/bin/shared-altsd pong :7400")
	}
	unchanged("the second run", c.play(t, change, ""))
	calls("alice", "")
	calls("mallory", "")

	before := daemonOf(beta)
	c.play(t, enforce, "")
	calls("alice", "")
	calls("mallory", "denied_by_policy")
	unchanged("the second run of enforcing", c.play(t, enforce, ""))
	if now := daemonOf(beta); now != before {
		t.Errorf("the daemon was started again for its rules: %s, before %s", now, before)
	}

	c.play(t, "at once, everywhere", "")
	if out := alpha.sh(t, "shared-altsd deny --list"); !strings.Contains(out, "b17.test") {
		t.Errorf("denied on alpha:\n%s", out)
	}

	// What is wrong fails the play, by file and line; the daemon goes on.
	out, err := c.try(c.commands[enforce] + ` -l beta.test -e '{"shared_altsd_settings": {"require-euk": "1.2.3"}}'`)
	if _, failed := recap(t, beta, out); err == nil || failed != "1" || !strings.Contains(out, "/etc/shared-altsd/conf.d/50-ansible.conf:2: unknown name") {
		t.Errorf("a mistake: %v\n%s", err, out)
	}
	if out, err := c.try(c.commands[enforce] + ` -l beta.test -e '{"shared_altsd_settings": {"require-euk": "1.2.3"}}'`); err == nil {
		t.Errorf("the same mistake once more:\n%s", out)
	}
	calls("alice", "")
	// What a reload does not change restarts the daemon.
	c.play(t, enforce, `-l beta.test -e '{"shared_altsd_settings": {"require-eku": "shared-altsd", "log-level": "debug"}}'`)
	if now := daemonOf(beta); now == before {
		t.Error("the daemon was not started again for its log's level")
	}
	calls("alice", "")
	calls("mallory", "denied_by_policy")
}
