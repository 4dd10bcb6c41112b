package peercred

import (
	"net"
	"os"
	"path/filepath"
	"testing"
)

func TestFromConn(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	s, err := l.AcceptUnix()
	if err != nil {
		t.Fatal(err)
	}
	got, err := FromConn(s)
	if err != nil {
		t.Fatal(err)
	}
	want := Cred{UID: uint32(os.Geteuid()), GID: uint32(os.Getegid()), PID: int32(os.Getpid())}
	if got != want {
		t.Errorf("FromConn = %+v, want %+v", got, want)
	}
	s.Close()
	if _, err := FromConn(s); err == nil {
		t.Error("FromConn of a closed connection gave no error")
	}
	if _, err := FromConn(new(net.UnixConn)); err == nil {
		t.Error("FromConn of an empty connection gave no error")
	}
}
