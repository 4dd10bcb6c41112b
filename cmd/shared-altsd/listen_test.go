package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shared-altsd/shared-altsd/altscreds"
	"github.com/shared-altsd/shared-altsd/internal/testca"
	"github.com/shared-altsd/shared-altsd/internal/testnet"
	"github.com/shared-altsd/shared-altsd/internal/testprog"
)

const (
	listenUID   = 54321 // the account that listen runs as, pg+@b.test
	impostorUID = 54322
)

// Two machines: a.test has alice+ and pg+, who are the tests' root by sockets of their own, b.test has pg+.
type listenWorld struct {
	t    *testing.T
	dir  string
	a, b *process
}

func newListenWorld(t *testing.T) *listenWorld {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("not root: no other accounts")
	}
	w := &listenWorld{t: t, dir: testprog.Dir(t)}
	ca := newCA(t, testca.Options{})
	caFile := write(t, filepath.Join(w.dir, "ca.pem"), ca.PEM())
	machine := func(name string, sockets ...string) *process {
		args := []string{"--ca", caFile, "--credentials", write(t, filepath.Join(w.dir, name+".pem"),
			issue(t, ca, testca.Leaf{Hosts: []string{name}}).PEM())}
		for _, s := range sockets {
			args = append(args, "--socket", filepath.Join(w.dir, s))
		}
		return start(t, args...)
	}
	w.a = machine("a.test", "alice,uids=0,account=alice+", "apg,uids=0,account=pg+")
	w.b = machine("b.test", fmt.Sprintf("bpg,uids=%d,account=pg+", listenUID))
	return w
}

// A listening is a running listen.
type listening struct {
	*process
	w    *listenWorld
	addr string
}

// listen runs listen as its account, and returns when it serves.
func (w *listenWorld) listen(args ...string) *listening {
	w.t.Helper()
	return w.listenAs(nil, args...)
}

// listenAs is listen with capabilities, as a unit gives them.
func (w *listenWorld) listenAs(capabilities []uintptr, args ...string) *listening {
	w.t.Helper()
	cmd := exec.Command(program(w.t), append([]string{"listen", "--socket", filepath.Join(w.dir, "bpg"), "--service", "pg", "--listen",
		"127.0.0.1:0"}, args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: listenUID, Gid: listenUID},
		AmbientCaps: capabilities}
	cmd.Dir = "/"
	l := &listening{process: launch(w.t, "", cmd), w: w}
	l.told.waitAfter(w.t, 0, "READY=1")
	l.log.waitAfter(w.t, 0, "shared-altsd listen starts")
	l.addr = regexp.MustCompile(`listen="?\[([0-9.:]+)`).FindStringSubmatch(l.Log.String())[1]
	return l
}

// dial connects as an account of a.test's, by the name of its socket.
func (l *listening) dial(who, service string) (*altscreds.Conn, error) {
	protocol, err := altscreds.ServiceProtocol(service)
	if err != nil {
		l.t.Fatal(err)
	}
	c, err := altscreds.Dial("tcp", l.addr, altscreds.ClientOptions{Socket: filepath.Join(l.w.dir, who), TargetAccounts: []string{"pg+@b.test"},
		ApplicationProtocols: []string{protocol}})
	if err == nil {
		l.t.Cleanup(func() { c.Close() })
		c.SetDeadline(time.Now().Add(testprog.Patience))
	}
	return c, err
}

// connected is dial for who is let in.
func (l *listening) connected(who string) *altscreds.Conn {
	l.t.Helper()
	c, err := l.dial(who, "pg")
	if err != nil {
		l.t.Fatalf("%v\n%s", err, l.Log)
	}
	return c
}

// cut fails if a connection's end is a clean one.
func cut(t *testing.T, c io.Reader) {
	t.Helper()
	if b, err := io.ReadAll(c); err == nil {
		t.Fatalf("a clean end after %q", b)
	}
}

// An echoing backend of root's, whose connections are counted.
type echoing struct {
	net.Listener
	conns  atomic.Int32
	resets chan error // how each connection ended
}

