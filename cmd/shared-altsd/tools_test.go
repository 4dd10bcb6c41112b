package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"

	"github.com/shared-altsd/shared-altsd/internal/ping"
	"github.com/shared-altsd/shared-altsd/internal/testca"
	"github.com/shared-altsd/shared-altsd/internal/testnet"
	"github.com/shared-altsd/shared-altsd/internal/testprog"
)

// one starts the daemon of a.test, with a CA of its own, and gives the directory of its files.
func one(t *testing.T, o testca.Options, l testca.Leaf, more ...string) (p *process, ca *testca.CA, dir string) {
	t.Helper()
	dir, ca = testprog.Dir(t), newCA(t, o)
	l.Hosts = []string{"a.test"}
	write(t, filepath.Join(dir, "a.pem"), issue(t, ca, l).PEM())
	write(t, filepath.Join(dir, "ca.pem"), ca.PEM())
	p = start(t, append([]string{"--credentials", filepath.Join(dir, "a.pem"), "--ca", filepath.Join(dir, "ca.pem")},
		more...)...)
	return p, ca, dir
}

// asJSON runs a command that prints JSON and gives it, with the exit status.
func asJSON(t *testing.T, args ...string) (code int, v map[string]any) {
	t.Helper()
	code, out, errs := altsd(t, append(args, "--json")...)
	if err := json.Unmarshal([]byte(out), &v); err != nil {
		t.Fatalf("%q: %v in %q %q", args, err, out, errs)
	}
	return code, v
}

func TestStatus(t *testing.T) {
	p, _, _ := one(t, testca.Options{}, testca.Leaf{})
	if _, _, err := talk(t, p.socket, p.socket); err != nil {
		t.Fatal(err)
	}
	talk(t, p.socket, p.socket, "nobody@b.test") // refused
	p.done("initiator", "responder")
	code, s := asJSON(t, "status", "--socket", p.socket)
	if code != 0 || s["machine"] != "a.test" || s["caller_account"] != me(t) || s["state"] != "serving" ||
		s["initiator"].(map[string]any)["accepted"] != 1.0 || s["initiator"].(map[string]any)["refused"] != 1.0 {
		t.Errorf("exit status %d: %v", code, s)
	}
	last := s["last_failures"].([]any)
	if len(last) == 0 || !strings.Contains(last[0].(map[string]any)["text"].(string)+last[len(last)-1].(map[string]any)["text"].(string),
		"target") {
		t.Errorf("the last failures: %v", last)
	}
	code, text, _ := altsd(t, "status", "--socket", p.socket)
	for _, want := range []string{"a.test", me(t) + "@a.test", "1 accepted, 1 failed", "valid until", "target_mismatch",
		"work         1 statements signed; ", "accepted     2 by CN=test CA", "refused here: 1 target_mismatch\n",
		fmt.Sprintf("account      %s@a.test (uid %d): 2 accepted, ", me(t), os.Getuid())} {
		if code != 0 || !strings.Contains(text, want) {
			t.Errorf("exit status %d, no %q in:\n%s", code, want, text)
		}
	}
	code, _, errs := altsd(t, "status", "--socket", p.socket+"x")
	if code != 1 || !strings.Contains(errs, "no daemon") {
		t.Errorf("without a daemon: %d %s", code, errs)
	}
}

