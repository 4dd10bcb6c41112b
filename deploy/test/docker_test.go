//go:build deploy

package deploytest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestComposeByHand brings up deploy/compose.yaml by the commands of docs/install.md.
func TestComposeByHand(t *testing.T) {
	r := composeRecipe(t).whole(t)
	dir := t.TempDir() // in the work tree's place
	for name, target := range map[string]string{"deploy": "deploy", "bin/shared-altsd": "dist/root/shared-altsd"} {
		path, err := filepath.Abs(filepath.Join(root, target))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(path, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("COMPOSE_PROJECT_NAME", fmt.Sprintf("altsdhand%d", os.Getpid()))
	sh := func(script string) string {
		t.Helper()
		cmd := exec.Command("sh", "-ec", script)
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return string(out)
	}
	sh(r.step(t, "the images", "make build images\n", "")) // make test-deploy has made them
	for host, a := range accounts {
		sh(r.step(t, "the files of a machine", "alpha", host, "alice", a.name, "20001", fmt.Sprint(a.uid)))
	}
	t.Cleanup(func() { sh(`export ALTSD_HOSTS="$PWD/hosts"` + "\n" + r.step(t, "down")) })
	up, ask, found := strings.Cut(r.step(t, "up"), "up -d\n")
	if !found {
		t.Fatal(up)
	}
	sh(up + "up -d\n")
	waitFor(t, "the daemons and applications", func() (bool, string) {
		cmd := exec.Command("sh", "-ec", `export ALTSD_HOSTS="$PWD/hosts"`+"\n"+ask)
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		return err == nil && strings.Contains(string(out), `"peer":"bob@beta.test"`) &&
			strings.Contains(string(out), `"seen_as":"alice@alpha.test"`), string(out)
	})
}

// TestDockerRecipe runs containers by the recipes of docs/clients/exec.md. The host that has the daemon and the account app1 is a
// container itself.
func TestDockerRecipe(t *testing.T) {
	image := strings.TrimSpace(must(t, "deploy/test/rootfs.sh"))
	pki := newPKI(t)
	host := t.TempDir() // what is below /run/shared-altsd-app1 and /etc/shared-altsd there
	if err := os.Chmod(host, 0o755); err != nil {
		t.Fatal(err)
	}
	replace(t, filepath.Join(host, "machine.pem"), pki.issue(pki.ca, "alpha.test").PEM(), 0o600, 0)
	replace(t, filepath.Join(host, "ca.pem"), pki.ca.PEM(), 0o644, 0)
	program, err := filepath.Abs(filepath.Join(root, "dist/root/shared-altsd"))
	if err != nil {
		t.Fatal(err)
	}
	app, err := filepath.Abs(filepath.Join(root, "dist/image/app"))
	if err != nil {
		t.Fatal(err)
	}
	account, _, _ := strings.Cut(readRecipe(t, "docs/install.md", "Sockets for containers").step(t, "an account"), "\n")
	daemon := strings.TrimSpace(must(t, "docker", "run", "-d", "-v", host+":/run/shared-altsd-app1", "-v",
		program+":/usr/bin/shared-altsd:ro", image, "sh", "-ec", account+`
cd /run/shared-altsd-app1; exec shared-altsd serve --credentials machine.pem --ca ca.pem --socket $PWD/socket,uids=40001`))
	t.Cleanup(func() {
		if t.Failed() {
			log, _ := command("sh", "-c", "docker logs "+daemon+" 2>&1")
			t.Log(log)
		}
		command("docker", "rm", "-f", "-v", daemon)
	})
	waitFor(t, "the daemon", func() (bool, string) {
		_, err := os.Stat(filepath.Join(host, "socket"))
		return err == nil, fmt.Sprint(err)
	})
	must(t, "sh", "-ec", readRecipe(t, "docs/clients/exec.md", "systemd").step(t, "the files to mount", "cd /etc/shared-altsd", "cd "+host))

	r := readRecipe(t, "docs/clients/exec.md", "Docker").whole(t)
	// talk is COMMAND: a server and a client, whose report is to say something.
	talk := func(flags, want string) string {
		return fmt.Sprintf(`sh -c '/app serve %[1]s --address 127.0.0.1:7500 & i=0
until /app call %[1]s --address 127.0.0.1:7500 --target app1@alpha.test >/tmp/report; grep "%[2]s" /tmp/report; do
	i=$((i+1)); [ $i -lt 50 ] || { cat /tmp/report; exit 1; }; sleep 0.2; done'`, flags, want)
	}
	run := func(script string) (string, error) {
		return command("sh", "-ec", strings.Replace(script, "docker run", "docker run --rm -v "+app+":/app:ro", 1))
	}
	const met = `peer.:.app1@alpha.test.,.seen_as.:.app1@alpha.test`
	recipe := func(command string) string {
		return r.step(t, "a program with altscreds", "/run/shared-altsd-app1", host, "IMAGE", image, "COMMAND", command)
	}
	if out, err := run(recipe(talk("", met))); err != nil {
		t.Errorf("altscreds: %v\n%s", err, out)
	}
	stock := r.step(t, "an unchanged gRPC library", "/run/shared-altsd-app1", host, "/etc/shared-altsd", host,
		"-v /usr/bin/shared-altsd:", "-v "+program+":", "IMAGE", image, "COMMAND", talk("--stock", met))
	if _, err := os.Stat("/sys/class/dmi"); err != nil {
		stock = strings.Replace(stock, "docker run", "docker run --tmpfs /sys/class", 1)
	}
	if out, err := run(stock); err != nil {
		t.Errorf("grpc-go's own credentials: %v\n%s", err, out)
	}
	// Without --user the container is root of the host, and is told what to do about it.
	const refusal = "uid 0 may not use this socket.*--user"
	if out, err := run(strings.Replace(recipe(talk("", refusal)), "--user 40001:40001", "", 1)); err != nil {
		t.Errorf("root in a container: %v\n%s", err, out)
	}
}
