//go:build deploy

package deploytest

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/shared-altsd/shared-altsd/internal/testca"
)

// A pair is two machines, each with systemd and one account: alice on alpha, in /etc/passwd, and bob on beta, whom only
// SSSD knows. alpha has the deb, beta the rpm.
type pair struct {
	alpha, beta *machine
	pki         *pki
}

const (
	aliceUID = 30001
	bobUID   = 30002
)

// sssd serves a domain whose accounts no other part of the machine's user database has.
const sssd = `
mkdir -p /var/lib/extrausers
echo 'bob:x:30002:30002:Bob:/:/bin/sh' >/var/lib/extrausers/passwd
echo 'bob:x:30002:' >/var/lib/extrausers/group
sed -i 's/^passwd:.*/passwd: files sss/; s/^group:.*/group: files sss/' /etc/nsswitch.conf
cat >/etc/sssd/sssd.conf <<'END'
[sssd]
domains = test
services = nss
[nss]
[domain/test]
id_provider = proxy
proxy_lib_name = extrausers
auth_provider = none
END
chmod 600 /etc/sssd/sssd.conf
systemctl restart sssd
`

func newPair(t *testing.T) *pair {
	image := strings.TrimSpace(must(t, "deploy/test/rootfs.sh"))
	net := network(t)
	p := &pair{pki: newPKI(t), alpha: boot(t, image, net, "alpha", "deb"), beta: boot(t, image, net, "beta", "rpm")}
	p.alpha.sh(t, fmt.Sprintf("useradd -u %d -M -s /bin/sh alice", aliceUID))
	p.beta.sh(t, sssd)
	waitFor(t, "SSSD", func() (bool, string) {
		out, err := p.beta.try("getent passwd bob")
		return err == nil, out
	})
	for _, m := range []*machine{p.alpha, p.beta} {
		m.copyIn(t, "dist/image/app")
		m.sh(t, "install -m 755 /root/app /usr/local/bin/app")
	}
	return p
}

// certify gives a machine a certificate, without a reload, and its serial number.
func (p *pair) certify(t *testing.T, m *machine, ca *testca.CA, life ...time.Duration) string {
	t.Helper()
	c := p.pki.issue(ca, m.name+".test", life...)
	m.put(t, "/etc/shared-altsd/machine.pem", c.PEM(), "0600")
	return fmt.Sprintf("%x", c.Cert.SerialNumber)
}

func (p *pair) users() map[*machine]struct {
	name string
	uid  int
} {
	return map[*machine]struct {
		name string
		uid  int
	}{p.alpha: {"alice", aliceUID}, p.beta: {"bob", bobUID}}
}

func (p *pair) account(m *machine) string { return p.users()[m].name + "@" + m.name + ".test" }

// call makes channels from one machine's account to the server of the other's.
func (p *pair) call(from, to *machine, more ...string) *background {
	return start("docker", append([]string{"exec", "-u", fmt.Sprint(p.users()[from].uid), from.id, "app", "call",
		"--address", to.name + ".test:7500", "--target", p.account(to)}, more...)...)
}

func (p *pair) works(t *testing.T) {
	t.Helper()
	for _, d := range [][2]*machine{{p.alpha, p.beta}, {p.beta, p.alpha}} {
		r := p.call(d[0], d[1]).report(t)
		if r.Failed != 0 || r.Peer != p.account(d[1]) || r.SeenAs != p.account(d[0]) {
			t.Fatalf("%s to %s: %v, peer %q, seen as %q", d[0].name, d[1].name, r, r.Peer, r.SeenAs)
		}
	}
}

// underLoad does something while both machines make channels to each other, and one to itself, and gives how many were
// made; none may fail.
func (p *pair) underLoad(t *testing.T, seconds int, do func()) int {
	t.Helper()
	span := fmt.Sprintf("%ds", seconds)
	load := []*background{p.call(p.alpha, p.beta, "--for", span, "--workers", "4"),
		p.call(p.beta, p.alpha, "--for", span, "--workers", "4"), p.call(p.alpha, p.alpha, "--for", span, "--workers", "2")}
	time.Sleep(time.Second) // the load has begun
	do()
	total := 0
	for _, l := range load {
		r := l.report(t)
		if r.Failed > 0 || r.Channels < 20 {
			t.Errorf("under load: %v", r)
		}
		total += r.Channels
	}
	return total
}