// What ends soonest stands first, a list that is over is told once, and the same failure once, with a count.
func TestStatusIsShort(t *testing.T) {
	dir := testprog.Dir(t)
	ca := newCA(t, testca.Options{})
	var cas []byte
	for _, days := range []time.Duration{300, 20, 100} {
		cas = append(cas, newCA(t, testca.Options{Name: fmt.Sprint("CA of ", int(days), " days"),
			NotAfter: time.Now().Add(days * 24 * time.Hour)}).PEM()...)
	}
	list := testca.MustCRL(t, ca, nil, testca.CRLOptions{ThisUpdate: time.Now().Add(-2 * time.Hour), NextUpdate: time.Now().Add(-time.Hour)})
	files := []string{"--credentials", write(t, filepath.Join(dir, "a.pem"), issue(t, ca, testca.Leaf{Hosts: []string{"a.test"}}).PEM()),
		"--ca", write(t, filepath.Join(dir, "ca.pem"), append(cas, ca.PEM()...)), "--crl", write(t, filepath.Join(dir, "crl"), list)}
	p := start(t, files...)
	for range 3 {
		if _, _, err := talk(t, p.socket, p.socket); err == nil {
			t.Fatal("a list that is over was taken")
		}
	}
	_, out, _ := altsd(t, "status", "--socket", p.socket)
	_, check, _ := altsd(t, append([]string{"check"}, files...)...)
	for where, text := range map[string]string{"status": out, "check": check} {
		if n := strings.Count(text, "was due to be replaced"); n != 1 && where == "check" || strings.Count(text, "fault ") != 1 {
			t.Errorf("%s tells of the list %d times:\n%s", where, n, text)
		}
	}
	var at []int
	for _, name := range []string{"revocation list", "CN=CA of 20 days", "CN=CA of 100 days", "CN=CA of 300 days"} {
		at = append(at, strings.Index(out, name))
	}
	if !slices.IsSorted(at) || at[0] < 0 {
		t.Errorf("at %v in:\n%s", at, out)
	}
	if strings.Count(out, "failed  ") >= 6 || !strings.Contains(out, "3 times, for the first time at ") {
		t.Errorf("the same failure is told again and again:\n%s", out)
	}
}

