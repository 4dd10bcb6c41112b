//go:build deploy

package deploytest

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A machine is a container in which systemd runs as process 1.
type machine struct {
	t       *testing.T
	name    string // also its host name, under .test
	id      string
	kind    string // deb or rpm: by what the daemon is installed
	network string
}

// network makes a docker network for the machines of a test.
func network(t *testing.T) string {
	name := fmt.Sprintf("altsd-systemd%d", os.Getpid())
	must(t, "docker", "network", "create", name)
	t.Cleanup(func() { command("docker", "network", "rm", name) })
	return name
}

// boot starts a machine. systemd needs to mount, and to set up the network of a service without one, hence the two
// capabilities and no seccomp filter of docker's; a cgroup tree; and, as on any machine, mounts that are shared with its
// services, without which LoadCredential= gives an empty directory, and low ports for those alone who have the right.
func boot(t *testing.T, image, network, name, kind string) *machine {
	t.Helper()
	// On cgroup v1, docker's own mounts of the controllers are writable below a read-only top; v2 has one tree.
	cgroups := "ro"
	if strings.TrimSpace(must(t, "docker", "info", "--format", "{{.CgroupVersion}}")) == "2" {
		cgroups = "rw"
	}
	m := &machine{t: t, name: name, kind: kind, network: network}
	m.id = strings.TrimSpace(must(t, "docker", "run", "-d", "--hostname", name+".test", "--network", network,
		"--network-alias", name+".test", "--cap-add", "SYS_ADMIN", "--cap-add", "NET_ADMIN", "--security-opt", "seccomp=unconfined",
		"--security-opt", "apparmor=unconfined", "--cgroupns", "host", "-v", "/sys/fs/cgroup:/sys/fs/cgroup:"+cgroups,
		"--sysctl", "net.ipv4.ip_unprivileged_port_start=1024",
		"--tmpfs", "/run", "--tmpfs", "/run/lock", "--tmpfs", "/tmp:exec", image,
		"sh", "-c", "mount --make-rshared / && exec /lib/systemd/systemd"))
	t.Cleanup(func() {
		if t.Failed() {
			log, _ := command("docker", "exec", m.id, "journalctl", "--no-pager", "-n", "80", "-u", "shared-altsd*")
			t.Logf("the journal of %s:\n%s", name, log)
		}
		command("docker", "rm", "-f", "-v", m.id)
	})
	waitFor(t, name+" to boot", func() (bool, string) {
		out, _ := command("docker", "exec", m.id, "systemctl", "is-system-running")
		return strings.TrimSpace(out) == "running", out
	})
	return m
}

// sh runs a shell script as root on the machine; it has to succeed.
func (m *machine) sh(t *testing.T, script string) string {
	t.Helper()
	return must(t, "docker", "exec", m.id, "sh", "-ec", script)
}

// try is sh for what may fail: the output holds standard error.
func (m *machine) try(script string) (string, error) {
	return command("docker", "exec", m.id, "sh", "-c", "{ "+script+"\n} 2>&1")
}

// put writes a file on the machine, as root's, at once.
func (m *machine) put(t *testing.T, path string, data []byte, mode string) {
	t.Helper()
	temp := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(temp, data, 0o600); err != nil {
		t.Fatal(err)
	}
	must(t, "docker", "cp", temp, m.id+":"+path+".new")
	m.sh(t, fmt.Sprintf("chown root:root %[1]s.new; chmod %[2]s %[1]s.new; mv %[1]s.new %[1]s", path, mode))
}

// copyIn copies a file of the work tree to /root on the machine and gives its path there.
func (m *machine) copyIn(t *testing.T, pattern string) string {
	t.Helper()
	found, _ := filepath.Glob(filepath.Join(root, pattern))
	if len(found) != 1 {
		t.Fatalf("%s: %d files, want one: run make test-deploy", pattern, len(found))
	}
	path, err := filepath.Abs(found[0])
	if err != nil {
		t.Fatal(err)
	}
	must(t, "docker", "cp", path, m.id+":/root/")
	return "/root/" + filepath.Base(path)
}

// install installs or upgrades the package in a folder of the work tree; configuration that was changed on the machine stays.
func (m *machine) install(t *testing.T, folder string) string {
	t.Helper()
	path := m.copyIn(t, folder+"/*."+m.kind)
	if m.kind == "deb" {
		return m.sh(t, "dpkg --force-confold -i "+path)
	}
	// Without the dependencies, which Debian's rpm does not know to be there.
	return m.sh(t, "rpm -U --force-debian --nodeps "+path)
}

// property returns one property of a unit.
func (m *machine) property(t *testing.T, unit, name string) string {
	t.Helper()
	return strings.TrimSpace(m.sh(t, "systemctl show --value -p "+name+" "+unit))
}

func (m *machine) status(t *testing.T) daemonStatus {
	t.Helper()
	out, _ := command("docker", "exec", m.id, "shared-altsd", "status", "--json")
	if out == "" {
		return daemonStatus{}
	}
	return decode[daemonStatus](t, out)
}

// waitSerial waits until a certificate is in force.
func (m *machine) waitSerial(t *testing.T, serial string) {
	t.Helper()
	waitFor(t, m.name+"'s certificate "+serial, func() (bool, string) {
		s := m.status(t)
		return s.Certificate.Serial == serial, fmt.Sprintf("%+v", s)
	})
}
