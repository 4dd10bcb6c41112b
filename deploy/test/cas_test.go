//go:build deploy

package deploytest

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/shared-altsd/shared-altsd/internal/purpose"
)

// A caTest is two machines with the package, which get certificates of one CA after the other, by the recipes of
// docs/certificates.md.
type caTest struct {
	alpha, beta *machine
	files       *recipe // what all CAs have in common
}

const (
	certificates = "docs/certificates.md"
	configFile   = "/etc/shared-altsd/shared-altsd.conf"
	caPlace      = "/root/ca" // where alpha is the CA
	// What a machine is configured with once all certificates have the purpose.
	purposeLine = "require-eku = shared-altsd"
)

// TestSystemdCAs has daemons live with the certificates of the usual CAs: a handshake each way, a renewal that the daemon
// takes by itself, a revocation where the CA knows that.
func TestSystemdCAs(t *testing.T) {
	image := strings.TrimSpace(must(t, "deploy/test/rootfs.sh"))
	net := network(t)
	c := &caTest{alpha: boot(t, image, net, "alpha", "deb"), beta: boot(t, image, net, "beta", "deb"),
		files: readRecipe(t, certificates, "The three files").whole(t)}
	tab := &table{title: "Certificates by the recipes of " + certificates}
	defer tab.print()
	tab.row(t, "dev-ca, no package", c.tryIt)
	for _, m := range c.both() {
		m.install(t, "dist")
		m.sh(t, "cp "+configFile+" /root/conf")
		m.sh(t, c.files.step(t, "on each machine, once: the script"))
		m.sh(t, "systemd-run -q --unit pong -p Restart=always -p RestartSec=200ms -p StartLimitIntervalSec=0 /usr/bin/shared-altsd pong :7400")
	}
	tab.row(t, "openssl", c.openssl)
	tab.row(t, "easy-rsa", c.easyRSA)
	tab.row(t, "cfssl", c.cfssl)
	tab.row(t, "step-ca", c.stepCA)
	tab.row(t, "certmonger", c.certmonger)
}

func (c *caTest) both() []*machine { return []*machine{c.alpha, c.beta} }

// tryIt is the first section: two machines by hand, with a throwaway CA.
func (c *caTest) tryIt(t *testing.T) string {
	r := readRecipe(t, "docs/install.md", "Try it on two machines").whole(t)
	for _, m := range c.both() {
		m.copyIn(t, "dist/root/shared-altsd")
		m.sh(t, "mkdir -p /root/bin; cp /root/shared-altsd /root/bin; install -m 755 /root/shared-altsd /usr/local/bin/shared-altsd")
	}
	c.alpha.sh(t, "cd /root\n"+r.step(t, "on one machine", "make build\n", "", "a.example.com", "alpha.test", "b.example.com", "beta.test"))
	for _, m := range c.both() {
		host := m.name + ".test"
		for _, name := range []string{"ca.pem", host + ".pem"} {
			carry(t, c.alpha, "/root/ca/"+name, m, "/root/"+name)
		}
		m.sh(t, r.step(t, "on each machine, as root", "HOST", host, "shared-altsd serve",
			"systemd-run -q --unit by-hand --working-directory=/root /usr/local/bin/shared-altsd serve"))
	}
	c.alpha.sh(t, r.step(t, "on a.example.com", "shared-altsd pong", "systemd-run -q --unit pong-by-hand -p User=daemon /usr/local/bin/shared-altsd pong"))
	ping := r.step(t, "on b.example.com", "a.example.com", "alpha.test")
	waitFor(t, "the ping", func() (bool, string) {
		out, err := c.beta.try(ping)
		return err == nil && strings.Contains(out, "root@beta.test"), out
	})
	for _, m := range c.both() {
		m.sh(t, "systemctl stop by-hand pong-by-hand || true; rm -rf /root/ca /root/*.pem /root/bin /usr/local/bin/shared-altsd; hash -r")
	}
	return "a ping between two machines"
}

// fresh leaves nothing of the CA before.
func (c *caTest) fresh(t *testing.T) {
	t.Helper()
	for _, m := range c.both() {
		m.sh(t, `systemctl -q disable --now shared-altsd.service shared-altsd.socket shared-altsd-renew.path
cd /etc/shared-altsd; rm -rf machine.* ca.* partner.pem /var/lib/shared-altsd; cp /root/conf `+configFile)
	}
	c.alpha.sh(t, "rm -rf "+caPlace+"; mkdir "+caPlace)
}

// carry brings a file from one machine to the other, as an administrator would.
func carry(t *testing.T, from *machine, path string, to *machine, place string) {
	t.Helper()
	to.put(t, place, []byte(from.sh(t, "cat "+path)), "0600")
}

// atCA runs a step at the CA.
func (c *caTest) atCA(t *testing.T, step string) {
	t.Helper()
	c.alpha.sh(t, "cd "+caPlace+"\n"+step)
}