func TestSystemd(t *testing.T) {
	p := newPair(t)
	tab := &table{title: "Two machines with systemd: alpha from the deb, beta from the rpm, whose account only SSSD knows"}
	defer tab.print()
	both := []*machine{p.alpha, p.beta}

	tab.row(t, "installed, no certificate yet", func(t *testing.T) string {
		for _, m := range both {
			said := m.install(t, "dist")
			if m.property(t, "shared-altsd.service", "ActiveState") != "inactive" || !strings.Contains(said, "machine.pem") {
				t.Errorf("%s: started without a certificate, or said nothing: %q", m.name, said)
			}
			m.sh(t, "id shared-altsd; man shared-altsd >/dev/null; systemd-analyze verify shared-altsd.service shared-altsd.socket")
			m.put(t, "/etc/shared-altsd/ca.pem", p.pki.ca.PEM(), "0644")
			p.certify(t, m, p.pki.ca)
			m.sh(t, "systemctl enable --now shared-altsd.service shared-altsd-renew.path")
			m.sh(t, fmt.Sprintf("systemd-run -q --unit app -p User=%s /usr/local/bin/app serve", p.users()[m].name))
		}
		return "the packages say what is missing; with it, enable --now starts the daemon"
	})
	if t.Failed() {
		return // nothing else can come out
	}
	tab.row(t, "unprivileged and confined", p.confined)
	tab.row(t, "a channel each way", func(t *testing.T) string {
		p.works(t)
		return p.account(p.alpha) + " and " + p.account(p.beta) + " (SSSD), each seen by the other"
	})
	tab.row(t, "status, whoami, ping, pong", p.tools)
	tab.row(t, "metrics by a socket of systemd's", p.metrics)
	tab.row(t, "restart under load", func(t *testing.T) string {
		n := p.underLoad(t, 8, func() {
			for _, m := range both {
				m.sh(t, "systemctl restart shared-altsd.service")
				m.sh(t, "systemctl restart shared-altsd.service")
			}
		})
		return fmt.Sprintf("twice on both, %d new channels meanwhile, none failed", n)
	})
	tab.row(t, "reload gives its outcome", p.reload)
	tab.row(t, "a renewed file is noticed", func(t *testing.T) string {
		p.alpha.waitSerial(t, p.certify(t, p.alpha, p.pki.ca))
		p.works(t)
		return "shared-altsd-renew.path reloaded by itself"
	})
	tab.row(t, "a refused renewal stands", p.refused)
	tab.row(t, "crash", p.crash)
	tab.row(t, "hang", p.hang)
	tab.row(t, "full disk for logs", p.fullDisk)
	tab.row(t, "expired certificate", p.expired)
	tab.row(t, "upgrade under load", func(t *testing.T) string {
		pids := map[*machine]string{}
		for _, m := range both {
			pids[m] = m.property(t, "shared-altsd.service", "MainPID")
			m.sh(t, "echo '# mine' >>/etc/shared-altsd/shared-altsd.conf")
		}
		n := p.underLoad(t, 15, func() {
			for _, m := range both {
				m.install(t, "dist/next")
			}
		})
		for _, m := range both {
			if m.property(t, "shared-altsd.service", "MainPID") == pids[m] {
				t.Errorf("%s: the daemon is still the old one", m.name)
			}
			m.sh(t, "grep -q '# mine' /etc/shared-altsd/shared-altsd.conf")
		}
		p.works(t)
		return fmt.Sprintf("deb and rpm, %d new channels meanwhile, none failed; own configuration kept", n)
	})
	tab.row(t, "remove and purge", p.remove)
}

func (p *pair) confined(t *testing.T) string {
	for _, m := range []*machine{p.alpha, p.beta} {
		pid := m.property(t, "shared-altsd.service", "MainPID")
		status := m.sh(t, "cat /proc/"+pid+"/status")
		for _, want := range []string{"CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1",
			"Seccomp:\t2"} {
			if !strings.Contains(status, want) {
				t.Errorf("%s: no %q in %s", m.name, want, status)
			}
		}
		if uid := strings.TrimSpace(m.sh(t, "id -u shared-altsd")); uid == "0" ||
			!strings.Contains(status, "Uid:\t"+uid+"\t"+uid) {
			t.Errorf("%s: the daemon does not run as shared-altsd", m.name)
		}
		// The key: neither the file nor the daemon's copy can be read by another account.
		user := p.users()[m].name
		for _, path := range []string{"/etc/shared-altsd/machine.pem", "/run/credentials/shared-altsd.service/machine.pem"} {
			m.sh(t, "test -s "+path)
			if out, err := m.try("setpriv --reuid=" + user + " --clear-groups cat " + path); err == nil ||
				strings.Contains(out, "PRIVATE") {
				t.Errorf("%s: %s reads %s", m.name, user, path)
			}
		}
		if links := m.sh(t, "cat /proc/"+pid+"/net/dev"); !strings.Contains(links, "lo:") || strings.Contains(links, "eth") {
			t.Errorf("%s: the daemon is on the machine's network: %s", m.name, links)
		}
	}
	score := p.alpha.sh(t, "systemd-analyze security shared-altsd.service | tail -1")
	return strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(score), "→"))
}

