//go:build deploy

package deploytest

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
)

// inAContainer is what podman needs where the host is a container itself: docker has no cgroup for it to divide.
const inAContainer = `[Container]
PodmanArgs=--cgroups=disabled
[Service]
Environment=PODMAN_IGNORE_CGROUPSV1_WARNING=1
`

// unmixed is for crun, which gives up where cgroup v1 and v2 are mixed: it does not see the latter.
const unmixed = "TemporaryFileSystem=/sys/fs/cgroup/unified\n"

// TestSystemdPodman runs the Quadlet of deploy/podman by the commands of docs/install.md, with podman's own generator.
func TestSystemdPodman(t *testing.T) {
	pki := newPKI(t)
	m := boot(t, strings.TrimSpace(must(t, "deploy/test/rootfs.sh", "podman")), network(t), "alpha", "deb")
	m.install(t, "dist")
	m.put(t, "/root/ca.pem", pki.ca.PEM(), "0600")
	m.put(t, "/root/machine.pem", pki.issue(pki.ca, "alpha.test").PEM(), "0600")
	m.sh(t, fmt.Sprintf("useradd -u %d -M -s /bin/sh alice; mount -o remount,rw /proc/sys", aliceUID))
	m.sh(t, "cd /root\n"+readRecipe(t, "docs/install.md", "Packages").step(t, "after the installation"))
	image := filepath.Join(t.TempDir(), "image.tar")
	must(t, "docker", "save", "-o", image, "shared-altsd:local")
	must(t, "docker", "cp", image, m.id+":/root/image.tar")
	m.sh(t, `mkdir -p /etc/containers/systemd/greeter.container.d
printf '[storage]\ndriver = "vfs"\nrunroot = "/run/containers/storage"\ngraphroot = "/var/lib/containers/storage"\n' >/etc/containers/storage.conf
podman load -q -i /root/image.tar`)
	dropIn, asRoot := inAContainer, "sh -c"
	if _, err := m.try("test -d /sys/fs/cgroup/unified"); err == nil {
		dropIn, asRoot = dropIn+unmixed, "systemd-run -q --wait --pipe -p TemporaryFileSystem=/sys/fs/cgroup/unified sh -c"
	}
	m.put(t, "/etc/containers/systemd/greeter.container.d/container.conf", []byte(dropIn), "0644")
	for _, file := range []string{"greeter.container", "shared-altsd-greeter.socket"} {
		m.copyIn(t, "deploy/podman/"+file)
	}
	if out, err := m.try("cd /root\n" + readRecipe(t, "docs/install.md", "Podman").whole(t).step(t, "the socket and the container")); err != nil {
		log, _ := m.try("journalctl --no-pager -n 40 -u greeter.service; /usr/libexec/podman/quadlet -dryrun")
		t.Fatalf("%v %s\n%s", err, out, log)
	}
	waitFor(t, "greeter+", func() (bool, string) {
		out, _ := m.try(as("alice", "shared-altsd ping --target-account greeter+@alpha.test 127.0.0.1:7400"))
		return strings.Contains(out, "peer      greeter+@alpha.test\n") && strings.Contains(out, "alice@alpha.test, as the peer sees it"), out
	})
	// Nothing but its uid makes it that: root in a container is root of the host, and not of this socket.
	out, err := m.try(asRoot + " 'podman run --rm --pull=never --cgroups=disabled --network=none " +
		"-v /run/shared-altsd-greeter:/run/shared-altsd:ro --user 0 localhost/shared-altsd:local whoami'")
	if err == nil || !strings.Contains(out, "uid 0 may not use this socket") {
		t.Errorf("root in a container: %v %s", err, out)
	}
	inside := m.sh(t, "podman inspect --format '{{.Config.User}} {{.HostConfig.ReadonlyRootfs}} {{.EffectiveCaps}} {{len .Mounts}}' systemd-greeter")
	if inside != "41001:41001 true [] 1\n" {
		t.Errorf("the container: %s", inside)
	}
	fmt.Printf("\n%s in a Quadlet of %s", "greeter+@alpha.test", m.sh(t, "podman --version"))
}