// sign has the CA answer the request of a machine.
func (c *caTest) sign(t *testing.T, m *machine, step string) {
	t.Helper()
	carry(t, m, "/etc/shared-altsd/machine.csr", c.alpha, caPlace+"/machine.csr")
	c.atCA(t, "H="+m.name+".test\n"+step)
	for _, name := range []string{"machine.crt", "ca.crt"} {
		carry(t, c.alpha, caPlace+"/"+name, m, "/etc/shared-altsd/"+name)
	}
}

// begin starts the daemons on the three files of each machine, and has each see the other.
func (c *caTest) begin(t *testing.T, config ...string) {
	t.Helper()
	for _, m := range c.both() {
		for _, line := range config {
			m.sh(t, "echo '"+line+"' >>"+configFile)
		}
		m.sh(t, c.files.step(t, "on each machine, when the three files are there"))
		if modes := m.sh(t, "cd /etc/shared-altsd; stat -c '%a %U %n' machine.pem machine.key ca.pem"); modes !=
			"600 root machine.pem\n600 root machine.key\n644 root ca.pem\n" {
			t.Errorf("%s has\n%s", m.name, modes)
		}
		waitFor(t, m.name+"'s daemon", func() (bool, string) {
			out, err := m.try("shared-altsd status")
			return err == nil, out
		})
	}
	c.works(t)
}

func (c *caTest) works(t *testing.T) {
	t.Helper()
	for _, d := range [][2]*machine{{c.alpha, c.beta}, {c.beta, c.alpha}} {
		waitFor(t, d[0].name+"'s ping", func() (bool, string) {
			out, err := d[0].try("shared-altsd ping " + d[1].name + ".test:7400")
			return err == nil && strings.Contains(out, "root@"+d[1].name+".test"), out
		})
	}
}

// inForce returns the serial number of the certificate that a daemon has in force.
func inForce(t *testing.T, m *machine) string { t.Helper(); return m.status(t).Certificate.Serial }

// renewed waits until a daemon has another certificate than before in force: the one in machine.crt.
func (c *caTest) renewed(t *testing.T, m *machine, before string) {
	t.Helper()
	waitFor(t, m.name+"'s renewal", func() (bool, string) {
		now := inForce(t, m)
		file := strings.ToLower(strings.TrimSpace(m.sh(t, "openssl x509 -in /etc/shared-altsd/machine.crt -noout -serial")))
		return now != before && strings.TrimLeft(strings.TrimPrefix(file, "serial="), "0") == now, now + " in force, file: " + file
	})
	c.works(t)
}

// revoked waits until alpha refuses beta.
func (c *caTest) revoked(t *testing.T) {
	t.Helper()
	waitFor(t, "alpha to see the revocation", func() (bool, string) {
		out, err := c.alpha.try("shared-altsd ping beta.test:7400")
		return err != nil && strings.Contains(out, "certificate_revoked"), out
	})
}

// byHand is the whole way with a CA that is a program, run by hand.
func (c *caTest) byHand(t *testing.T, section, revocation, config string) {
	c.fresh(t)
	r := readRecipe(t, certificates, section).whole(t)
	list := func() {
		t.Helper()
		c.atCA(t, r.step(t, "the list"))
		for _, m := range c.both() {
			carry(t, c.alpha, caPlace+"/ca.crl", m, "/root/ca.crl")
			m.sh(t, "cd /root\n"+c.files.step(t, "on each machine, for each list"))
		}
	}
	c.atCA(t, r.step(t, "the CA, once"))
	for _, m := range c.both() {
		m.sh(t, c.files.step(t, "on each machine: a key and a request"))
		c.sign(t, m, r.step(t, "for each request"))
	}
	list()
	lines := []string{"crl = /etc/shared-altsd/ca.crl"}
	if config != "" {
		lines = append(lines, config)
	}
	c.begin(t, lines...)

	before := inForce(t, c.beta)
	time.Sleep(time.Second) // easy-rsa's requests have the second in their names
	c.sign(t, c.beta, r.step(t, "for each request"))
	c.beta.sh(t, "altsd-install")
	c.renewed(t, c.beta, before)

	// machine.crt at the CA is the one that was signed last: beta's.
	revoke := r.step(t, "to revoke")
	if revocation != "" {
		name := strings.TrimSpace(c.alpha.sh(t, "basename $(ls -t "+caPlace+"/machines/pki/issued | head -1) .crt"))
		revoke = r.step(t, "to revoke", revocation, name)
	}
	c.atCA(t, revoke)
	list()
	c.revoked(t)
}

func (c *caTest) openssl(t *testing.T) string {
	c.byHand(t, "openssl", "", purposeLine)
	return "with the purpose; renewed, revoked"
}

func (c *caTest) easyRSA(t *testing.T) string {
	c.byHand(t, "easy-rsa", "NAME", purposeLine)
	return "with the purpose; renewed, revoked"
}

