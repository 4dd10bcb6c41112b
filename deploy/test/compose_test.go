//go:build deploy

package deploytest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/shared-altsd/shared-altsd/internal/testca"
)

// A fleet is the containers of deploy/compose.yaml.
type fleet struct {
	t       *testing.T
	project string
	hosts   string // directory with one directory a machine
	pki     *pki
	ids     map[string]string // container of each service
}

// accounts are those of the applications in deploy/compose.yaml.
var accounts = map[string]struct {
	name string
	uid  int
}{"alpha": {"alice", 20001}, "beta": {"bob", 20002}, "gamma": {"mallory", 20003}}

// composeConfig is the config file that docs/install.md prints for alpha, made another machine's, with a list of revoked
// certificates and less patience.
func composeConfig(t *testing.T, uid int) []byte {
	_, conf, _ := strings.Cut(composeRecipe(t).step(t, "the files of a machine", "20001", fmt.Sprint(uid)), "shared-altsd.conf <<'END'\n")
	conf, _, found := strings.Cut(conf, "END\n")
	if !found {
		t.Fatal("docs/install.md has no config file of a machine")
	}
	return []byte(conf + "crl = /etc/shared-altsd/ca.crl\nhandshake-timeout = 5s\n")
}

func composeRecipe(t *testing.T) *recipe { return readRecipe(t, "docs/install.md", "By hand") }

func newFleet(t *testing.T) *fleet {
	f := &fleet{t: t, project: fmt.Sprintf("altsd%d", os.Getpid()), hosts: t.TempDir(), pki: newPKI(t),
		ids: map[string]string{}}
	for _, host := range []string{"alpha", "beta", "gamma"} {
		dir := filepath.Join(f.hosts, host)
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		ca := f.pki.ca
		if host == "gamma" {
			ca = f.pki.other
		}
		f.certificate(host, f.pki.issue(ca, host+".test"))
		f.file(host, "ca.pem", f.pki.ca.PEM())
		f.file(host, "ca.crl", f.pki.crl())
		a := accounts[host]
		f.file(host, "shared-altsd.conf", composeConfig(t, a.uid))
		f.file(host, "passwd", fmt.Appendf(nil, "%s:x:%d:%d::/:/\n", a.name, a.uid, a.uid))
	}
	// t.TempDir is closed to others; the daemon reaches its own directory by the mount.
	t.Cleanup(f.down)
	f.compose("up", "-d")
	for _, host := range []string{"alpha", "beta", "gamma"} {
		for _, part := range []string{"daemon", "app"} {
			f.ids[host+"-"+part] = strings.TrimSpace(f.compose("ps", "-q", host+"-"+part))
		}
		f.waitServing(host)
	}
	return f
}

// compose runs docker-compose or, where only that is installed, docker compose.
func (f *fleet) compose(args ...string) string {
	f.t.Helper()
	name, first := "docker-compose", []string(nil)
	if _, err := exec.LookPath(name); err != nil {
		name, first = "docker", []string{"compose"}
	}
	os.Setenv("ALTSD_HOSTS", f.hosts)
	return must(f.t, name, append(append(first, "-f", "deploy/compose.yaml", "-p", f.project), args...)...)
}

func (f *fleet) down() {
	if f.t.Failed() {
		f.t.Log(f.compose("logs", "--no-color", "--tail", "60"))
	}
	f.compose("down", "-v", "-t", "5")
}

func (f *fleet) file(host, name string, data []byte) {
	replace(f.t, filepath.Join(f.hosts, host, name), data, 0o644, 0)
}

func (f *fleet) certificate(host string, c *testca.Issued) {
	replace(f.t, filepath.Join(f.hosts, host, "machine.pem"), c.PEM(), 0o400, daemonUID)
}

// status asks a daemon about itself, in its own container and under its own uid.
func (f *fleet) status(host string) (daemonStatus, error) {
	out, err := command("docker", "exec", f.ids[host+"-daemon"], "/shared-altsd", "status", "--json")
	if out == "" {
		return daemonStatus{}, err
	}
	return decode[daemonStatus](f.t, out), nil
}

func (f *fleet) waitServing(host string) {
	f.t.Helper()
	waitFor(f.t, host+"'s daemon", func() (bool, string) {
		_, err := f.status(host)
		return err == nil, fmt.Sprint(err)
	})
}

