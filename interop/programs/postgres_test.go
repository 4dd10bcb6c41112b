package programs

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/shared-altsd/shared-altsd/internal/testdoc"
	"github.com/shared-altsd/shared-altsd/internal/testprog"
)

func init() { roles["from-address"], roles["impostor"], roles["flood"] = fromAddress, impostor, flood }

// postgresBin is where Debian has the programs of PostgreSQL's server.
const postgresBin = "/usr/lib/postgresql/15/bin"

// A database is PostgreSQL on beta, at its usual port of loopback, with the lines of the page.
type database struct {
	t       *testing.T
	w       *world
	owner   account
	data    string
	server  *testprog.Process
	forward *testprog.Process
}

func newDatabase(t *testing.T) *database {
	t.Helper()
	w := theWorld(t)
	need(t, postgresBin+"/postgres", postgresBin+"/initdb", "psql")
	b := w.beta
	d := &database{t: t, w: w, owner: b.account("postgres")}
	d.data = filepath.Join(b.home(d.owner), "data")
	b.must(t, d.owner, postgresBin+"/initdb", "-D", d.data, "-U", "postgres", "--auth=peer", "--no-sync", "--no-instructions")
	t.Cleanup(func() { os.RemoveAll(d.data) })
	hba, err := os.ReadFile(filepath.Join(d.data, "pg_hba.conf"))
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"pg_hba.conf":   step(t, "beta: the first lines of /etc/postgresql/15/main/pg_hba.conf") + string(hba),
		"pg_ident.conf": step(t, "beta: /etc/postgresql/15/main/pg_ident.conf"),
	} {
		b.file(t, d.owner, filepath.Join("data", name), text, 0o600)
	}
	d.start()
	for _, sql := range []string{"create role alice login", "create role bob login", "create database app owner alice"} {
		b.must(t, d.owner, "psql", "-X", "-h", b.home(d.owner), "-c", sql, "postgres")
	}
	conf := b.file(t, d.owner, "postgres.conf", step(t, "beta: /etc/shared-altsd/listen/postgres.conf"), 0o644)
	d.forward = b.forward(t, d.owner, "--config", conf)
	return d
}

func (d *database) start() {
	d.t.Helper()
	b := d.w.beta
	d.server = b.serve(d.t, b.command(d.owner, postgresBin+"/postgres", "-D", d.data, "-c", "unix_socket_directories="+b.home(d.owner),
		"-c", "fsync=off", "-c", "listen_addresses=127.0.0.1", "-c", "lc_messages=C"))
	for end := time.Now().Add(testprog.Patience); ; time.Sleep(20 * time.Millisecond) {
		o := b.run(d.t, d.owner, "psql", "-X", "-h", b.home(d.owner), "-c", "select 1", "postgres")
		if o.code == 0 {
			return
		}
		if time.Now().After(end) {
			d.t.Fatalf("PostgreSQL does not answer: %s", o.stderr)
		}
	}
}

// stop ends PostgreSQL at once.
func (d *database) stop() {
	d.t.Helper()
	if err := d.server.Stop(); err != nil {
		d.t.Fatal(err)
	}
}

// psql runs the command of the page, with these arguments in the place of psql's.
func psql(t testing.TB, comment, arguments string) string {
	t.Helper()
	return step(t, "alpha, as alice: "+comment, "psql app", "psql -X -At "+arguments)
}

// sh runs a line as an account of a machine.
func (d *database) sh(m *machine, name, line string) outcome {
	d.t.Helper()
	return m.run(d.t, m.account(name), "sh", "-c", line)
}

const identFailed = `FATAL:  Ident authentication failed for user "alice"`

