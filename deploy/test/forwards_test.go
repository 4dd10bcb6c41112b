//go:build deploy

package deploytest

import (
	"strings"
	"testing"
)

// TestSystemdPostgres does what docs/forwards.md prints: PostgreSQL on one machine knows the accounts of another.
func TestSystemdPostgres(t *testing.T) {
	pki := newPKI(t)
	image, net := strings.TrimSpace(must(t, "deploy/test/rootfs.sh", "postgres")), network(t)
	alpha, beta := boot(t, image, net, "alpha", "deb"), boot(t, image, net, "beta", "deb")
	for _, m := range []*machine{alpha, beta} {
		m.install(t, "dist")
		m.put(t, "/etc/shared-altsd/ca.pem", pki.ca.PEM(), "0644")
		m.put(t, "/etc/shared-altsd/machine.pem", pki.issue(pki.ca, m.name+".test").PEM(), "0600")
		m.sh(t, "systemctl enable --now shared-altsd.service")
	}
	alpha.sh(t, "useradd -m -s /bin/sh alice; useradd -m -s /bin/sh bob")
	page := readRecipe(t, "docs/forwards.md", "PostgreSQL").whole(t)
	tab := &table{title: "PostgreSQL by ident, installed as docs/forwards.md prints it"}
	defer tab.print()

	tab.row(t, "beta: files, then enable --now", func(t *testing.T) string {
		const etc = "/etc/postgresql/15/main/"
		beta.put(t, "/etc/shared-altsd/listen/postgres.conf",
			[]byte(page.step(t, "beta: /etc/shared-altsd/listen/postgres.conf", "alpha.example.com", "alpha.test")), "0644")
		hba := page.step(t, "beta: the first lines of "+etc+"pg_hba.conf") + beta.sh(t, "cat "+etc+"pg_hba.conf")
		ident := page.step(t, "beta: "+etc+"pg_ident.conf", `alpha\.example\.com`, `alpha\.test`)
		for name, text := range map[string]string{"pg_hba.conf": hba, "pg_ident.conf": ident} {
			beta.put(t, etc+name, []byte(text), "0640")
			beta.sh(t, "chown postgres:postgres "+etc+name)
		}
		beta.sh(t, `su postgres -c "psql -c 'create role alice login' -c 'create database app owner alice'"`)
		beta.sh(t, page.step(t, "beta: start"))
		return "the forward runs as " + strings.TrimSpace(beta.sh(t, "ps -o user= -p "+beta.property(t, "shared-altsd-listen@postgres.service", "MainPID")))
	})
	// psql is the page's command, with these arguments in the place of psql's, as an account of alpha.
	psql := func(t *testing.T, step, account, arguments string) (string, error) {
		line := page.step(t, "alpha, as alice: "+step, "beta.example.com", "beta.test", "psql app", "psql -X -At "+arguments+" app")
		alpha.put(t, "/var/tmp/psql.sh", []byte(line), "0644")
		return alpha.try("su " + account + " -c 'sh /var/tmp/psql.sh'")
	}
	const who = "-c 'select session_user, inet_client_addr()'"
	for _, step := range []string{"one command", "at a port of loopback"} {
		tab.row(t, "alpha, as alice: "+step, func(t *testing.T) string {
			out, err := psql(t, step, "alice", who)
			if err != nil || out != "alice|127.77.0.1\n" {
				t.Errorf("%v: %s", err, out)
			}
			return strings.TrimSpace(out)
		})
	}
	tab.row(t, "alpha, bob as alice", func(t *testing.T) string {
		out, err := psql(t, "one command", "bob", "-U alice "+who)
		if err == nil || !strings.Contains(out, `Ident authentication failed for user "alice"`) {
			t.Errorf("%v: %s", err, out)
		}
		return "refused"
	})
	tab.row(t, "alpha, as postgres", func(t *testing.T) string {
		out, err := psql(t, "one command", "postgres", who)
		if err == nil || !strings.Contains(out, `pg_hba.conf rejects connection`) {
			t.Errorf("%v: %s", err, out)
		}
		return "refused"
	})
	tab.row(t, "beta, the forward while it serves", func(t *testing.T) string {
		status := beta.sh(t, "cat /proc/"+beta.property(t, "shared-altsd-listen@postgres.service", "MainPID")+"/status")
		for _, set := range []string{"CapPrm", "CapEff", "CapAmb"} {
			if !strings.Contains(status, set+":\t0000000000000000\n") {
				t.Errorf("%s is not empty:\n%s", set, status)
			}
		}
		return "no capability is left"
	})
	tab.row(t, "beta, restarted and reloaded", func(t *testing.T) string {
		beta.sh(t, "systemctl restart shared-altsd-listen@postgres")
		beta.sh(t, readRecipe(t, "docs/forwards.md", "From systemd, and reload").whole(t).step(t, "beta: after a change of the file"))
		if out, err := psql(t, "one command", "alice", who); err != nil || out != "alice|127.77.0.1\n" {
			t.Errorf("%v: %s", err, out)
		}
		return "alice is alice"
	})
}