// waitCertificate waits until a daemon has a certificate in force.
func (f *fleet) waitCertificate(t *testing.T, host string, c *testca.Issued) {
	t.Helper()
	want := fmt.Sprintf("%x", c.Cert.SerialNumber)
	waitFor(t, host+"'s new certificate", func() (bool, string) {
		s, err := f.status(host)
		return err == nil && s.Certificate.Serial == want, fmt.Sprintf("%+v %v", s, err)
	})
}

// waitReloads waits until a daemon has reloaded more often than before.
func (f *fleet) waitReloads(t *testing.T, host string, before daemonStatus) {
	t.Helper()
	waitFor(t, host+"'s reload", func() (bool, string) {
		s, err := f.status(host)
		return err == nil && s.Reloads.Succeeded > before.Reloads.Succeeded, fmt.Sprintf("%+v %v", s.Reloads, err)
	})
}

func account(host string) string { return accounts[host].name + "@" + host + ".test" }

func (f *fleet) callArgs(from, to string, more ...string) []string {
	return append([]string{"exec", f.ids[from+"-app"], "/app", "call", "--daemon-uid", fmt.Sprint(daemonUID), "--address",
		to + ".test:7500", "--target", account(to)}, more...)
}

// call makes channels from one machine's application to another's.
func (f *fleet) call(from, to string, more ...string) *background {
	return start("docker", f.callArgs(from, to, more...)...)
}

// works expects a channel, with the right names on both sides.
func (f *fleet) works(t *testing.T, from, to string) {
	t.Helper()
	r := f.call(from, to).report(t)
	if r.Failed != 0 || r.Peer != account(to) || r.SeenAs != account(from) {
		t.Fatalf("%s to %s: %v, peer %q, seen as %q", from, to, r, r.Peer, r.SeenAs)
	}
}

var handshakeID = regexp.MustCompile(`; handshake [0-9a-f]{16}`)

// refused expects no channel, for a reason in the words of the application that called.
func (f *fleet) refused(t *testing.T, from, to, reason string, more ...string) string {
	t.Helper()
	r := f.call(from, to, more...).report(t)
	if r.Failed != 1 || r.Channels != 1 {
		t.Fatalf("%s to %s was not refused: %v", from, to, r)
	}
	for text := range r.Errors {
		if strings.Contains(text, reason) {
			_, text, _ = strings.Cut(handshakeID.ReplaceAllString(text, ""), "altscreds: handshake: ")
			return strings.Trim(strings.TrimPrefix(text, "shared-altsd: "), `"`)
		}
	}
	t.Fatalf("%s to %s was refused, but not for %q: %v", from, to, reason, r)
	return ""
}

func TestCompose(t *testing.T) {
	f := newFleet(t)
	tab := &table{title: "Two machines, alpha and beta, and gamma with a foreign CA, under docker compose"}
	defer tab.print()

	tab.row(t, "containers are closed", f.closed)
	tab.row(t, "identities both ways", func(t *testing.T) string {
		f.works(t, "alpha", "beta")
		f.works(t, "beta", "alpha")
		return account("alpha") + " and " + account("beta") + ", each seen by the other"
	})
	tab.row(t, "foreign machine calls", func(t *testing.T) string { return f.refused(t, "gamma", "beta", "(unknown_ca)") })
	tab.row(t, "foreign machine is called", func(t *testing.T) string {
		return f.refused(t, "alpha", "gamma",
			"(unknown_ca)")
	})
	tab.row(t, "wrong account is asked for", func(t *testing.T) string {
		return f.refused(t, "alpha", "beta", "(target_mismatch)", "--target", "root@beta.test")
	})
	tab.row(t, "uid outside the socket's", func(t *testing.T) string {
		args := f.callArgs("alpha", "beta")
		out, _ := command("docker", append([]string{"exec", "-u", "20009"}, args[1:]...)...)
		if !strings.Contains(out, "uid 20009 may not use this socket") {
			t.Fatal(out)
		}
		return "uid 20009 may not use this socket"
	})
	tab.row(t, "revoked certificate", f.revoked)
	tab.row(t, "expired certificate, own", f.expired)
	tab.row(t, "expired certificate, peer's", f.expiredIntermediate)
	tab.row(t, "certificates rotate under load", f.rotation)
	tab.row(t, "daemon killed and started", f.killed)
	tab.row(t, "network cut and healed", f.cut)
	tab.row(t, "paused in the middle of a handshake", f.paused)
}