func newEcho(t *testing.T, network, addr string) *echoing {
	t.Helper()
	l, err := net.Listen(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	e := &echoing{Listener: l, resets: make(chan error, 1<<16)}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			e.conns.Add(1)
			go func() {
				_, err := io.Copy(struct{ io.Writer }{c}, c)
				if err == nil {
					c.(interface{ CloseWrite() error }).CloseWrite()
				}
				c.Close()
				e.resets <- err
			}()
		}
	}()
	return e
}

func (w *listenWorld) toEcho(e *echoing, args ...string) *listening {
	w.t.Helper()
	return w.listen(append([]string{"--target", e.Addr().String(), "--target-account", "root"}, args...)...)
}

// Bytes and ends pass both ways, to TCP and to UNIX, and each connection has a line at its begin and one at its end.
func TestListen(t *testing.T) {
	w := newListenWorld(t)
	path := filepath.Join(w.dir, "backend")
	for name, e := range map[string]*echoing{"tcp": newEcho(t, "tcp4", "127.0.0.1:0"), "tcp6": newEcho(t, "tcp6", "[::1]:0"),
		"unix": newEcho(t, "unix", path)} {
		t.Run(name, func(t *testing.T) {
			target := e.Addr().String()
			if name == "unix" {
				target = "unix:" + target
				if err := os.Chmod(path, 0o666); err != nil {
					t.Fatal(err)
				}
			}
			metrics := filepath.Join(w.dir, name+"-metrics")
			if err := errors.Join(os.Mkdir(metrics, 0o755), os.Chown(metrics, listenUID, listenUID)); err != nil {
				t.Fatal(err)
			}
			l := w.listen("--target", target, "--target-account", "root", "--allow", "alice+@a.test", "--metrics", "unix:"+metrics+"/s")
			for _, n := range []int{0, 1, 8 << 20} {
				c := l.connected("alice")
				sent := bytes.Repeat([]byte("0123456"), n/7+1)[:n]
				go func() {
					c.Write(sent)
					c.CloseWrite()
				}()
				if got, err := io.ReadAll(c); err != nil || !bytes.Equal(got, sent) {
					t.Errorf("%d bytes: %d came back, %v", n, len(got), err)
				}
				c.Close()
				if err := <-e.resets; err != nil {
					t.Errorf("the backend: %v", err)
				}
			}
			l.log.waitAfter(t, 0, `msg="connection ends" handshake=`)
			l.log.waitAfter(t, 0, "peer=alice+@a.test service=pg account=pg+ from=127.0.0.1:")
			l.log.waitAfter(t, 0, "in=8388608 out=8388608 outcome=clean")
			client := http.Client{Transport: &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) {
				return net.Dial("unix", metrics+"/s")
			}}}
			r, err := client.Get("http://x/metrics")
			if err != nil {
				t.Fatal(err)
			}
			defer r.Body.Close()
			page, _ := io.ReadAll(r.Body)
			for _, line := range []string{`shared_altsd_forward_connections_total{outcome="clean",service="pg",machine="b.test"} 3`,
				`shared_altsd_forward_bytes_total{direction="in",service="pg",machine="b.test"} 8388609`} {
				if !strings.Contains(string(page), line) {
					t.Errorf("no %s in\n%s", line, page)
				}
			}
			if code := l.stop(); code != 0 {
				t.Errorf("exit status %d", code)
			}
		})
	}
}

// Who is not allowed is reset before the backend hears of it: pg+ of another machine is not pg+ of this one.
func TestRule52NotAllowed(t *testing.T) {
	w := newListenWorld(t)
	e := newEcho(t, "tcp4", "127.0.0.1:0")
	for _, c := range []struct {
		who, allow string
		in         bool
	}{
		{"apg", "pg+@b.test", false}, {"apg", "alice+@a.test", false}, {"alice", "pg+@a.test", false}, {"alice", "=@a.test", false},
		{"alice", "alice+@b.test", false}, {"alice", "%wheel@*", false}, {"alice", "*@.a.test", false},
		{"apg", "=@a.test", true}, {"apg", "pg+@*", true}, {"alice", "*@.test", true},
	} {
		l := w.toEcho(e, "--allow", c.allow)
		before := e.conns.Load()
		conn := l.connected(c.who) // the handshake itself is the daemons'
		if c.in {
			testnet.Echoes(t, conn)
			continue
		}
		cut(t, conn)
		l.log.waitAfter(t, 0, "outcome=not_allowed reason=\"no --allow lets this peer in\"")
		if e.conns.Load() != before {
			t.Errorf("%s with --allow %s: the backend was connected to", c.who, c.allow)
		}
	}
}