func (p *pair) tools(t *testing.T) string {
	status := p.alpha.sh(t, "setpriv --reuid=alice --regid=alice --clear-groups shared-altsd status")
	if !strings.Contains(status, "alice@alpha.test") || !strings.Contains(status, "are shown to root") {
		t.Error(status)
	}
	if out := p.alpha.sh(t, "shared-altsd check"); !strings.HasPrefix(out, "config    /etc/shared-altsd/shared-altsd.conf") ||
		!strings.Contains(out, "would accept this machine as alpha.test") {
		t.Error(out)
	}
	if out := must(t, "docker", "exec", "-u", fmt.Sprint(bobUID), p.beta.id, "shared-altsd",
		"whoami"); !strings.HasPrefix(out, p.account(p.beta)+"\n") {
		t.Error(out)
	}
	p.beta.sh(t, "systemd-run -q --unit pong -p User=bob /usr/bin/shared-altsd pong --count 1 :7400")
	type ping struct {
		OK     bool   `json:"ok"`
		Peer   string `json:"peer"`
		SeenAs string `json:"seen_as"`
		Steps  []any  `json:"steps"`
	}
	var got ping
	waitFor(t, "pong", func() (bool, string) {
		out, _ := command("docker", "exec", "-u", fmt.Sprint(aliceUID), p.alpha.id, "shared-altsd", "ping", "--json",
			"beta.test:7400")
		got = decode[ping](t, out)
		return got.OK, out
	})
	if got.Peer != p.account(p.beta) || got.SeenAs != p.account(p.alpha) || len(got.Steps) != 7 {
		t.Errorf("ping: %+v", got)
	}
	out, err := p.alpha.try("shared-altsd ping beta.test:7401")
	if err == nil || !strings.Contains(out, "nothing listens on port 7401") {
		t.Errorf("ping of a closed port: %v %s", err, out)
	}
	return "ping shows 7 steps and both names; a closed port is diagnosed"
}

func (p *pair) metrics(t *testing.T) string {
	p.alpha.sh(t, "systemctl -q enable shared-altsd-metrics.socket; systemctl restart shared-altsd.service")
	p.works(t)
	text := p.alpha.sh(t, `exec 2>&1; bash -c 'exec 3<>/dev/tcp/127.0.0.1/9464; printf "GET /metrics HTTP/1.0\r\n\r\n" >&3; cat <&3'`)
	_, body, found := strings.Cut(text, "\r\n\r\n")
	if !found {
		t.Fatal(text)
	}
	cmd := exec.Command("promtool", "check", "metrics")
	cmd.Stdin = strings.NewReader(body)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("promtool check metrics: %v %s\n%s", err, out, body)
	}
	if !strings.Contains(body, `shared_altsd_handshakes_total{role="initiator",result="accepted",machine="alpha.test"} 1`) {
		t.Error(body)
	}
	return fmt.Sprintf("%d lines, which promtool accepts, from a daemon without a network", strings.Count(body, "\n"))
}