// closed looks at what docker made of the file: who runs, with what rights, what is in the images.
func (f *fleet) closed(t *testing.T) string {
	for service, id := range f.ids {
		type container struct {
			Config     struct{ User string }
			HostConfig struct {
				ReadonlyRootfs bool
				CapDrop        []string
				NetworkMode    string
				SecurityOpt    []string
				Privileged     bool
			}
			Mounts []struct{ Destination string }
			Image  string
		}
		c := decode[[]container](t, must(t, "docker", "inspect", id))[0]
		uid, _, _ := strings.Cut(c.Config.User, ":")
		h := c.HostConfig
		if uid == "" || uid == "0" || !h.ReadonlyRootfs || fmt.Sprint(h.CapDrop) != "[ALL]" || h.Privileged ||
			!strings.Contains(fmt.Sprint(h.SecurityOpt), "no-new-privileges") {
			t.Errorf("%s: user %q, %+v", service, c.Config.User, h)
		}
		daemon := strings.HasSuffix(service, "-daemon")
		if daemon != (h.NetworkMode == "none") {
			t.Errorf("%s has network %q", service, h.NetworkMode)
		}
		if !daemon && (len(c.Mounts) != 1 || c.Mounts[0].Destination != "/run/shared-altsd") {
			t.Errorf("%s shares more than the socket: %+v", service, c.Mounts)
		}
		// From scratch: the program, and in the daemon's image the mount point of the socket; the rest is docker's own.
		files := strings.Fields(must(t, "sh", "-c", "docker export "+id+" | tar -t"))
		for _, file := range files {
			known := regexp.MustCompile(`^(app|shared-altsd|run/.*|dev/.*|proc/|sys/|etc/.*|\.dockerenv)$`)
			if !known.MatchString(file) {
				t.Errorf("%s has the file %s", service, file)
			}
		}
	}
	return "non-root, read-only, no capabilities, one file each; daemons without any network"
}

func (f *fleet) revoked(t *testing.T) string {
	before, err := f.status("alpha")
	if err != nil {
		t.Fatal(err)
	}
	beta := f.pki.issue(f.pki.ca, "beta.test")
	f.certificate("beta", beta)
	f.waitCertificate(t, "beta", beta)
	f.works(t, "alpha", "beta")
	f.file("alpha", "ca.crl", f.pki.crl(beta.Cert.SerialNumber))
	f.waitReloads(t, "alpha", before)
	said := f.refused(t, "alpha", "beta", "(certificate_revoked)")
	f.refused(t, "beta", "alpha", "(certificate_revoked)")

	renewed := f.pki.issue(f.pki.ca, "beta.test")
	f.certificate("beta", renewed)
	f.waitCertificate(t, "beta", renewed)
	f.works(t, "alpha", "beta")
	f.works(t, "beta", "alpha")
	return said + "; a new one works again"
}

// expired: a daemon does not even speak with a certificate that is over. It says so to its own applications, and a
// reload from good to expired is refused.
func (f *fleet) expired(t *testing.T) string {
	f.certificate("beta", f.pki.issue(f.pki.ca, "beta.test", -time.Hour))
	waitFor(t, "the refusal of the reload", func() (bool, string) {
		s, err := f.status("beta")
		return err == nil && strings.Contains(s.Reloads.LastError, "has expired"), fmt.Sprintf("%+v %v", s.Reloads, err)
	})
	f.works(t, "beta", "alpha") // with the one before
	f.restart("beta")
	said := f.refused(t, "beta", "alpha", "(own_certificate)")
	f.refused(t, "alpha", "beta", "(own_certificate)")
	f.heal(t)
	return said
}

// expiredIntermediate: the leaf is good, so its daemon speaks; the peer finds what is over.
func (f *fleet) expiredIntermediate(t *testing.T) string {
	f.certificate("beta", f.pki.issue(f.pki.intermediate, "beta.test"))
	f.restart("beta")
	said := f.refused(t, "alpha", "beta", "(certificate_expired)")
	f.refused(t, "beta", "alpha", "(certificate_expired)")
	f.heal(t)
	return said
}

func (f *fleet) restart(host string) {
	must(f.t, "docker", "restart", "-t", "5", f.ids[host+"-daemon"])
	f.waitServing(host)
}