// Another service of the same account is refused, and the refusal names what was asked for.
func TestListenOtherService(t *testing.T) {
	w := newListenWorld(t)
	l := w.toEcho(newEcho(t, "tcp4", "127.0.0.1:0"), "--allow", "*@*")
	for _, service := range []string{"pg2", "p", "6432"} {
		c, err := l.dial("alice", service)
		if err == nil {
			t.Errorf("%s: connected to %s", service, c.ApplicationProtocol())
			continue
		}
		if !strings.Contains(err.Error(), "altsd-tcp/1:"+service) {
			t.Errorf("%s: %v", service, err)
		}
	}
	if _, err := altscreds.Dial("tcp", l.addr, altscreds.ClientOptions{Socket: filepath.Join(w.dir, "alice"),
		TargetAccounts: []string{"pg+@b.test"}, ApplicationProtocols: []string{"grpc"}}); err == nil {
		t.Error("grpc was let in")
	}
	testnet.Echoes(t, l.connected("alice"))
}

// portTaker listens at an address as another account, and says at the end how many bytes it has read.
func portTaker() {
	l, err := net.Listen("tcp4", os.Getenv("ADDR"))
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("ready")
	var total atomic.Int64
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				n, _ := io.Copy(io.Discard, c)
				total.Add(n)
			}()
		}
	}()
	io.Copy(io.Discard, os.Stdin)
	fmt.Println("read", total.Load())
	os.Exit(0)
}

// The backend is stopped and its port taken by another account: that reads nothing, and once the backend is back all is well.
func TestRule52ImpostorReadsNothing(t *testing.T) {
	w := newListenWorld(t)
	e := newEcho(t, "tcp4", "127.0.0.1:0")
	l := w.toEcho(e, "--allow", "*@a.test")
	testnet.Echoes(t, l.connected("alice"))
	addr := e.Addr().String()
	e.Close()
	c := l.connected("alice")
	c.Write([]byte("a secret"))
	cut(t, c)
	l.log.waitAfter(t, 0, "outcome=backend reason=\"nothing listens at "+addr)

	self := filepath.Join(w.dir, "test")
	if err := testprog.CopySelf(self); err != nil {
		t.Fatal(err)
	}
	taker := exec.Command(self, "take-port")
	taker.Env, taker.Dir = []string{beMain + "=1", "ADDR=" + addr, noRaceSleep}, "/"
	taker.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: impostorUID, Gid: impostorUID}}
	in, err := taker.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := taker.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := taker.Start(); err != nil {
		t.Fatal(err)
	}
	ready := make([]byte, 6)
	if _, err := io.ReadFull(out, ready); err != nil || string(ready) != "ready\n" {
		rest, _ := io.ReadAll(out)
		t.Fatalf("%s%s", ready, rest)
	}
	for range 20 {
		c := l.connected("alice")
		c.Write([]byte("a secret"))
		cut(t, c)
	}
	l.log.waitAfter(t, 0, fmt.Sprintf("outcome=impostor reason=\"uid %d has the port %s, and not root (uid 0)", impostorUID, addr))
	in.Close()
	if said, _ := io.ReadAll(out); string(said) != "read 0\n" {
		t.Errorf("the impostor: %s", said)
	}
	taker.Wait()
	newEcho(t, "tcp4", addr)
	testnet.Echoes(t, l.connected("alice"))
}

