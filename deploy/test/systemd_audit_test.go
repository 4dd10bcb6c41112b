//go:build deploy

package deploytest

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/shared-altsd/shared-altsd/internal/systemd"
	"github.com/shared-altsd/shared-altsd/internal/testdoc"
	"github.com/shared-altsd/shared-altsd/internal/testlog"
)

// TestSystemdAudit runs docs/log.md on two machines and a log host: what the journal can be asked, and both ends of a handshake in
// one line by way of rsyslog.
func TestSystemdAudit(t *testing.T) {
	blocks := testdoc.Blocks(t, "docs/log.md", "TestSystemdAudit")
	if len(blocks) != 6 {
		t.Fatalf("docs/log.md has %d blocks for this test", len(blocks))
	}
	p := newPair(t)
	loghost := boot(t, strings.TrimSpace(must(t, "deploy/test/rootfs.sh")), p.alpha.network, "loghost", "deb")
	const id = "b4f03d9c5c1f6a22"
	here := strings.NewReplacer(".example.com", ".test")
	ask, sender, receiver, join, joined, apart := here.Replace(blocks[0]), here.Replace(blocks[1]), here.Replace(blocks[2]), blocks[3],
		here.Replace(blocks[4]), blocks[5]
	rsyslog := func(m *machine, conf string) {
		m.put(t, "/etc/rsyslog.d/60-shared-altsd.conf", []byte(conf), "0644")
		m.sh(t, "rsyslogd -N1; systemctl unmask rsyslog.service syslog.socket; systemctl start rsyslog.service")
	}
	rsyslog(loghost, receiver)
	for _, m := range []*machine{p.alpha, p.beta} {
		m.install(t, "dist")
		m.put(t, "/etc/shared-altsd/ca.pem", p.pki.ca.PEM(), "0644")
		p.certify(t, m, p.pki.ca)
		rsyslog(m, sender)
		m.sh(t, "systemctl enable --now shared-altsd.service")
		m.sh(t, fmt.Sprintf("systemd-run -q --unit app -p User=%s /usr/local/bin/app serve", p.users()[m].name))
	}
	for _, m := range []*machine{p.alpha, p.beta} {
		waitFor(t, "the servers", func() (bool, string) {
			out, err := m.try("ss -Hltn | grep :7500")
			return err == nil, out
		})
	}
	p.works(t)
	p.beta.sh(t, "systemctl restart systemd-journald.service") // the next line goes to it as well
	p.works(t)
	// A forward; and somebody who is refused, as the client demands another account.
	p.beta.sh(t, "systemd-run -q --unit echo -p User=bob shared-altsd listen --listen :7600 --allow '*@alpha.test' -- /bin/cat")
	waitFor(t, "the forward", func() (bool, string) {
		out, err := p.alpha.try("echo hi | setpriv --reuid alice --clear-groups shared-altsd connect bob@beta.test:7600")
		return err == nil && strings.HasSuffix(out, "hi\n"), out
	})
	if out, err := p.alpha.try("setpriv --reuid alice --clear-groups shared-altsd connect root@beta.test:7600 </dev/null"); err == nil {
		t.Errorf("connect to another account: %s", out)
	}
	// Anybody can write such fields, and not as the daemon.
	p.beta.sh(t, `printf 'MESSAGE=forged\nALTSD_EVENT=handshake done\nALTSD_ROLE=responder\nALTSD_HANDSHAKE=`+id+`\nALTSD_LOCAL=bob@beta.test\nALTSD_PEER=mallory@evil.test\n' |
	setpriv --reuid nobody --clear-groups logger --journald`)

	entries := func(m *machine, query string) (all []map[string]any) {
		t.Helper()
		for line := range strings.Lines(m.sh(t, "journalctl -q --sync; journalctl -q -o json "+query)) {
			e := map[string]any{}
			if err := json.Unmarshal([]byte(line), &e); err != nil {
				t.Fatal(err)
			}
			all = append(all, e)
		}
		return all
	}
	schema := testlog.Load(t, root)
	for _, m := range []*machine{p.alpha, p.beta} {
		lines := entries(m, "-u shared-altsd.service ALTSD_EVENT='handshake done' + _SYSTEMD_UNIT=shared-altsd.service _TRANSPORT=journal")
		for _, e := range lines {
			if err := checkEntry(schema.Sections["The daemon"], e); err != nil {
				t.Errorf("%s: %v", m.name, err)
			}
		}
		if len(lines) < 4 { // it starts, and handshakes
			t.Errorf("%s: %d entries", m.name, len(lines))
		}
	}
	for _, e := range entries(p.beta, "-u echo.service _COMM=shared-altsd _TRANSPORT=journal") {
		if err := checkEntry(schema.Sections["Forwards"], e); err != nil {
			t.Errorf("listen: %v", err)
		}
	}
	forged := entries(p.beta, "ALTSD_PEER=mallory@evil.test")
	if len(forged) != 1 || len(entries(p.beta, "-u shared-altsd ALTSD_PEER=mallory@evil.test")) != 0 {
		t.Errorf("the forged line: %v", forged)
	}

	if n := len(entries(p.beta, "-u shared-altsd.service _TRANSPORT=journal ALTSD_ROLE=responder ALTSD_REASON=accepted")); n != 3 {
		t.Errorf("beta has %d handshakes as responder, and not 3: two calls, the journal's restart between them, and a forward", n)
	}

	// What the page asks of the journal.
	forward := entries(p.beta, "-u echo.service ALTSD_EVENT='connection begins'")
	if len(forward) != 1 {
		t.Fatalf("connections: %v", forward)
	}
	known := forward[0]["ALTSD_HANDSHAKE"].(string)
	queries := strings.Split(strings.TrimSpace(strings.ReplaceAll(ask, id, known)), "\n")
	for i, want := range []string{"peer=alice@alpha.test", "reason=target_mismatch", "connection begins", "alice@alpha.test", `"ALTSD_REASON":"accepted"`} {
		out, err := p.beta.try(queries[i])
		if err != nil || !strings.Contains(out, want) || strings.Contains(out, "mallory") {
			t.Errorf("%s: %v: %q not in\n%s", queries[i], err, want, out)
		}
	}
	if out := p.beta.sh(t, queries[2]); !strings.Contains(out, "handshake done") {
		t.Errorf("not the daemon's line as well:\n%s", out)
	}

	// What the log host knows.
	want := strings.TrimSpace(strings.ReplaceAll(joined, id, known))
	waitFor(t, "both ends", func() (bool, string) {
		out, err := loghost.try(join)
		return err == nil && slices.Contains(strings.Split(out, "\n"), want), out
	})
	waitFor(t, "every end", func() (bool, string) {
		out, err := loghost.try(apart)
		return err == nil && out == "", out
	})
	if out := loghost.sh(t, "cat /var/log/shared-altsd.json"); strings.Contains(out, "mallory") || !strings.Contains(out, `"ALTSD_EVENT": "shared-altsd starts"`) {
		t.Errorf("the log host has\n%s", out)
	}
	// One who lies, and one whose line is missing, are found.
	loghost.sh(t, `printf '1111111111111111\tinitiator\talpha\talice@alpha.test\tbob@beta.test\taccepted\n' >>/var/log/shared-altsd.ends
printf '2222222222222222\tinitiator\talpha\talice@alpha.test\tbob@beta.test\taccepted\n2222222222222222\tresponder\tbeta\tbob@beta.test\troot@alpha.test\taccepted\n' >>/var/log/shared-altsd.ends`)
	out := loghost.sh(t, apart)
	if !strings.Contains(out, "one end: 1111111111111111 alpha") || !strings.Contains(out, "not the same: 2222222222222222 alpha") || strings.Count(out, "\n") != 2 {
		t.Errorf("what does not agree:\n%s", out)
	}
	t.Logf("the log host says:\n%s", loghost.sh(t, join))
}