// reload: a good certificate comes into force; a bad one fails the reload, with its reason in the journal, and changes
// nothing.
func (p *pair) reload(t *testing.T) string {
	m := p.beta
	m.sh(t, "systemctl stop shared-altsd-renew.path")
	serial := p.certify(t, m, p.pki.ca)
	m.sh(t, "systemctl reload shared-altsd.service")
	if s := m.status(t); s.Certificate.Serial != serial {
		t.Errorf("after the reload %s is in force, not %s", s.Certificate.Serial, serial)
	}
	// A change of a file that the daemon watches by itself must not bring the certificate of its start back.
	before := m.status(t)
	m.put(t, "/etc/shared-altsd/ca.pem", append(p.pki.ca.PEM(), p.pki.other.PEM()...), "0644")
	waitFor(t, "the reload of ca.pem", func() (bool, string) {
		s := m.status(t)
		return s.Reloads.Succeeded > before.Reloads.Succeeded, fmt.Sprintf("%+v", s)
	})
	if s := m.status(t); s.Certificate.Serial != serial {
		t.Errorf("after a change of ca.pem %s is in force, not %s", s.Certificate.Serial, serial)
	}
	for _, bad := range []struct{ pem, reason string }{
		{"garbage\n", "PEM"},
		{string(p.pki.issue(p.pki.ca, "other.test").PEM()), "beta.test"},
		{string(p.pki.issue(p.pki.ca, "beta.test", -time.Hour).PEM()), "expired"},
	} {
		m.put(t, "/etc/shared-altsd/machine.pem", []byte(bad.pem), "0600")
		if out, err := m.try("systemctl reload shared-altsd.service"); err == nil {
			t.Errorf("the reload of %.20q succeeded: %s", bad.pem, out)
		}
		journal := m.sh(t, "journalctl -u shared-altsd.service -n 6 --no-pager")
		if !strings.Contains(journal, "reload refused") || !strings.Contains(journal, bad.reason) {
			t.Errorf("the journal does not say %q:\n%s", bad.reason, journal)
		}
		if s := m.status(t); s.Certificate.Serial != serial {
			t.Errorf("after a refused reload %s is in force, not %s", s.Certificate.Serial, serial)
		}
		if state := m.property(t, "shared-altsd.service", "ActiveState"); state != "active" {
			t.Errorf("after a refused reload the daemon is %s", state)
		}
	}
	p.works(t)
	serial = p.certify(t, m, p.pki.ca)
	m.sh(t, "systemctl reload shared-altsd.service; systemctl start shared-altsd-renew.path")
	m.waitSerial(t, serial)
	return "exit status 0 and in force, or 1 with the reason in the journal and the old one kept"
}

// crash: the socket outlives the daemon, so that callers wait; established channels do not notice.
func (p *pair) crash(t *testing.T) string {
	kept := p.call(p.alpha, p.beta, "--for", "8s", "--keep", "--pause", "20ms")
	load := p.call(p.alpha, p.beta, "--for", "8s", "--workers", "4")
	time.Sleep(time.Second)
	for _, m := range []*machine{p.alpha, p.beta} {
		pid := m.property(t, "shared-altsd.service", "MainPID")
		m.sh(t, "systemctl kill -s KILL shared-altsd.service")
		waitFor(t, "another daemon on "+m.name, func() (bool, string) {
			now := m.property(t, "shared-altsd.service", "MainPID")
			return now != pid && now != "0" && m.property(t, "shared-altsd.service", "ActiveState") == "active", now
		})
	}
	r := kept.report(t)
	if r.Failed > 0 || r.Channels < 20 {
		t.Errorf("the established channel: %v", r)
	}
	// Only a handshake that was under way at the very moment can be lost: 4 workers, 2 daemons.
	l := load.report(t)
	if l.Failed > 8 || l.Channels-l.Failed < 20 {
		t.Errorf("new channels: %v", l)
	}
	p.works(t)
	return fmt.Sprintf("SIGKILL on both: an established channel carried on (%d calls), %d of %d new ones lost",
		r.Channels, l.Failed, l.Channels)
}

// hang: the watchdog of systemd ends a daemon that shows no sign of life.
func (p *pair) hang(t *testing.T) string {
	m := p.alpha
	m.sh(t, `mkdir -p /run/systemd/system/shared-altsd.service.d
printf '[Service]\nWatchdogSec=2s\n' >/run/systemd/system/shared-altsd.service.d/watchdog.conf
systemctl daemon-reload; systemctl restart shared-altsd.service`)
	pid := m.property(t, "shared-altsd.service", "MainPID")
	m.sh(t, "kill -STOP "+pid)
	waitFor(t, "the watchdog", func() (bool, string) {
		now := m.property(t, "shared-altsd.service", "MainPID")
		return now != pid && now != "0" && m.property(t, "shared-altsd.service", "ActiveState") == "active", now
	})
	if result := m.sh(t, "journalctl -u shared-altsd.service --no-pager | grep -c 'Watchdog timeout'"); strings.TrimSpace(result) == "0" {
		t.Error("it was not the watchdog")
	}
	m.sh(t, "rm -r /run/systemd/system/shared-altsd.service.d; systemctl daemon-reload; systemctl restart shared-altsd.service")
	p.works(t)
	return "SIGSTOP: the watchdog ends it and another one serves"
}