// As many connections as descriptors allow, up to ten thousand, that say nothing: others are served all the same.
func TestListenSilentPeers(t *testing.T) {
	w := newListenWorld(t)
	l := w.toEcho(newEcho(t, "tcp4", "127.0.0.1:0"), "--allow", "*@a.test", "--handshake-timeout", "5m")
	stands := l.connected("alice")
	testnet.Echoes(t, stands)
	var files unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &files); err != nil {
		t.Fatal(err)
	}
	n := int(min(10_000, files.Cur-500))
	t.Logf("%d silent connections", n)
	for i := range n {
		c, err := net.Dial("tcp", l.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if i%500 == 0 {
			testnet.Echoes(t, l.connected("alice"))
		}
	}
	for range 20 {
		testnet.Echoes(t, l.connected("apg"))
	}
	testnet.Echoes(t, stands)
	if n := strings.Count(l.Log.String(), "connection refused"); n > 200 {
		t.Errorf("%d lines about strangers", n)
	}
}

// A reload takes what the file says now for connections to come, ends those of peers who are allowed no longer, and loses
// no other; a file with a mistake in it changes nothing.
func TestListenReload(t *testing.T) {
	w := newListenWorld(t)
	first, second := newEcho(t, "tcp4", "127.0.0.1:0"), newEcho(t, "tcp4", "127.0.0.1:0")
	file := filepath.Join(w.dir, "pg.conf")
	conf := func(text string, args ...any) {
		t.Helper()
		if err := os.WriteFile(file, fmt.Appendf(nil, text, args...), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	conf("target = %s\ntarget-account = root\nallow = alice+@a.test # who works here\nallow = pg+@a.test\n", first.Addr())
	l := w.listen("--config", file)
	alice, pg := l.connected("alice"), l.connected("apg")
	testnet.Echoes(t, alice)
	testnet.Echoes(t, pg)
	reload := func(answer string) {
		t.Helper()
		next := l.told.Count()
		l.signal(syscall.SIGHUP)
		next = l.told.waitAfter(t, next, "RELOADING=1")
		l.told.waitAfter(t, next, answer)
	}
	for text, cure := range map[string]string{
		"target = %s\ntarget-account = nosuchaccount\nallow = *@*\n":                  "give the name or the uid",
		"target = %s\ntarget-account = root\n":                                        "no --allow",
		"target = %s\ntarget-account = root\nallow = alice\n":                         "pg.conf:3: allow: the peer \\\"alice\\\" has no @",
		"target = %s\ntarget-acount = root\nallow = *@*\n":                            "did you mean target-account",
		"target = %s\ntarget-account = root\nallow = *@*\nmetrics = 127.0.0.1:9999\n": "restart the service",
	} {
		conf(text, first.Addr())
		before := l.log.Count()
		reload("STATUS=reload refused, as before: service pg")
		l.log.waitAfter(t, before, cure)
		testnet.Echoes(t, alice)
		testnet.Echoes(t, pg)
		testnet.Echoes(t, l.connected("apg"))
	}
	conf("target = %s\ntarget-account = root\nallow = alice+@a.test\nmax-conns = 10\n", second.Addr())
	reload("STATUS=service pg for [alice+@a.test]")
	cut(t, pg)
	l.log.waitAfter(t, 0, "outcome=not_allowed reason=\"no --allow lets this peer in\" duration=")
	cut(t, l.connected("apg"))
	testnet.Echoes(t, alice) // with the backend that it has
	testnet.Echoes(t, l.connected("alice"))
	if n := second.conns.Load(); n != 1 {
		t.Errorf("%d connections to the new target", n)
	}
	for i := range 10 {
		c := l.connected("alice")
		if i < 3 { // five of ten places are one peer's: two stand
			testnet.Echoes(t, c)
		} else {
			cut(t, c)
		}
	}
	l.log.waitAfter(t, 0, "outcome=full")
}

// SIGTERM takes no more connections and lets those that stand end; what has not ended by then is cut, at both sides.
func TestListenDrainAndAge(t *testing.T) {
	t.Parallel()
	w := newListenWorld(t)
	e := newEcho(t, "tcp4", "127.0.0.1:0")
	l := w.toEcho(e, "--allow", "*@*", "--drain", "1s")
	ends, stays := l.connected("alice"), l.connected("alice")
	testnet.Echoes(t, ends)
	testnet.Echoes(t, stays)
	l.signal(syscall.SIGTERM)
	l.told.waitAfter(t, 0, "STOPPING=1")
	testnet.Echoes(t, ends)
	ends.CloseWrite()
	if _, err := io.ReadAll(ends); err != nil {
		t.Error(err)
	}
	ends.Close()
	cut(t, stays)
	if code := l.wait(); code != 0 {
		t.Errorf("exit status %d", code)
	}
	if one, other := <-e.resets, <-e.resets; one != nil || !errors.Is(other, syscall.ECONNRESET) {
		t.Errorf("the backend: %v, %v", one, other)
	}
	l.log.waitAfter(t, 0, "outcome=stopped")

	l = w.toEcho(e, "--allow", "*@*", "--max-age", "300ms")
	c := l.connected("alice")
	testnet.Echoes(t, c)
	cut(t, c)
	l.log.waitAfter(t, 0, "outcome=age")
	if err := <-e.resets; !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the backend: %v", err)
	}
}

// A forward that is killed ends nothing cleanly, on either side.
func TestListenKilled(t *testing.T) {
	w := newListenWorld(t)
	e := newEcho(t, "tcp4", "127.0.0.1:0")
	l := w.toEcho(e, "--allow", "*@*")
	c := l.connected("alice")
	testnet.Echoes(t, c)
	l.Kill()
	cut(t, c)
	if err := <-e.resets; !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the backend: %v", err)
	}
}

