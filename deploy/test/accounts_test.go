//go:build deploy

package deploytest

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestComposeAccounts brings up deploy/compose.accounts.yaml by the commands of docs/install.md.
func TestComposeAccounts(t *testing.T) {
	r := readRecipe(t, "docs/install.md", "Accounts for services").whole(t)
	pki, hosts := newPKI(t), t.TempDir()
	dir := filepath.Join(hosts, "alpha")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	replace(t, filepath.Join(dir, "machine.pem"), pki.issue(pki.ca, "alpha.test").PEM(), 0o400, daemonUID)
	replace(t, filepath.Join(dir, "ca.pem"), pki.ca.PEM(), 0o644, 0)
	t.Setenv("ALTSD_HOSTS", hosts)
	t.Setenv("COMPOSE_PROJECT_NAME", fmt.Sprintf("altsdaccounts%d", os.Getpid()))
	sh := func(script string) (string, error) {
		cmd := exec.Command("sh", "-ec", script)
		cmd.Dir = root
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	step := func(name string, replaced ...string) string {
		return r.step(t, name, append([]string{`export ALTSD_HOSTS="$PWD/hosts"`, "true"}, replaced...)...)
	}
	down := r.step(t, "down, with its sockets")
	t.Cleanup(func() {
		if out, err := sh(down); err != nil {
			t.Error(err, out)
		}
	})
	up, ask, found := strings.Cut(step("up, and a channel"), "up -d\n")
	if !found {
		t.Fatal(up)
	}
	if out, err := sh(up + "up -d\n"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	waitFor(t, "caller+ and greeter+", func() (bool, string) {
		out, err := sh(up[:strings.LastIndex(up, "docker-compose")] + ask)
		return err == nil && strings.Contains(out, `"peer":"greeter+@alpha.test"`) &&
			strings.Contains(out, `"seen_as":"caller+@alpha.test"`), out
	})
	// Its name is the socket's, whatever else it asks for, and no other uid has it.
	in := func(service, flags, command string) string {
		out, _ := sh("docker-compose -f deploy/compose.accounts.yaml exec -T " + flags + service + " " + command)
		return out
	}
	const call = "/app call --daemon-uid 10001 --address greeter:7500 --target caller+@alpha.test"
	if out := in("caller", "", call); !strings.Contains(out, "target_mismatch") {
		t.Errorf("caller+ is not the server: %s", out)
	}
	if out := in("caller", "--user 41001:41001 ", call); !strings.Contains(out, "uid 41001 may not use this socket") {
		t.Errorf("greeter's uid in the caller's container: %s", out)
	}
	if out := in("daemon", "", "/shared-altsd status --json"); !strings.Contains(out, `"machine": "alpha.test"`) {
		t.Errorf("the daemon's status: %s", out)
	}
	log, _ := sh("docker-compose -f deploy/compose.accounts.yaml logs --no-color daemon")
	for _, want := range []string{"local=caller+@alpha.test uid=41002", "socket=blue", "local=greeter+@alpha.test uid=41001", "socket=/run/greeter/socket"} {
		if !strings.Contains(log, want) {
			t.Errorf("no %q in the log:\n%s", want, log)
		}
	}
}

// TestSystemdAccounts gives services without accounts identities, on a machine with systemd, by what the documents print.
func TestSystemdAccounts(t *testing.T) {
	pki := newPKI(t)
	m := boot(t, strings.TrimSpace(must(t, "deploy/test/rootfs.sh")), network(t), "alpha", "deb")
	m.install(t, "dist")
	m.put(t, "/root/ca.pem", pki.ca.PEM(), "0600")
	m.put(t, "/root/machine.pem", pki.issue(pki.ca, "alpha.test").PEM(), "0600")
	m.copyIn(t, "dist/image/app")
	m.sh(t, fmt.Sprintf(`install -m 755 /root/app /usr/local/bin/app; useradd -u %d -M -s /bin/sh alice`, aliceUID))
	m.sh(t, "cd /root\n"+readRecipe(t, "docs/install.md", "Packages").step(t, "after the installation"))
	tab := &table{title: "Accounts that no database has, on a machine with systemd"}
	defer tab.print()
	tab.row(t, "a service with DynamicUser", m.dynamicUser)
	tab.row(t, "the name is somebody's", m.nameTaken)
	tab.row(t, "the node of a cluster", m.node)
}

// callGreeter is alice's call of the greeter.
const callGreeter = "app call --address alpha.test:50051 --target greeter+@alpha.test"

func (m *machine) dynamicUser(t *testing.T) string {
	r := readRecipe(t, "docs/install.md", "Services without an account").whole(t)
	m.sh(t, r.step(t, "a group that may reach the socket"))
	m.put(t, "/etc/systemd/system/greeter.service", []byte(r.step(t, "/etc/systemd/system/greeter.service", "/usr/local/bin/greeter", "/usr/local/bin/app serve --address [::]:50051")), "0644")
	uids := map[string]bool{}
	for range 2 { // the same account, whatever uid systemd chooses
		m.sh(t, "systemctl daemon-reload; systemctl restart greeter.service")
		waitFor(t, "greeter+", func() (bool, string) {
			out, _ := m.try(as("alice", callGreeter))
			return strings.Contains(out, `"peer":"greeter+@alpha.test"`) && strings.Contains(out, `"seen_as":"alice@alpha.test"`), out
		})
		pid := m.property(t, "greeter.service", "MainPID")
		uids[strings.TrimSpace(m.sh(t, "stat -c %u /proc/"+pid))] = true
	}
	for uid := range uids {
		if m.sh(t, "journalctl -q --no-pager -u shared-altsd | grep -c 'local=greeter+@alpha.test uid="+uid+" '") == "0\n" {
			t.Errorf("the log has nothing of uid %s", uid)
		}
	}
	// Another service of the kind has a uid of the range as well, but not the group.
	const whoami = "systemd-run -q --wait --pipe -p DynamicUser=yes -E SHARED_ALTS_SOCKET=/run/shared-altsd-greeter/socket "
	if out, err := m.try(whoami + "shared-altsd whoami"); err == nil || !strings.Contains(out, "this account may not use the socket") {
		t.Errorf("a service without the group: %v %s", err, out)
	}
	if out, err := m.try(whoami + "-p SupplementaryGroups=altsd-greeter shared-altsd whoami"); err != nil || out != "greeter+@alpha.test\n" {
		t.Errorf("one with it: %v %s", err, out)
	}
	// The account's own name is no other's.
	if out := m.sh(t, as("alice", "shared-altsd whoami")); !strings.HasPrefix(out, "alice@alpha.test\n") {
		t.Error(out)
	}
	return "greeter+ under a uid of systemd's choice, and other services of the kind are not"
}

// nameTaken makes an account of the name, and removes it.
func (m *machine) nameTaken(t *testing.T) string {
	m.sh(t, "echo 'Greeter+:x:4711:4711::/:/usr/sbin/nologin' >>/etc/passwd")
	waitFor(t, "the refusal", func() (bool, string) {
		out, err := m.try(as("alice", callGreeter))
		return err != nil && strings.Contains(out, "local_account"), out
	})
	m.sh(t, "sed -i /^Greeter+/d /etc/passwd")
	waitFor(t, "its end", func() (bool, string) {
		out, err := m.try(as("alice", callGreeter))
		return err == nil, out
	})
	return "refused while /etc/passwd has it, in another spelling"
}

// node does what a node of a cluster needs, and what the manifests' containers run, under their uids, with the user database
// of the image.
func (m *machine) node(t *testing.T) string {
	r := readRecipe(t, "docs/install.md", "Kubernetes").whole(t)
	m.sh(t, "systemctl stop shared-altsd.socket shared-altsd.service; cp -r /etc/shared-altsd /root/before")
	m.copyIn(t, "deploy/kubernetes/tmpfiles.conf")
	m.sh(t, "cd /root\n"+r.step(t, "on each node"))
	cmd := exec.Command("go", "run", ".", "../shared-altsd.yaml", "../greeter.yaml")
	cmd.Dir = filepath.Join(root, "deploy/kubernetes/check")
	cmd.Env = append(os.Environ(), "GOFLAGS=-mod=readonly", "GOWORK=off")
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	runs := map[string]string{}
	for d := json.NewDecoder(strings.NewReader(string(out))); d.More(); {
		var manifest struct {
			Kind string
			Pod  struct {
				SecurityContext struct{ RunAsUser int }
				Containers      []struct {
					Args           []string
					ReadinessProbe struct{ Exec struct{ Command []string } }
				}
			}
		}
		if err := d.Decode(&manifest); err != nil {
			t.Fatal(err)
		}
		for _, c := range manifest.Pod.Containers {
			run := func(args []string) string {
				return fmt.Sprintf("setpriv --reuid=%d --regid=%[1]d --clear-groups --no-new-privs --bounding-set=-all shared-altsd '%s'",
					manifest.Pod.SecurityContext.RunAsUser, strings.Join(args, "' '"))
			}
			runs[manifest.Kind] = run(c.Args)
			if probe := c.ReadinessProbe.Exec.Command; probe != nil {
				runs["probe"] = run(probe[1:])
			}
		}
	}
	m.sh(t, "echo root:x:0:0::/:/ >/root/passwd")
	m.sh(t, "systemd-run -q --unit pods-daemon -p BindReadOnlyPaths=/root/passwd:/etc/passwd "+runs["DaemonSet"])
	waitFor(t, "the daemon", func() (bool, string) { out, err := m.try(runs["probe"]); return err == nil, out })
	// The pod's own mount: its socket's directory as /run/shared-altsd.
	m.sh(t, "systemd-run -q --unit pod -p BindReadOnlyPaths=/run/shared-altsd/greeter:/run/shared-altsd "+runs["Pod"])
	waitFor(t, "the pod", func() (bool, string) {
		out, err := m.try("systemd-run -q --wait --pipe -p BindReadOnlyPaths=/run/shared-altsd/greeter:/run/shared-altsd " +
			"setpriv --reuid=41001 --regid=41001 --clear-groups shared-altsd ping --daemon-uid 10001 --target-account greeter+@alpha.test alpha.test:7400")
		return err == nil && strings.Contains(out, "greeter+@alpha.test, as the peer sees it"), out
	})
	return "the manifests' commands, under their uids: greeter+ to itself"
}