// heal gives beta a good certificate without a restart.
func (f *fleet) heal(t *testing.T) {
	t.Helper()
	c := f.pki.issue(f.pki.ca, "beta.test")
	f.certificate("beta", c)
	f.waitCertificate(t, "beta", c)
	f.works(t, "alpha", "beta")
	f.works(t, "beta", "alpha")
}

func (f *fleet) rotation(t *testing.T) string {
	load := []*background{
		f.call("alpha", "beta", "--for", "12s", "--workers", "4"), f.call("beta", "alpha", "--for", "12s", "--workers", "4"),
	}
	for range 3 {
		for _, host := range []string{"alpha", "beta"} {
			c := f.pki.issue(f.pki.ca, host+".test")
			f.certificate(host, c)
			f.waitCertificate(t, host, c)
		}
	}
	total := 0
	for _, l := range load {
		r := l.report(t)
		if r.Failed > 0 || r.Channels < 20 {
			t.Errorf("under rotation: %v", r)
		}
		total += r.Channels
	}
	return fmt.Sprintf("3 times on both, %d new channels meanwhile, none failed", total)
}

func (f *fleet) killed(t *testing.T) string {
	kept := f.call("alpha", "beta", "--for", "10s", "--keep", "--pause", "20ms")
	waitFor(t, "the channel", func() (bool, string) {
		select {
		case <-kept.end:
			return true, ""
		default:
		}
		out, err := command("docker", "top", f.ids["alpha-app"])
		return strings.Contains(out, "--keep"), fmt.Sprint(out, err)
	})
	time.Sleep(time.Second) // so that the channel is made before its daemon is gone
	must(t, "docker", "kill", "-s", "KILL", f.ids["beta-daemon"])
	f.refused(t, "beta", "alpha", "the local daemon at")
	must(t, "docker", "start", f.ids["beta-daemon"])
	f.waitServing("beta")
	f.works(t, "alpha", "beta")
	f.works(t, "beta", "alpha")
	r := kept.report(t)
	if r.Failed > 0 || r.Channels < 20 {
		t.Errorf("the established channel: %v", r)
	}
	return fmt.Sprintf("an established channel carried on (%d calls, none failed), new ones as soon as it was back",
		r.Channels)
}

func (f *fleet) cut(t *testing.T) string {
	network := f.project + "_wire"
	kept := f.call("alpha", "beta", "--for", "15s", "--keep", "--pause", "100ms", "--timeout", "1s")
	time.Sleep(time.Second)
	must(t, "docker", "network", "disconnect", network, f.ids["beta-app"])
	f.refused(t, "alpha", "beta", "", "--timeout", "4s")
	time.Sleep(4 * time.Second) // longer than what the kept channel's calls may take
	must(t, "docker", "network", "connect", "--alias", "beta.test", network, f.ids["beta-app"])
	waitFor(t, "the healed network", func() (bool, string) {
		out, err := command("docker", f.callArgs("alpha", "beta", "--timeout", "4s")...)
		return err == nil, out
	})
	f.works(t, "beta", "alpha")
	r := kept.report(t)
	// What was under way fails; the same gRPC channel then connects anew by itself.
	if r.Channels-r.Failed < 5 || r.Failed == 0 {
		t.Errorf("the channel over the cut: %v", r)
	}
	return fmt.Sprintf("calls failed while it was cut (%d of %d), the same channel and new ones work again", r.Failed,
		r.Channels)
}

func (f *fleet) paused(t *testing.T) string {
	must(t, "docker", "pause", f.ids["beta-daemon"])
	resumed := false
	defer func() {
		if !resumed {
			command("docker", "unpause", f.ids["beta-daemon"])
		}
	}()
	stuck := f.call("alpha", "beta")
	waitFor(t, "the handshake to be under way", func() (bool, string) {
		s, err := f.status("alpha")
		return err == nil && s.Initiator.InFlight == 1, fmt.Sprintf("%+v %v", s, err)
	})
	f.works(t, "alpha", "alpha") // others are not held up
	r := stuck.report(t)
	if r.Failed != 1 || !strings.Contains(fmt.Sprint(r.Errors), "(timed_out)") {
		t.Errorf("the handshake with the paused machine: %v", r)
	}
	resumed = true
	must(t, "docker", "unpause", f.ids["beta-daemon"])
	f.works(t, "alpha", "beta")
	f.works(t, "beta", "alpha")
	return "timed out with the reason, others were served meanwhile, works again after it"
}