// fullDisk: the log goes to a file on a full file system, then to a journal that cannot store it. Nobody waits for it.
func (p *pair) fullDisk(t *testing.T) string {
	m := p.beta
	m.sh(t, `mkdir -p /mnt/full; mount -t tmpfs -o size=64k tmpfs /mnt/full; touch /mnt/full/log
dd if=/dev/zero of=/mnt/full/fill bs=1k 2>/dev/null || true
mkdir -p /run/systemd/system/shared-altsd.service.d
printf '[Service]\nStandardError=append:/mnt/full/log\n' >/run/systemd/system/shared-altsd.service.d/log.conf
systemctl daemon-reload; systemctl restart shared-altsd.service`)
	p.works(t)
	if out, err := m.try("echo x >>/mnt/full/log"); err == nil {
		t.Errorf("the disk is not full: %s", out)
	}
	m.sh(t, `rm -r /run/systemd/system/shared-altsd.service.d; systemctl daemon-reload; systemctl restart shared-altsd.service
umount /mnt/full`)
	// The journal on a full file system.
	m.sh(t, `mkdir -p /var/log/journal; mount -t tmpfs -o size=9m tmpfs /var/log/journal; systemctl restart systemd-journald
journalctl --flush; dd if=/dev/zero of=/var/log/journal/fill bs=64k 2>/dev/null || true`)
	r := p.call(p.alpha, p.beta, "--for", "4s", "--workers", "4").report(t)
	if r.Failed > 0 {
		t.Errorf("with a full journal: %v", r)
	}
	if m.sh(t, "df --output=avail /var/log/journal | tail -1 | tr -d ' '") != "0\n" {
		t.Error("the journal's disk is not full")
	}
	m.sh(t, "rm /var/log/journal/fill; umount -l /var/log/journal; rm -r /var/log/journal; systemctl restart systemd-journald")
	p.works(t)
	return fmt.Sprintf("of the log file and of the journal: %d channels meanwhile, none failed", r.Channels)
}

func (p *pair) expired(t *testing.T) string {
	m := p.beta
	m.sh(t, "systemctl stop shared-altsd-renew.path")
	p.certify(t, m, p.pki.ca, -time.Hour)
	m.sh(t, "systemctl restart shared-altsd.service") // runs, so that it can say what is wrong
	out, err := m.try("shared-altsd status")
	if err == nil || !strings.Contains(out, "has expired") || !strings.Contains(out, "cure") {
		t.Errorf("status: %v\n%s", err, out)
	}
	r := p.call(p.beta, p.alpha).report(t)
	if r.Failed != 1 || !strings.Contains(fmt.Sprint(r.Errors), "this machine's certificate has expired") {
		t.Errorf("the application: %v", r)
	}
	journal := m.sh(t, "journalctl -u shared-altsd.service -n 20 --no-pager")
	if !strings.Contains(journal, "has expired") {
		t.Error(journal)
	}
	serial := p.certify(t, m, p.pki.ca)
	m.sh(t, "systemctl reload shared-altsd.service; systemctl start shared-altsd-renew.path")
	m.waitSerial(t, serial)
	p.works(t)
	return "named by status, log and the application's error; a reload mends it"
}

func (p *pair) remove(t *testing.T) string {
	a, b := p.alpha, p.beta
	a.sh(t, "dpkg -r shared-altsd")
	b.sh(t, "rpm -e --force-debian shared-altsd")
	for _, m := range []*machine{a, b} {
		m.sh(t, "test ! -e /usr/bin/shared-altsd; test ! -S /run/shared-altsd/socket; test -e /etc/shared-altsd/machine.pem")
		if out, err := m.try("systemctl cat shared-altsd.service; pgrep -x shared-altsd"); err == nil {
			t.Errorf("%s: something is left: %s", m.name, out)
		}
		if out := m.sh(t, "find /etc/systemd/system -name 'shared-altsd*'"); out != "" {
			t.Errorf("%s: enabled still: %s", m.name, out)
		}
	}
	a.sh(t, "grep -q '# mine' /etc/shared-altsd/shared-altsd.conf")
	b.sh(t, "grep -q '# mine' /etc/shared-altsd/shared-altsd.conf.rpmsave")
	a.sh(t, "dpkg -P shared-altsd; test ! -e /etc/shared-altsd/shared-altsd.conf; test -e /etc/shared-altsd/machine.pem")
	// And in again: what stayed is used, and the daemon comes up at once.
	for _, m := range []*machine{a, b} {
		m.install(t, "dist/next")
		m.sh(t, "systemctl enable --now shared-altsd.service")
	}
	p.works(t)
	return "nothing runs or is enabled; configuration stays until the purge, keys stay; a new installation works"
}
