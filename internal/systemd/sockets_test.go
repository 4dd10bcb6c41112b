package systemd

import (
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/shared-altsd/shared-altsd/internal/testprog"
)

// A listening stream socket is taken over, of whatever family; what is none is refused with what to write in its unit.
func TestInherit(t *testing.T) {
	path := filepath.Join(testprog.Dir(t), "socket")
	socket := func(domain, kind int, addr unix.Sockaddr, listen bool) func() (int, error) {
		return func() (int, error) {
			fd, err := unix.Socket(domain, kind|unix.SOCK_CLOEXEC, 0)
			if err == nil && addr != nil {
				err = unix.Bind(fd, addr)
			}
			if err == nil && listen {
				err = unix.Listen(fd, 1)
			}
			return fd, err
		}
	}
	loopback := &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}
	for _, tt := range []struct {
		name    string
		make    func() (int, error)
		network string // of the listener, or
		refusal string
	}{
		{"UNIX", socket(unix.AF_UNIX, unix.SOCK_STREAM, &unix.SockaddrUnix{Name: path}, true), "unix", ""},
		{"TCP", socket(unix.AF_INET, unix.SOCK_STREAM, loopback, true), "tcp", ""},
		{"datagrams", socket(unix.AF_INET, unix.SOCK_DGRAM, loopback, false), "", "ListenStream="},
		{"a connection", socket(unix.AF_INET, unix.SOCK_STREAM, loopback, false), "", "Accept=no"},
		{"no socket", func() (int, error) { return unix.Open(os.DevNull, unix.O_RDONLY, 0) }, "", "ListenStream="},
	} {
		t.Run(tt.name, func(t *testing.T) {
			fd, err := tt.make()
			if err != nil {
				t.Fatal(err)
			}
			l, err := inherit(fd)
			if tt.refusal != "" {
				if err == nil || !strings.Contains(err.Error(), tt.refusal) {
					t.Errorf("got %v, want a refusal with %q", err, tt.refusal)
				}
				return
			}
			if err != nil || l.Addr().Network() != tt.network {
				t.Fatalf("got %v, %v", l, err)
			}
			conn, err := net.Dial(tt.network, l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			conn.Close()
			if err := l.Close(); err != nil {
				t.Error(err)
			}
			if tt.network == "unix" {
				if _, err := os.Lstat(path); err != nil {
					t.Errorf("the manager's socket was removed: %v", err)
				}
			}
		})
	}
}

// Sockets meant for another process are left alone, and no child sees the variables.
func TestSocketsOfAnother(t *testing.T) {
	for _, tt := range []struct{ pid, fds, refusal string }{
		{"1", "1", ""},
		{"", "1", ""},
		{"self", "", ""},
		{"self", "0", ""},
		{"self", "65", "LISTEN_FDS"},
		{"self", "x", "LISTEN_FDS"},
	} {
		if tt.pid == "self" {
			tt.pid = strconv.Itoa(os.Getpid())
		}
		t.Setenv("LISTEN_PID", tt.pid)
		t.Setenv("LISTEN_FDS", tt.fds)
		t.Setenv("LISTEN_FDNAMES", "x")
		list, err := Sockets()
		if len(list) != 0 || (err != nil) != (tt.refusal != "") || err != nil && !strings.Contains(err.Error(), tt.refusal) {
			t.Errorf("%+v: got %v, %v", tt, list, err)
		}
		for _, v := range []string{"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"} {
			if _, there := os.LookupEnv(v); there {
				t.Errorf("%+v: %s is still there", tt, v)
			}
		}
	}
}
