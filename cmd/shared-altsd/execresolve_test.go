package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/alts"
	"google.golang.org/grpc/health/grpc_health_v1"
)

// fakeDNS answers every question for an IPv4 address with 127.6.6.6, and reports where it is asked.
func fakeDNS(t *testing.T) (server string, asked *atomic.Int32) {
	t.Helper()
	asked = new(atomic.Int32)
	c, err := net.ListenPacket("udp", "127.53.53.53:53")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	go func() {
		for b := make([]byte, 512); ; {
			n, from, err := c.ReadFrom(b)
			if err != nil {
				return
			}
			asked.Add(1)
			end := 12
			for end < n && b[end] != 0 {
				end += 1 + int(b[end])
			}
			if end += 5; end > n {
				continue
			}
			answer := append([]byte(nil), b[:end]...)
			answer[2], answer[3] = 0x84, 0 // authoritative, no error
			clear(answer[4:12])
			answer[5] = 1
			if binary.BigEndian.Uint16(answer[end-4:]) == 1 {
				answer[7] = 1
				answer = append(answer, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 127, 6, 6, 6)
			}
			c.WriteTo(answer, from)
		}
	}()
	return "127.53.53.53", asked
}

// withEtc returns a copy of /etc with the files changed, and a function that makes a command see it there.
func withEtc(t *testing.T, changed map[string]string) (etc string, inside func(*exec.Cmd) *exec.Cmd) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can prepare mounts")
	}
	etc = filepath.Join(t.TempDir(), "etc")
	if out, err := exec.Command("cp", "-a", "/etc", etc).CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	for name, text := range changed {
		path := filepath.Join(etc, name)
		os.Remove(path) // it may be a symlink
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return etc, func(cmd *exec.Cmd) *exec.Cmd {
		const script = `mount --make-rslave / && mount --bind "$1" /etc && uid=$2 && shift 2 &&
			exec setpriv --reuid=$uid --regid=$uid --clear-groups "$@"`
		uid := "0"
		if cmd.SysProcAttr != nil {
			uid = fmt.Sprint(cmd.SysProcAttr.Credential.Uid)
		}
		args := append([]string{"-m", "sh", "-c", script, "sh", etc, uid, cmd.Path}, cmd.Args[1:]...)
		outer := exec.Command("unshare", args...)
		outer.Env, outer.Dir = cmd.Env, cmd.Dir
		return outer
	}
}

// TestRule44Resolvers has a machine whose nsswitch.conf asks the network first, where somebody answers.
func TestRule44Resolvers(t *testing.T) {
	server, asked := fakeDNS(t)
	eachAccount(t, func(t *testing.T, e execTest) {
		_, inside := withEtc(t, map[string]string{"resolv.conf": "nameserver " + server + "\n",
			"nsswitch.conf": "passwd: files\nhosts: dns [!UNAVAIL=return] files\n"})
		for _, resolve := range []string{"getent ahosts metadata.google.internal.", "getent ahosts metadata.google.internal",
			e.program + " dial-handshaker", "GODEBUG=netdns=cgo " + e.program + " dial-handshaker",
			"GODEBUG=netdns=go " + e.program + " dial-handshaker"} {
			asked.Store(0)
			cmd := inside(e.command("sh", "-c", resolve))
			out, err := cmd.CombinedOutput()
			if err != nil || strings.Contains(string(out), "127.6.6.6") || asked.Load() != 0 {
				t.Errorf("%s: the network was asked %d times: %v %s", resolve, asked.Load(), err, out)
			}
		}
		// What the file does not have is asked of the network as before.
		if out, err := inside(e.command("getent", "ahosts", "other.example")).CombinedOutput(); err != nil ||
			!strings.Contains(string(out), "127.6.6.6") {
			t.Errorf("another name: %v %s", err, out)
		}
	})
}