// A COMMAND learns who its peer is from its environment, and what it says has a clean end only if it ends well.
func TestListenCommand(t *testing.T) {
	w := newListenWorld(t)
	t.Setenv("ALTSD_PEER_GROUPS", "wheel")
	const say = `printf "%s|" $ALTSD_PEER $ALTSD_PEER_USER $ALTSD_PEER_MACHINE $ALTSD_SERVICE ${#ALTSD_HANDSHAKE} "$ALTSD_PEER_GROUPS"; id -u`
	whole := "alice+@a.test|alice+|a.test|pg|16||" + strconv.Itoa(listenUID) + "\n"
	for _, c := range []struct {
		name, script, want string
		clean              bool
	}{
		{"well", say, whole, true}, {"status", say + "; exit 3", whole, false}, {"killed", say + "; kill -9 $$", whole, false},
		{"reads to the end", "wc -c; sleep 0.1", "5\n", true}, {"reads nothing", "true", "", true}, {"fails at once", "false", "", false},
		{"not found", "exec /nonexistent", "", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := w.listen("--allow", "*@*", "--", "sh", "-c", c.script)
			conn := l.connected("alice")
			if strings.HasPrefix(c.name, "reads to") {
				conn.Write([]byte("hello"))
			}
			conn.CloseWrite()
			got, err := io.ReadAll(conn)
			if string(got) != c.want || (err == nil) != c.clean {
				t.Errorf("%q, %v; want %q\n%s", got, err, c.want, l.Log)
			}
			if !c.clean {
				l.log.waitAfter(t, 0, "its output may not be whole")
			}
		})
	}
}