func (c *caTest) cfssl(t *testing.T) string {
	c.byHand(t, "cfssl", "", "require-eku = 1.3.6.1.5.5.7.3.5")
	return "with another purpose; renewed, revoked"
}

// stepCA: the CA is a service, which signs, renews and revokes when it is asked, and has a list of its own.
func (c *caTest) stepCA(t *testing.T) string {
	c.fresh(t)
	r := readRecipe(t, certificates, "step-ca").whole(t)
	for _, m := range c.both() {
		m.copyIn(t, "dist/tools/step")
		m.sh(t, "install -m 755 /root/step /usr/local/bin/step; echo secret >/root/password")
	}
	c.alpha.copyIn(t, "dist/tools/step-ca")
	c.alpha.sh(t, `install -m 755 /root/step-ca /usr/local/bin/step-ca; export STEPPATH=/root/stepca
step ca init --deployment-type standalone --name Example --dns alpha.test --address :9443 --provisioner admin \
	--password-file /root/password 2>/dev/null
cat >/root/crl <<'END'
`+r.step(t, "in ca.json of the CA")+`END
cat >/root/options <<'END'
`+r.step(t, "in the provisioner of ca.json")+`END
sed -i -e '1r /root/crl' -e '/"type": "JWK"/r /root/options' /root/stepca/config/ca.json
systemd-run -q --unit step-ca -p Environment=STEPPATH=/root/stepca step-ca --password-file /root/password /root/stepca/config/ca.json`)
	waitFor(t, "step-ca", func() (bool, string) {
		out, err := c.alpha.try("curl -sSk https://alpha.test:9443/health")
		return err == nil, out
	})
	fingerprint := strings.TrimSpace(c.alpha.sh(t, "step certificate fingerprint /root/stepca/certs/root_ca.crt"))
	const url, here = "https://ca.example.com", "https://alpha.test:9443"
	for _, m := range c.both() {
		m.sh(t, r.step(t, "on each machine", url, here, "FINGERPRINT", fingerprint,
			"step ca certificate", "step ca certificate --provisioner-password-file /root/password"))
		m.sh(t, r.step(t, "on each machine, once: the list", url, here))
		waitFor(t, "the list", func() (bool, string) {
			out, err := m.try("stat -c %a /etc/shared-altsd/ca.crl")
			return err == nil && out == "644\n", out
		})
	}
	c.begin(t, "crl = complete=/etc/shared-altsd/ca.crl", purposeLine)

	before := inForce(t, c.beta)
	c.beta.sh(t, r.step(t, "on each machine, once: a service that renews", "--daemon", "--daemon --renew-period 5s"))
	c.renewed(t, c.beta, before)
	c.beta.sh(t, "systemctl stop altsd-renew.service")

	c.beta.sh(t, "cd /etc/shared-altsd\n"+r.step(t, "to revoke"))
	c.alpha.sh(t, "systemctl start altsd-list.service") // the timer would within the hour
	c.revoked(t)
	for _, m := range c.both() {
		m.sh(t, "systemctl -q disable --now altsd-list.timer")
	}
	return "renewed by its own service, revoked, its list fetched by a timer"
}

// certmonger has its own CA on each machine, in FreeIPA's place: the way from certmonger to the daemon is the same.
func (c *caTest) certmonger(t *testing.T) string {
	c.fresh(t)
	r := readRecipe(t, certificates, "FreeIPA").whole(t)
	// No server is here; its profile is a whole file at least.
	c.atCA(t, r.step(t, "the profile")+"grep -q '^policyset.machine.1.*O=EXAMPLE.COM$' freeipa.cfg; ! grep -E 'DOMAIN|REALM' freeipa.cfg")
	for _, m := range c.both() {
		// An enrolled host knows its realm.
		m.sh(t, `printf '[libdefaults]\ndefault_realm = TEST\n' >/etc/krb5.conf; systemctl start certmonger.service`)
		m.sh(t, r.step(t, "on each machine", "ipa-getcert request", "getcert request -v -c local",
			"-T sharedAltsd", "-U 1.3.6.1.5.5.7.3.1 -U "+purpose.Dotted)) // the profile's in the request
	}
	carry(t, c.alpha, "/etc/shared-altsd/ca.crt", c.beta, "/etc/shared-altsd/partner.pem")
	carry(t, c.beta, "/etc/shared-altsd/ca.crt", c.alpha, "/etc/shared-altsd/partner.pem")
	for _, m := range c.both() {
		m.sh(t, "chmod 644 /etc/shared-altsd/partner.pem")
	}
	c.begin(t, "ca = /etc/shared-altsd/partner.pem", purposeLine)
	before := inForce(t, c.beta)
	modes := c.beta.sh(t, "stat -c '%a %U' /etc/shared-altsd/ca.crt")
	c.beta.sh(t, "getcert resubmit -w -f /etc/shared-altsd/machine.crt")
	c.renewed(t, c.beta, before)
	return fmt.Sprintf("renewed by certmonger, which writes ca.crt as %s", strings.TrimSpace(modes))
}
