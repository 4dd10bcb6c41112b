//go:build deploy

package deploytest

import (
	"fmt"
	"strings"
	"testing"
)

const directoryUID = 30100

// directory makes SSSD serve the domain ad.example.com, whose account alice no other part of the user database has.
const directory = `
mkdir -p /var/lib/extrausers
printf '%%s\n' 'alice:x:%[1]d:%[1]d:Alice:/:/bin/sh' 'john doe:x:30101:30101:John:/:/bin/sh' >/var/lib/extrausers/passwd
echo 'alice:x:%[1]d:' >/var/lib/extrausers/group
sed -i 's/^passwd:.*/passwd: files sss/; s/^group:.*/group: files sss/' /etc/nsswitch.conf
cat >/etc/sssd/sssd.conf <<'END'
[sssd]
domains = ad.example.com
services = nss
[nss]
[domain/ad.example.com]
id_provider = proxy
proxy_lib_name = extrausers
auth_provider = none
use_fully_qualified_names = %[2]t
END
chmod 600 /etc/sssd/sssd.conf
systemctl restart sssd
`

// TestSystemdDirectory has two machines whose user databases write an account of a directory in two ways: with its domain, as clients
// of FreeIPA do for Active Directory, and without. On each there is a local account of that name as well.
func TestSystemdDirectory(t *testing.T) {
	image := strings.TrimSpace(must(t, "deploy/test/rootfs.sh"))
	net, pki := network(t), newPKI(t)
	alpha, beta := boot(t, image, net, "alpha", "deb"), boot(t, image, net, "beta", "rpm")
	r := readRecipe(t, "docs/operate.md", "Accounts of a directory").whole(t)
	tab := &table{title: "An account of a directory, written in two ways"}
	defer tab.print()
	const name = "alice@ad.example.com"
	run := fmt.Sprintf("setpriv --reuid=%d --regid=%[1]d --clear-groups ", directoryUID)
	shown := map[*machine]string{alpha: name, beta: "alice"}
	for m := range shown {
		m.sh(t, "useradd -u 1500 -M -s /bin/sh alice")
		m.sh(t, fmt.Sprintf(directory, directoryUID, m == alpha))
		waitFor(t, m.name+"'s SSSD", func() (bool, string) {
			out, err := m.try(fmt.Sprintf("getent passwd %d", directoryUID))
			return err == nil && strings.HasPrefix(out, shown[m]+":"), out
		})
		m.install(t, "dist")
		m.put(t, "/etc/shared-altsd/ca.pem", pki.ca.PEM(), "0644")
		m.put(t, "/etc/shared-altsd/machine.pem", pki.issue(pki.ca, m.name+".test").PEM(), "0600")
		m.copyIn(t, "dist/image/app")
		m.sh(t, `install -m 755 /root/app /usr/local/bin/app
systemctl enable --now shared-altsd.service
systemd-run -q --unit john -p User=30101 sleep infinity`)
	}

	tab.row(t, "as it was", func(t *testing.T) string {
		if out, err := alpha.try(run + "shared-altsd whoami"); err == nil || !strings.Contains(out, "domain") {
			t.Errorf("alpha's directory account: %v %s", err, out)
		}
		alpha.sh(t, fmt.Sprintf("systemd-run -q --unit asleep -p User=%d sleep infinity", directoryUID))
		out := alpha.sh(t, "shared-altsd check")
		for _, want := range []string{fmt.Sprintf("%q (uid %d)", name, directoryUID), "--account-domain", `(uid 30101) by " "`, "sss_override"} {
			if !strings.Contains(out, want) {
				t.Errorf("check has no %q:\n%s", want, out)
			}
		}
		return "refused where it is written with its domain, with check's word for it"
	})
	tab.row(t, "with the domain named", func(t *testing.T) string {
		for _, m := range []*machine{alpha, beta} {
			m.sh(t, r.step(t, "on each machine"))
			whoami := strings.TrimSpace(r.step(t, "on each machine, as alice"))
			waitFor(t, "her name on "+m.name, func() (bool, string) {
				out, _ := m.try(run + whoami)
				return strings.HasPrefix(out, name+"@"+m.name+".test\n"), out
			})
			if out := m.sh(t, as("alice", "shared-altsd whoami")); !strings.HasPrefix(out, "alice@"+m.name+".test\n") {
				t.Errorf("%s's own alice: %s", m.name, out)
			}
			m.sh(t, fmt.Sprintf("systemd-run -q --unit app -p User=%d /usr/local/bin/app serve", directoryUID))
		}
		if out := alpha.sh(t, "shared-altsd check"); strings.Contains(out, name) || !strings.Contains(out, `(uid 30101) by " "`) {
			t.Errorf("check:\n%s", out)
		}
		return name + " on both, and each machine's own alice is alice"
	})
	tab.row(t, "a channel each way", func(t *testing.T) string {
		for _, d := range [][2]*machine{{alpha, beta}, {beta, alpha}} {
			from, to := name+"@"+d[0].name+".test", name+"@"+d[1].name+".test"
			call := "app call --address " + d[1].name + ".test:7500 --target "
			waitFor(t, "a call from "+d[0].name, func() (bool, string) {
				out, err := d[0].try(run + call + to)
				return err == nil && strings.Contains(out, `"peer":"`+to+`"`) && strings.Contains(out, `"seen_as":"`+from+`"`), out
			})
			// The local account of that name is another.
			if out, _ := d[0].try(run + call + "alice@" + d[1].name + ".test"); !strings.Contains(out, "target_mismatch") {
				t.Errorf("the server is not the local alice: %s", out)
			}
			if out, err := d[0].try(as("alice", call+to)); err != nil || !strings.Contains(out, `"seen_as":"alice@`+d[0].name+`.test"`) {
				t.Errorf("the local alice is seen: %v %s", err, out)
			}
		}
		return "under that name"
	})
}