// Another account sees the daemon's state but nothing of others, and may not reload.
func TestStatusUnprivileged(t *testing.T) {
	p, _, _ := one(t, testca.Options{}, testca.Leaf{})
	attr, _ := ordinaryUser(t)
	if attr == nil {
		t.Skip("only root can become somebody else than the daemon's account")
	}
	talk(t, p.socket, p.socket, "nobody@b.test")
	run := func(args ...string) (string, error) {
		cmd := exec.Command(program(t), append(args, "--socket", p.socket)...)
		cmd.SysProcAttr = attr
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	out, err := run("status")
	if err != nil || !strings.Contains(out, "daemon@a.test") || strings.Contains(out, "target_mismatch") ||
		strings.Contains(out, "uid ") || !strings.Contains(out, "are shown to root") {
		t.Errorf("%v:\n%s", err, out)
	}
	if out, err := run("reload"); err == nil || !strings.Contains(out, "only root") {
		t.Errorf("reload: %v: %s", err, out)
	}
}

// A socket that somebody else serves is not believed: reload would hand him the key.
func TestUntrustedDaemon(t *testing.T) {
	attr, _ := ordinaryUser(t)
	if attr == nil {
		t.Skip("only root can start a daemon of another account")
	}
	dir, ca := testprog.Dir(t), newCA(t, testca.Options{})
	credentials := write(t, filepath.Join(dir, "a.pem"), issue(t, ca, testca.Leaf{Hosts: []string{"a.test"}}).PEM())
	caFile := write(t, filepath.Join(dir, "ca.pem"), ca.PEM())
	sockets := filepath.Join(dir, "run")
	uid, gid := int(attr.Credential.Uid), int(attr.Credential.Gid)
	if err := errors.Join(os.Mkdir(sockets, 0o755), os.Chown(sockets, uid, gid), os.Chown(credentials, uid, gid),
		os.Chmod(caFile, 0o644)); err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(sockets, "socket")
	startAs(t, attr, socket, "--credentials", credentials, "--ca", caFile)
	for command, failed := range map[string]int{"reload": 1, "status": 1, "whoami": 1, "exec": 125} {
		args := []string{command, "--socket", socket}
		told := append(args, "--daemon-uid", strconv.Itoa(uid))
		if command == "exec" {
			args, told = append(args, "--", "true"), append(told, "--", "true")
		}
		if code, _, errs := altsd(t, args...); code != failed || !strings.Contains(errs, "neither root, nor this account") {
			t.Errorf("%s: exit status %d: %s", command, code, errs)
		}
		if code, _, errs := altsd(t, told...); code != 0 {
			t.Errorf("%s, told of the uid: exit status %d: %s", command, code, errs)
		}
	}
}

// A credential that reload hands over is in force at once, and stays so when the daemon reads its other files again.
func TestReloadCommand(t *testing.T) {
	t.Parallel()
	p, ca, dir := one(t, testca.Options{}, testca.Leaf{})
	serial := func() string {
		_, s := asJSON(t, "status", "--socket", p.socket)
		return s["certificate"].(map[string]any)["serial"].(string)
	}
	first := serial()
	next := filepath.Join(dir, "next.pem")
	write(t, next, issue(t, ca, testca.Leaf{Hosts: []string{"a.test"}}).PEM())
	if code, out, errs := altsd(t, "reload", "--socket", p.socket, "--credentials", next); code != 0 ||
		!strings.Contains(out, "in force") {
		t.Fatalf("exit status %d: %s %s", code, out, errs)
	}
	second := serial()
	if second == first {
		t.Error("the certificate handed over is not in force")
	}
	before := p.log.waitAfter(t, 0, "msg=reloaded")
	write(t, filepath.Join(dir, "ca.pem"), append(ca.PEM(), newCA(t, testca.Options{}).PEM()...))
	p.log.waitAfter(t, before, "msg=reloaded")
	if serial() != second {
		t.Error("a change of ca.pem brought the first certificate back")
	}
	if code, _, errs := altsd(t, "reload", "--socket", p.socket); code != 0 || serial() != second {
		t.Errorf("reload without a credential: %d %s", code, errs)
	}

	apart := issue(t, ca, testca.Leaf{Hosts: []string{"a.test"}})
	write(t, filepath.Join(dir, "x.pem"), apart.CertPEM)
	write(t, filepath.Join(dir, "x.key"), apart.KeyPEM)
	if code, _, errs := altsd(t, "reload", "--socket", p.socket, "--credentials", filepath.Join(dir, "x.pem"), "--key",
		filepath.Join(dir, "x.key")); code != 0 || serial() == second {
		t.Errorf("reload with the key apart: %d %s", code, errs)
	}
	third := serial()
	write(t, next, issue(t, ca, testca.Leaf{Hosts: []string{"b.test"}}).PEM())
	code, _, errs := altsd(t, "reload", "--socket", p.socket, "--credentials", next)
	if code != 1 || !strings.Contains(errs, "b.test") || serial() != third {
		t.Errorf("reload with another name: %d %s", code, errs)
	}
	if _, s := asJSON(t, "status", "--socket", p.socket); s["reloads"].(map[string]any)["last_ok"] != false ||
		!strings.Contains(s["reloads"].(map[string]any)["last_error"].(string), "b.test") {
		t.Errorf("status after a refused reload: %v", s["reloads"])
	}
	if err := os.Chmod(next, 0o644); err != nil {
		t.Fatal(err)
	}
	if code, _, errs := altsd(t, "reload", "--socket", p.socket, "--credentials", next); code != 1 ||
		!strings.Contains(errs, "chmod") {
		t.Errorf("reload with a key that everybody may read: %d %s", code, errs)
	}
	if code, _, _ := altsd(t, "reload", "--key", next); code != 2 {
		t.Errorf("--key alone: exit status %d", code)
	}
}

func TestWhoami(t *testing.T) {
	p, _, _ := one(t, testca.Options{}, testca.Leaf{})
	if code, out, errs := altsd(t, "whoami", "--socket", p.socket); code != 0 ||
		!strings.HasPrefix(out, me(t)+"@a.test\n  uid = ") {
		t.Errorf("exit status %d: %s %s", code, out, errs)
	}
	if code, v := asJSON(t, "whoami", "--socket", p.socket); code != 0 || v["identity"] != me(t)+"@a.test" ||
		v["machine"] != "a.test" {
		t.Errorf("exit status %d: %v", code, v)
	}
	if code, _, errs := altsd(t, "whoami", "--socket", "/run/nothing/socket"); code != 1 ||
		!strings.Contains(errs, "start shared-altsd") {
		t.Errorf("without a daemon: %d %s", code, errs)
	}
}

// Each command that asks the daemon says in the same words why none answers, and what is next; never in gRPC's.
func TestNoDaemonIsExplained(t *testing.T) {
	dir := testprog.Dir(t)
	listening := func(name string, serve func(*net.UnixListener)) string {
		path := filepath.Join(dir, name)
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		l.SetUnlinkOnClose(false)
		t.Cleanup(func() { l.Close() })
		serve(l)
		return path
	}
	hung := listening("hung", func(*net.UnixListener) {})
	stale := listening("stale", func(l *net.UnixListener) { l.Close() })
	crashing := listening("crashing", func(l *net.UnixListener) {
		go testnet.ServeEach(l, func(net.Conn) {})
	})
	for _, c := range []struct{ socket, what, next string }{
		{filepath.Join(dir, "none"), "there is no socket", "systemctl start"},
		{stale, "nobody listens", "journalctl -u shared-altsd -e"},
		{hung, fmt.Sprintf("(process %d) does not answer", os.Getpid()), "systemctl restart"},
		{crashing, "hangs up", "journalctl -u shared-altsd -e"},
	} {
		for _, command := range [][]string{{"status"}, {"whoami"}, {"reload"}, {"pong", "127.0.0.1:0"}, {"ping", "127.0.0.1:1"}} {
			t.Run(filepath.Base(c.socket)+" "+command[0], func(t *testing.T) {
				t.Parallel()
				code, out, errs := altsd(t, append(command, "--socket", c.socket)...)
				said := strings.Join(strings.Fields(out+errs), " ")
				if code != 1 || !strings.Contains(said, c.what) || !strings.Contains(said, c.next) ||
					strings.Contains(said, "rpc error") || strings.Contains(said, "transport:") {
					t.Errorf("exit status %d: %s", code, said)
				}
			})
		}
	}
}

// pong starts a pong that ends after n callers, and gives its address and what it printed in the end.
func startPong(t *testing.T, socket string, n string) (address string, end func() (string, error)) {
	t.Helper()
	cmd := exec.Command(program(t), "pong", "--socket", socket, "--count", n, "127.0.0.1:0")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill() })
	b := make([]byte, 256)
	k, err := out.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	fields := strings.Fields(string(b[:k]))
	if len(fields) < 3 || fields[0] != "listening" {
		t.Fatalf("%q", b[:k])
	}
	return fields[2], func() (string, error) {
		rest, _ := io.ReadAll(out)
		return string(rest), cmd.Wait()
	}
}