func TestPostgreSQL(t *testing.T) {
	d := newDatabase(t)
	alpha, beta, gamma := d.w.alpha, d.w.beta, d.w.gamma
	if line := testdoc.Blocks(t, "README.md", t.Name())[0]; line != step(t, "alpha, as alice: one command") {
		t.Errorf("README has another command: %s", line)
	}

	for _, comment := range []string{"one command", "at a port of loopback"} {
		o := d.sh(alpha, "alice", psql(t, comment, "-c 'select session_user, inet_client_addr()' app"))
		if o.code != 0 || o.stdout != "alice|127.77.0.1\n" {
			t.Errorf("alice, %s: %+v", comment, o)
		}
	}
	if o := d.sh(alpha, "bob", psql(t, "one command", "-c 'select session_user' app")); o.code != 0 || o.stdout != "bob\n" {
		t.Errorf("bob as himself: %+v", o)
	}
	refused := func(what string, o outcome, want string) {
		t.Helper()
		if o.code == 0 || o.stdout != "" || !strings.Contains(o.stderr, want) {
			t.Errorf("%s: %+v", what, o)
		}
	}
	refused("bob as alice", d.sh(alpha, "bob", psql(t, "one command", "-U alice -c 'select 1' app")), identFailed)
	refused("postgres of alpha", d.sh(alpha, "postgres", psql(t, "one command", "-c 'select 1' app")),
		`FATAL:  pg_hba.conf rejects connection for host "127.77.0.1", user "postgres", database "app"`)
	refused("another machine", d.sh(gamma, "alice", psql(t, "one command", "-c 'select 1' app")), "server closed the connection unexpectedly")

	d.stay(t)

	// An account of beta at the forward's address.
	got := beta.must(t, beta.account("mallory"), "env", roleVariable+"=from-address", d.w.self, "127.77.0.1", "127.0.0.1:5432", "alice", "app")
	if !strings.Contains(got, `Ident authentication failed for user "alice"`) {
		t.Errorf("a local account at the address: %q", got)
	}

	t.Run("flood", func(t *testing.T) { d.flood(t) })
	t.Run("bulk", func(t *testing.T) { d.bulk(t) })
	t.Run("impostor", func(t *testing.T) { d.impostor(t) })
	t.Run("rights", func(t *testing.T) { d.rights(t) })
}

// stay has sockets that stay, as the page has them: alice alone is served there.
func (d *database) stay(t *testing.T) {
	t.Helper()
	alpha := d.w.alpha
	alice := alpha.account("alice")
	dir := alpha.privateDir(t, alice, "run")
	lines := strings.Split(strings.TrimSpace(testdoc.Blocks(t, page, t.Name())[1]), "\n")
	if len(lines) != 2 {
		t.Fatalf("%s has %q", page, lines)
	}
	for _, line := range lines {
		line = strings.Replace(line, "/home/alice/run/app", dir+"/.s.PGSQL.6432", 1)
		alpha.serve(t, alpha.command(alice, "sh", "-c", "exec "+line))
	}
	waitFile(t, dir+"/.s.PGSQL.6432")
	alpha.waitPort(t, 6432)
	for _, host := range []string{dir, "127.0.0.1", "::1"} {
		const ask = "PGSSLMODE=disable exec psql -X -At -p 6432 -h "
		if o := d.sh(alpha, "alice", ask+host+" -c 'select session_user' app"); o.code != 0 || o.stdout != "alice\n" {
			t.Errorf("by %s: %+v", host, o)
		}
		if o := d.sh(alpha, "bob", ask+host+" -U alice -c 'select session_user' app"); o.code == 0 {
			t.Errorf("bob by %s: %+v", host, o)
		}
	}
}

// flood has another account of beta connect to ident as fast as it can, while alice comes and goes.
func (d *database) flood(t *testing.T) {
	b := d.w.beta
	p := b.serve(t, b.command(b.account("mallory"), "env", roleVariable+"=flood", d.w.self, "127.77.0.1:113"))
	if _, err := p.Log.WaitText(0, "1000 connections"); err != nil {
		t.Fatal(err)
	}
	for range 10 {
		if o := d.sh(d.w.alpha, "alice", psql(t, "one command", "-c 'select session_user' app")); o.stdout != "alice\n" {
			t.Errorf("%+v", o)
		}
	}
	if !strings.Contains(d.forward.Log.String(), "which is not answered") {
		t.Errorf("the log does not say it:\n%s", d.forward.Log)
	}
}