// A COMMAND and what it has started end with a connection that is cut, and with the forward itself.
func TestListenCommandIsKilled(t *testing.T) {
	w := newListenWorld(t)
	for name, end := range map[string]func(*listening, *altscreds.Conn){
		"the peer is cut off":   func(_ *listening, c *altscreds.Conn) { c.NetConn().(*net.TCPConn).SetLinger(0); c.NetConn().Close() },
		"the peer says no end":  func(_ *listening, c *altscreds.Conn) { c.Close() },
		"the forward is killed": func(l *listening, _ *altscreds.Conn) { l.Kill() },
		"the forward stops": func(l *listening, _ *altscreds.Conn) {
			l.signal(syscall.SIGTERM)
			l.told.waitAfter(t, 0, "STOPPING=1")
			l.signal(syscall.SIGINT)
		},
		"the peer is cut off from one that has closed its files": func(_ *listening, c *altscreds.Conn) { c.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			files := ""
			if strings.HasSuffix(name, "files") {
				files = "exec </dev/null >/dev/null; "
			}
			l := w.listen("--allow", "*@*", "--", "sh", "-c", "trap '' TERM HUP PIPE; sleep 1000 </dev/null >/dev/null 2>&1 & echo $$ $!; "+files+
				"while :; do sleep 0.05; done")
			c := l.connected("alice")
			var shell, child int
			if _, err := fmt.Fscan(c, &shell, &child); err != nil {
				t.Fatal(err)
			}
			end(l, c)
			pids := []int{shell, child}
			if strings.HasSuffix(name, "killed") {
				pids = pids[:1] // PDEATHSIG is the kernel's word to its child alone
				defer unix.Kill(child, unix.SIGKILL)
			}
			for _, pid := range pids {
				for begin := time.Now(); unix.Kill(pid, 0) == nil && !zombie(pid); time.Sleep(10 * time.Millisecond) {
					if time.Since(begin) > testprog.Patience {
						t.Fatalf("process %d lives", pid)
					}
				}
			}
		})
	}
}

// zombie reports whether a process has ended and nobody has asked for it.
func zombie(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && bytes.Contains(stat, []byte(") Z "))
}

// A mistake on the command line is said with its cure, and nothing is served.
func TestListenMistakes(t *testing.T) {
	for args, cure := range map[string]string{
		"": "--listen :6432", "--listen :1": "--allow 'alice@", "--listen :1 --allow *@*": "no backend",
		"--listen :1 --allow *@* --target 127.0.0.1:5": "--target-account postgres",
		"--target 192.0.2.1:5":                         "run listen on its own machine", "--target db:5": "unix:PATH", "--allow $admins@*": "each of its members",
		"--allow alice": "alice@*", "--service A": "a-z", "--listen host:1": "as in :1", "--unclean maybe": "close, hold", "--metrics 0.0.0.0:1": "loopback",
		"--listen :1 --allow *@* --target 127.0.0.1:5 --target-account nosuchaccount": "the name or the uid",
		"--listen systemd:pg --allow *@* --target unix:/x":                            "FileDescriptorName=pg", "--check --listen :1": "--allow",
	} {
		code, out, errs := altsd(t, append([]string{"listen"}, strings.Fields(args)...)...)
		if code == 0 || out != "" || !strings.Contains(errs, cure) || strings.Count(errs, "\n") != 1 {
			t.Errorf("%s: exit status %d: %s%s", args, code, out, errs)
		}
	}
	if code, out, errs := altsd(t, "listen", "--check", "--listen", ":1", "--allow", "*@*", "--target", "unix:/x"); code != 0 || out+errs != "" {
		t.Errorf("--check: exit status %d: %s%s", code, out, errs)
	}
}

// The right to low ports is used for the sockets, and nothing is served before the process has lost it.
func TestListenGivesUpRights(t *testing.T) {
	t.Parallel()
	w := newListenWorld(t)
	e := newEcho(t, "tcp4", "127.0.0.1:0")
	for name, args := range map[string][]string{"a low port": {"--listen", "127.113.7.1:871"}, "ident": {"--ident", "127.113.7.2"}} {
		t.Run(name, func(t *testing.T) {
			l := w.listenAs([]uintptr{unix.CAP_NET_BIND_SERVICE}, append([]string{"--target", e.Addr().String(), "--target-account", "root",
				"--allow", "*@*"}, args...)...)
			testnet.Echoes(t, l.connected("alice"))
			status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", l.Cmd.Process.Pid))
			if err != nil {
				t.Fatal(err)
			}
			for _, set := range []string{"CapInh", "CapPrm", "CapEff", "CapAmb"} {
				if !bytes.Contains(status, []byte(set+":\t0000000000000000\n")) {
					t.Errorf("rights are left (%s):\n%s", set, status)
				}
			}
		})
	}
}