func TestPingPong(t *testing.T) {
	a, _, _ := one(t, testca.Options{}, testca.Leaf{IPs: []net.IP{net.IPv4(127, 0, 0, 1)}})
	address, end := startPong(t, a.socket, "2")
	code, out, errs := altsd(t, "ping", "--socket", a.socket, address)
	for _, want := range []string{"TCP connection made", "verified the peer", "and back", "in all",
		"peer      " + me(t) + "@a.test", "as the peer sees it"} {
		if code != 0 || !strings.Contains(out, want) {
			t.Errorf("exit status %d, no %q in: %s %s", code, want, out, errs)
		}
	}
	code, v := asJSON(t, "ping", "--socket", a.socket, "--target-account", me(t)+"@a.test", address)
	if code != 0 || v["ok"] != true || v["seen_as"] != me(t)+"@a.test" || len(v["steps"].([]any)) != 7 {
		t.Errorf("exit status %d: %v", code, v)
	}
	if out, err := end(); err != nil || strings.Count(out, me(t)+"@a.test,") != 2 {
		t.Errorf("pong: %v %s", err, out)
	}
}

// Each failure is told by its step, its reason and what to do.
func TestPingDiagnosis(t *testing.T) {
	a, _, _ := one(t, testca.Options{}, testca.Leaf{})
	foreign, _, _ := one(t, testca.Options{}, testca.Leaf{})
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	web, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer web.Close()
	go http.Serve(web, http.NotFoundHandler())
	foreignPong, end := startPong(t, foreign.socket, "1")
	ownPong, _ := startPong(t, a.socket, "1")
	for _, c := range []struct {
		name, socket, address, step, reason, diagnosis string
		more                                           []string
	}{
		{"nothing listens", a.socket, testnet.Refusing(t), ping.StepConnect, "", "nothing listens on port", nil},
		{"silence", a.socket, silent.Addr().String(), ping.StepAnswer, "", "does not answer", []string{"--timeout", "300ms"}},
		{"a web server", a.socket, web.Addr().String(), ping.StepVerify, "malformed", "another service", nil},
		{"unknown CA", a.socket, foreignPong, ping.StepVerify, "unknown_ca", "no --ca vouches", []string{"--target-machine", "a.test"}},
		{"another account", a.socket, ownPong, ping.StepVerify, "target_mismatch", "--target-account", []string{"--target-account", "x@y.test"}},
		{"no daemon", "/run/nothing/socket", silent.Addr().String(), ping.StepStart, "", "systemctl status", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			code, v := asJSON(t, append([]string{"ping", "--socket", c.socket, c.address}, c.more...)...)
			reason, _ := v["reason"].(string)
			if code != 1 || v["ok"] != false || v["failed_step"] != c.step || reason != c.reason ||
				!strings.Contains(v["diagnosis"].(string), c.diagnosis) {
				t.Errorf("exit status %d: %v", code, v)
			}
		})
	}
	if out, err := end(); err == nil || !strings.Contains(out, "failed: ") {
		t.Errorf("pong: %v %s", err, out)
	}
	for _, args := range [][]string{{"ping"}, {"ping", "host"}, {"pong"}, {"ping", "a:1", "b:2"}} {
		if code, _, _ := altsd(t, args...); code != 2 {
			t.Errorf("%q: exit status %d", args, code)
		}
	}
}

