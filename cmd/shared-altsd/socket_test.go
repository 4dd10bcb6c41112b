package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"

	"github.com/shared-altsd/shared-altsd/internal/testca"
	"github.com/shared-altsd/shared-altsd/internal/testprog"
)

// A second daemon on the same socket ends at once with one line, and the first one does not notice. Removal at the
// end, and a start over what a killed one left.
func TestSecondDaemon(t *testing.T) {
	dir := testprog.Dir(t)
	ca := newCA(t, testca.Options{})
	flags := []string{"--credentials", write(t, filepath.Join(dir, "a.pem"), issue(t, ca,
		testca.Leaf{Hosts: []string{"a.test"}}).PEM()),
		"--ca", write(t, filepath.Join(dir, "ca.pem"), ca.PEM())}
	first := start(t, flags...)
	code, _, stderr := altsd(t, append([]string{"serve", "--socket", first.socket}, flags...)...)
	if code != 1 || !strings.Contains(stderr, "another shared-altsd serves "+first.socket) {
		t.Errorf("the second: exit status %d, %q", code, stderr)
	}
	if _, _, err := talk(t, first.socket, first.socket); err != nil {
		t.Errorf("the first suffered: %v", err)
	}
	first.signal(syscall.SIGKILL)
	first.wait()
	if _, err := os.Lstat(first.socket); err != nil {
		t.Fatalf("a killed daemon leaves its socket: %v", err)
	}
	again := start(t, append(flags, "--socket", first.socket)...)
	if _, _, err := talk(t, first.socket, first.socket); err != nil {
		t.Errorf("over what a killed daemon left: %v", err)
	}
	if code := again.stop(); code != 0 {
		t.Errorf("exit status %d:\n%s", code, again.log)
	}
	for _, path := range []string{first.socket, again.socket} {
		if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is still there: %v", path, err)
		}
	}
}

// A socket that is limited to uids refuses the others, who learn why.
func TestSocketUIDs(t *testing.T) {
	dir := testprog.Dir(t)
	ca := newCA(t, testca.Options{})
	uid := os.Geteuid()
	p := start(t, "--credentials", write(t, filepath.Join(dir, "a.pem"), issue(t, ca,
		testca.Leaf{Hosts: []string{"a.test"}}).PEM()),
		"--ca", write(t, filepath.Join(dir, "ca.pem"), ca.PEM()),
		"--socket", fmt.Sprintf("%s/mine,uids=%d-%d", dir, uid, uid+1), "--socket", fmt.Sprintf("%s/theirs,uids=%d", dir,
			uid+1))
	if _, _, err := talk(t, filepath.Join(dir, "mine"), p.socket); err != nil {
		t.Errorf("the socket for this uid: %v", err)
	}
	if _, _, err := talk(t, filepath.Join(dir, "theirs"), p.socket); err == nil || !strings.Contains(err.Error(), "uid") {
		t.Errorf("the socket for another uid: %v", err)
	}
	for _, command := range []string{"status", "whoami", "reload"} {
		code, _, errs := altsd(t, command, "--socket", filepath.Join(dir, "theirs"))
		if code != 1 || !strings.Contains(errs, "may not use this socket, which is limited to other uids") {
			t.Errorf("%s at the socket for another uid: %d %s", command, code, errs)
		}
	}
}