// checkEntry holds an entry of the journal to the schema of its lines: each field of a key is the key's value in its line.
func checkEntry(s *testlog.Section, e map[string]any) error {
	l, err := testlog.ParseText(fmt.Sprint(e["MESSAGE"]))
	if err == nil {
		err = s.Check(l)
	}
	if err != nil {
		return fmt.Errorf("%w: %v", err, e)
	}
	fields := map[string]bool{"ALTSD_EVENT": true}
	if e["ALTSD_EVENT"] != l.Message {
		return fmt.Errorf("ALTSD_EVENT is %v of %v", e["ALTSD_EVENT"], l.Message)
	}
	for key, value := range l.Values {
		name := systemd.Field(key)
		fields[name] = true
		if s.Forms[key] == "list" { // each by itself
			several, _ := e[name].([]any)
			if several == nil {
				several = []any{e[name]}
			}
			if fmt.Sprint(several) != value {
				return fmt.Errorf("%s is %v, and %s=%q", name, e[name], key, value)
			}
			continue
		}
		if got, there := e[name]; there != (value != "") || there && fmt.Sprint(got) != value {
			return fmt.Errorf("%s is %v, and %s=%q", name, got, key, value)
		}
	}
	for name := range e {
		if strings.HasPrefix(name, "ALTSD_") && !fields[name] {
			return fmt.Errorf("the field %s is of no key: %v", name, e)
		}
	}
	return nil
}