// bulk copies a table out and in again.
func (d *database) bulk(t *testing.T) {
	const rows, sum = 60000, "60000|60000000\n"
	alice := d.w.alpha.account("alice")
	out := d.sh(d.w.alpha, "alice", psql(t, "one command", fmt.Sprintf(
		`-c "copy (select n, repeat('x', 1000) from generate_series(1, %d) n) to stdout" app`, rows)))
	if out.code != 0 || strings.Count(out.stdout, "\n") != rows || len(out.stdout) < rows*1000 {
		t.Fatalf("exit status %d, %d bytes: %s", out.code, len(out.stdout), out.stderr)
	}
	d.sh(d.w.alpha, "alice", psql(t, "one command", "-c 'create table lines (n int, line text)' app"))
	in := d.w.alpha.feed(t, alice, strings.NewReader(out.stdout), "sh", "-c", psql(t, "one command", "-c 'copy lines from stdin' app"))
	if in.code != 0 {
		t.Fatalf("%+v", in)
	}
	o := d.sh(d.w.alpha, "alice", psql(t, "at a port of loopback", "-c 'select count(*), sum(length(line)) from lines' app"))
	if o.stdout != sum {
		t.Errorf("%+v", o)
	}
}

// impostor has another account of beta take the port while PostgreSQL is down.
func (d *database) impostor(t *testing.T) {
	d.stop()
	b := d.w.beta
	mallory := b.account("mallory")
	read := filepath.Join(b.home(mallory), "read")
	p := b.serve(t, b.command(mallory, "env", roleVariable+"=impostor", d.w.self, "127.0.0.1:5432", read))
	if _, err := p.Log.WaitText(0, "listens"); err != nil {
		t.Fatal(err)
	}
	o := d.sh(d.w.alpha, "alice", psql(t, "one command", "-c 'select 1' app"))
	if o.code == 0 {
		t.Errorf("%+v", o)
	}
	if err := p.Stop(); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(read); err != nil || len(text) != 0 {
		t.Errorf("the impostor has read %q, %v", text, err)
	}
	d.start()
	if o := d.sh(d.w.alpha, "alice", psql(t, "one command", "-c 'select session_user' app")); o.stdout != "alice\n" {
		t.Errorf("PostgreSQL is back: %+v", o)
	}
}

// rights has the forward, which was given the right to low ports, without any while it serves.
func (d *database) rights(t *testing.T) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", d.forward.Cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, set := range []string{"CapPrm", "CapEff", "CapAmb"} {
		if !strings.Contains(string(status), set+":\t0000000000000000\n") {
			t.Errorf("%s is not empty:\n%s", set, status)
		}
	}
}

// fromAddress speaks PostgreSQL's protocol from an address: ADDRESS SERVER USER DATABASE. It prints what it is told.
func fromAddress(args []string) error {
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(args[0])}}
	c, err := d.Dial("tcp4", args[1])
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(testprog.Patience))
	body := binary.BigEndian.AppendUint32(nil, 3<<16) // version 3.0
	body = append(body, "user\x00"+args[2]+"\x00database\x00"+args[3]+"\x00\x00"...)
	if _, err := c.Write(append(binary.BigEndian.AppendUint32(nil, uint32(4+len(body))), body...)); err != nil {
		return err
	}
	b := make([]byte, 4096)
	n, err := c.Read(b)
	fmt.Println(strings.ReplaceAll(string(b[:n]), "\x00", "\n"))
	return err
}

// impostor listens at ADDRESS and writes all that it is sent into FILE.
func impostor(args []string) error {
	f, err := os.Create(args[1])
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp4", args[0])
	if err != nil {
		return err
	}
	stop, _ := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer context.AfterFunc(stop, func() { l.Close() })()
	fmt.Fprintln(os.Stderr, "listens")
	for {
		c, err := l.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return f.Close()
			}
			return err
		}
		go io.Copy(f, c)
	}
}

// flood connects to ADDRESS again and again, and says how often.
func flood(args []string) error {
	stop, _ := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	for n := 1; stop.Err() == nil; n++ {
		c, err := net.Dial("tcp4", args[0])
		if err == nil {
			c.Close()
		}
		if n%1000 == 0 {
			fmt.Fprintln(os.Stderr, n, "connections")
		}
	}
	return nil
}