// By a socket that gives an account out, every command speaks of that account, and root is nobody else there either.
func TestRule50Commands(t *testing.T) {
	dir, uid := testprog.Dir(t), os.Geteuid()
	box := filepath.Join(dir, "box")
	p, _, _ := one(t, testca.Options{}, testca.Leaf{IPs: []net.IP{net.IPv4(127, 0, 0, 1)}},
		"--socket", fmt.Sprintf("%s,uids=%d,account=Greeter+,label=blue", box, uid),
		"--socket", fmt.Sprintf("%s/taken,uids=%d,account=root", dir, uid))
	p.log.waitAfter(t, 0, "the socket serves nobody as it is")
	if code, s := asJSON(t, "status", "--socket", box); code != 0 || s["caller_account"] != "greeter+" || s["privileged"] == true {
		t.Errorf("status: %d %v", code, s)
	}
	if code, out, errs := altsd(t, "whoami", "--socket", box); code != 0 || out != "greeter+@a.test\n  socket = blue\n" {
		t.Errorf("whoami: %d %s %s", code, out, errs)
	}
	if code, _, errs := altsd(t, "reload", "--socket", box); code != 1 || !strings.Contains(errs, "only root and the daemon's own account") {
		t.Errorf("reload: %d %s", code, errs)
	}
	address, end := startPong(t, box, "1")
	code, out, errs := altsd(t, "ping", "--socket", box, "--target-account", "greeter+@a.test", address)
	if code != 0 || !strings.Contains(out, "peer      greeter+@a.test\n          socket = blue\n") ||
		!strings.Contains(out, "you       greeter+@a.test, as the peer sees it") {
		t.Errorf("ping: %d %s %s", code, out, errs)
	}
	if out, err := end(); err != nil || !strings.Contains(out, "greeter+@a.test") {
		t.Errorf("pong: %v %s", err, out)
	}
	if code, out, errs := altsd(t, "exec", "--socket", box, "--", program(t), "whoami"); code != 0 || !strings.HasPrefix(out, "greeter+@a.test\n") {
		t.Errorf("whoami under exec: %d %s %s", code, out, errs)
	}
	for _, command := range []string{"status", "whoami"} {
		if code, out, errs := altsd(t, command, "--socket", filepath.Join(dir, "taken")); !strings.Contains(out+errs, `has an account "root" by now`) {
			t.Errorf("%s where the name is somebody's: %d %s %s", command, code, out, errs)
		}
	}
	for flag, want := range map[string]string{
		dir + "/x,account=greeter+":            "stands behind uids=",
		dir + "/x,uids=1,account=":             "is empty, or there twice",
		dir + "/x,uids=1,label=blue":           "label= stands beside account= alone",
		dir + "/x,label=a,uids=1,account=b":    "stands behind uids=",
		dir + "/x,uids=1,account=a,label=/run": "a to z, 0 to 9 and -",
		dir + "/x,uids=1,account=1000":         "a name of digits alone",
	} {
		if code, _, errs := altsd(t, "serve", "--credentials", "x", "--ca", "x", "--socket", flag); code != 2 || !strings.Contains(errs, want) {
			t.Errorf("%s: %d %s, want %s", flag, code, errs, want)
		}
	}
}

// Files of sockets, locks and a directory that are removed while the daemon runs are there again, of each socket of its,
// and nobody who has a connection notices.
func TestSocketFileRemoved(t *testing.T) {
	dir := testprog.Dir(t)
	below := filepath.Join(dir, "below")
	if err := os.Mkdir(below, 0o755); err != nil {
		t.Fatal(err)
	}
	own, metrics := filepath.Join(below, "own"), filepath.Join(dir, "metrics")
	p, _, _ := one(t, testca.Options{}, testca.Leaf{}, "--socket", fmt.Sprintf("%s,uids=%d", own, os.Geteuid()),
		"--metrics", "unix:"+metrics)
	dialled := 0
	standing, err := grpc.NewClient("passthrough:///", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			dialled++
			return new(net.Dialer).DialContext(ctx, "unix", p.socket)
		}))
	if err != nil {
		t.Fatal(err)
	}
	defer standing.Close()
	healthy := func() {
		t.Helper()
		_, err := grpc_health_v1.NewHealthClient(standing).Check(t.Context(), &grpc_health_v1.HealthCheckRequest{})
		if err != nil || dialled != 1 {
			t.Errorf("the connection that stands: %v, connected %d times", err, dialled)
		}
	}
	healthy()
	first := p.log.Count()
	for _, path := range []string{p.socket, p.socket + ".lock", metrics} {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Rename(below, below+".away"); err != nil {
		t.Fatal(err)
	}
	again := func(path string) { // each has a line of its own
		t.Helper()
		if _, err := p.log.Wait(first, "that "+path+" was bound again", func(line string) bool {
			return strings.Contains(line, "level=WARN") && strings.Contains(line, "bound again") &&
				strings.Contains(line, "socket="+path+" ")
		}); err != nil {
			t.Fatal(err)
		}
	}
	again(p.socket)
	again(metrics)
	p.log.waitAfter(t, first, "applications cannot reach the socket")
	healthy()
	if _, _, err := talk(t, p.socket, p.socket); err != nil {
		t.Error(err)
	}
	if code, out, errs := altsd(t, "status", "--socket", p.socket); code != 0 {
		t.Errorf("status: %d %s %s", code, out, errs)
	}
	code, _, errs := altsd(t, append([]string{"serve", "--socket", p.socket}, single(t)...)...)
	if code != 1 || !strings.Contains(errs, "another shared-altsd serves") {
		t.Errorf("a second daemon: %d %s", code, errs)
	}
	if c, err := net.Dial("unix", metrics); err != nil {
		t.Error(err)
	} else {
		c.Close()
	}
	if err := os.Mkdir(below, 0o755); err != nil {
		t.Fatal(err)
	}
	again(own)
	p.log.waitAfter(t, first, "can be reached again")
	if _, _, err := talk(t, own, p.socket); err != nil {
		t.Error(err)
	}
	if code := p.stop(); code != 0 {
		t.Errorf("exit status %d", code)
	}
	for _, path := range []string{p.socket, own, metrics} {
		if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is left: %v", path, err)
		}
	}
}