// TestRule44Replaced replaces files while COMMAND runs, as editors and configuration managers do it.
func TestRule44Replaced(t *testing.T) {
	eachAccount(t, func(t *testing.T, e execTest) {
		etc, inside := withEtc(t, map[string]string{"nsswitch.conf": "hosts: dns files\n"})
		cmd := inside(e.command("sh", "-c",
			`while read line; do head -n1 /etc/hosts; grep ^hosts: /etc/nsswitch.conf; grep -c new.example /etc/hosts; done`))
		cmd.Stderr = os.Stderr
		in, out := startPiped(t, cmd)
		lines := bufio.NewReader(out)
		look := func() (seen [3]string) {
			io.WriteString(in, "\n")
			for i := range seen {
				seen[i], _ = lines.ReadString('\n')
			}
			return seen
		}
		before := look()
		if !strings.Contains(before[0], handshakerName) || before[1] != "hosts: files dns\n" || before[2] != "0\n" {
			t.Fatalf("%q", before)
		}
		for round := range 8 {
			for name, text := range map[string]string{"hosts": "10.9.9.9 new.example\n", "nsswitch.conf": "hosts: dns files\n"} {
				path := filepath.Join(etc, name)
				switch {
				case round%4 == 1: // as a package manager that deletes first
					os.Remove(path)
					time.Sleep(time.Millisecond)
				case round%4 == 2: // a symlink, and then another one
					os.WriteFile(fmt.Sprint(path, round), []byte(text), 0o644)
					os.Symlink(fmt.Sprint(name, round), path+".new")
				}
				if round%4 != 2 {
					os.WriteFile(path+".new", []byte(text), 0o644)
				}
				if err := os.Rename(path+".new", path); err != nil {
					t.Fatal(err)
				}
			}
			want := [3]string{before[0], before[1], "1\n"}
			var got [3]string
			for deadline := time.Now().Add(10 * time.Second); got != want && time.Now().Before(deadline); {
				got = look()
			}
			if got != want {
				t.Fatalf("round %d: %q, not %q", round, got, want)
			}
		}
		// Gone for good: rather no program than one that asks the network.
		os.Remove(filepath.Join(etc, "hosts"))
		if err := cmd.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
			t.Errorf("%v", err)
		}
	})
}

// callByALTS is a program with grpc-go's own ALTS, which asks its handshaker for a connection to itself. That this is
// not a real one is as good: the test looks at who is asked.
func callByALTS() {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	conn, err := grpc.NewClient("passthrough:///"+l.Addr().String(), grpc.WithNoProxy(),
		grpc.WithTransportCredentials(alts.NewClientCreds(alts.DefaultClientOptions())))
	if err != nil {
		panic(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	_, err = grpc_health_v1.NewHealthClient(conn).Check(ctx, new(grpc_health_v1.HealthCheckRequest))
	fmt.Println(err)
	os.Exit(0)
}

// TestRule44Proxies names a proxy in every variable that a gRPC library reads. It may see nothing of the handshaker.
func TestRule44Proxies(t *testing.T) {
	eachAccount(t, func(t *testing.T, e execTest) {
		proxy, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer proxy.Close()
		var used atomic.Int32
		go func() {
			for {
				c, err := proxy.Accept()
				if err != nil {
					return
				}
				used.Add(1)
				c.Close()
			}
		}()
		for _, list := range []string{"", "no_proxy=a.example", "NO_PROXY=a.example", "no_proxy=*"} {
			cmd := e.command(e.program, "call-by-alts")
			url := "http://" + proxy.Addr().String()
			for _, name := range []string{"HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "grpc_proxy", "ALL_PROXY"} {
				cmd.Env = append(cmd.Env, name+"="+url)
			}
			cmd.Env = append(cmd.Env, "no_proxy=", list)
			out, err := cmd.CombinedOutput()
			if err != nil || used.Load() != 0 {
				t.Errorf("%q: the proxy was used %d times: %v %s", list, used.Load(), err, out)
			}
			// The handshaker that answered was the one here, whose greeting is no HTTP/2.
			if !strings.Contains(string(out), "handshaker service") || !strings.Contains(string(out), "reading server preface") {
				t.Errorf("%q: %s", list, out)
			}
		}
	})
}