// Metrics on a UNIX socket and on TCP, and what may not be.
// scrape returns the metrics that are served on a UNIX socket.
func scrape(t *testing.T, path string) string {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(context.Context, string, string) (net.Conn, error) { return net.Dial("unix", path) }}}
	resp, err := client.Get("http://localhost/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

func TestMetricsFlag(t *testing.T) {
	path := filepath.Join(testprog.Dir(t), "metrics")
	p, ca, _ := one(t, testca.Options{}, testca.Leaf{}, "--metrics", "unix:"+path)
	if _, _, err := talk(t, p.socket, p.socket); err != nil {
		t.Fatal(err)
	}
	initiator := `shared_altsd_handshakes_total{role="initiator",result="accepted",machine="a.test"} 1`
	responder := `shared_altsd_handshakes_total{role="responder",result="accepted",machine="a.test"} 1`
	p.done("initiator", "responder")
	body := scrape(t, path)
	for _, want := range []string{
		initiator, responder,
		`shared_altsd_not_after_seconds{kind="leaf",name="a.test",machine="a.test"} `, `shared_altsd_not_after_seconds{kind="ca",name="CN=test CA `,
		`shared_altsd_last_reload_successful{machine="a.test"} 1`, `shared_altsd_clock_wrong{machine="a.test"} 0`,
		`shared_altsd_peer_verifications_total{kind="full",machine="a.test"} 1`,
		fmt.Sprintf(`shared_altsd_handshakes_by_ca_total{ca="%s (serial %x)",machine="a.test"} 2`,
			ca.Cert.Subject, ca.Cert.SerialNumber),
	} {
		if !strings.Contains(body, want) {
			t.Errorf("no %q in\n%s", want, body)
		}
	}
	if code := p.stop(); code != 0 {
		t.Errorf("exit status %d", code)
	}
	if _, err := os.Lstat(path); err == nil {
		t.Error("the socket for metrics was left")
	}
	for _, bad := range []string{"0.0.0.0:1", ":9464", "192.0.2.1:9464", "unix:x"} {
		if code, _, errs := altsd(t, "serve", "--metrics", bad); code != 2 || !strings.Contains(errs, "--metrics") {
			t.Errorf("--metrics %s: %d %s", bad, code, errs)
		}
	}
}

func TestHealth(t *testing.T) {
	p, _, _ := one(t, testca.Options{}, testca.Leaf{})
	conn, err := grpc.NewClient("unix:"+p.socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for _, name := range []string{"", "grpc.gcp.HandshakerService"} {
		resp, err := grpc_health_v1.NewHealthClient(conn).Check(t.Context(),
			&grpc_health_v1.HealthCheckRequest{Service: name})
		if err != nil || resp.Status != grpc_health_v1.HealthCheckResponse_SERVING {
			t.Errorf("%q: %v %v", name, resp, err)
		}
	}
}

// What will end is in the log and in status; what has ended makes status fail.
func TestExpiryIsAnnounced(t *testing.T) {
	year := func(left time.Duration) testca.Leaf {
		return testca.Leaf{NotBefore: time.Now().Add(-365 * 24 * time.Hour), NotAfter: time.Now().Add(left)}
	}
	p, _, _ := one(t, testca.Options{NotBefore: time.Now().Add(-400 * 24 * time.Hour)}, year(6*24*time.Hour+time.Hour))
	p.log.waitAfter(t, 0, "this machine's certificate ends in 6 days")
	if code, out, _ := altsd(t, "status", "--socket", p.socket); code != 0 || !strings.Contains(out, "warning") {
		t.Errorf("exit status %d:\n%s", code, out)
	}
	p, _, _ = one(t, testca.Options{NotBefore: time.Now().Add(-400 * 24 * time.Hour)}, year(-time.Hour))
	p.log.waitAfter(t, 0, "this machine's certificate ended 60 minutes ago")
	if code, out, _ := altsd(t, "status", "--socket", p.socket); code != 1 || !strings.Contains(out, "has expired") {
		t.Errorf("exit status %d:\n%s", code, out)
	}
}

// A clock that is plainly wrong is named, and nothing that follows from it.
func TestWrongClock(t *testing.T) {
	later := time.Now().Add(72 * time.Hour)
	p, _, dir := one(t, testca.Options{NotBefore: later}, testca.Leaf{NotBefore: later})
	p.log.waitAfter(t, 0, "plainly wrong")
	code, out, _ := altsd(t, "status", "--socket", p.socket)
	if code != 1 || strings.Count(out, "fault ") != 1 || !strings.Contains(out, "plainly wrong") ||
		strings.Contains(out, "expired") {
		t.Errorf("status: exit status %d:\n%s", code, out)
	}
	code, out, _ = altsd(t, "check", "--credentials", filepath.Join(dir, "a.pem"), "--ca", filepath.Join(dir, "ca.pem"))
	if code != 1 || strings.Count(out, "fault ") != 1 || !strings.Contains(out, "plainly wrong") {
		t.Errorf("check: exit status %d:\n%s", code, out)
	}
	if log := p.log.String(); strings.Contains(log, "valid only from") {
		t.Errorf("the log sends its reader the wrong way:\n%s", log)
	}
}

// Each flag of each command is in the manual and in each completion.
func TestManualAndCompletion(t *testing.T) {
	outputs := map[string]string{}
	for _, args := range [][]string{{"man"}, {"man", "shared-altsd.conf.5"}, {"completion", "bash"},
		{"completion", "zsh"}, {"completion", "fish"}} {
		code, out, errs := altsd(t, args...)
		if code != 0 || errs != "" {
			t.Fatalf("%q: %d %s", args, code, errs)
		}
		outputs[strings.Join(args, " ")] = out
	}
	for _, c := range newProgram().Commands {
		for _, o := range allOptions(c) {
			escaped := strings.ReplaceAll(o.Name, "-", `\-`)
			for where, want := range map[string]string{
				"man": `\-\-` + escaped, "completion bash": "--" + o.Name, "completion zsh": "--" + o.Name,
				"completion fish": "-l " + o.Name,
			} {
				if !strings.Contains(outputs[where], want) {
					t.Errorf("%s has no %s of %s", where, want, c.Name)
				}
			}
			if c == serveCommand && o.Name != "config" && !strings.Contains(outputs["man shared-altsd.conf.5"],
				`\fB`+escaped+`\fR`) {
				t.Errorf("shared-altsd.conf(5) has no %s", o.Name)
			}
		}
	}
	macro := regexp.MustCompile(`^\.(br|nf|fi|[A-Z]{1,2})( |$)`)
	for line := range strings.Lines(outputs["man"]) {
		if line[0] == '.' && !macro.MatchString(strings.TrimSpace(line)) {
			t.Errorf("text that begins with a dot is taken for a macro: %q", line)
		}
	}
	if code, _, _ := altsd(t, "man", "x"); code != 2 {
		t.Errorf("man x: exit status %d", code)
	}
	if code, _, _ := altsd(t, "completion"); code != 2 {
		t.Errorf("completion: exit status %d", code)
	}
}
