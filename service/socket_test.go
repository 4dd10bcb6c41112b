package service

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shared-altsd/shared-altsd/internal/testprog"
)

// A socket that is bound again stays the account that it was, and the connections that came by the one before go on.
func TestRule37SocketTakesAnother(t *testing.T) {
	d := startDaemon(t, "beta.test", Config{Limits: Limits{Connections: 2}})
	me := uint32(os.Geteuid())
	place, err := d.NewSocket(SocketUse{UIDs: UIDRanges{{me, me}}})
	if err != nil {
		t.Fatal(err)
	}
	take := func(path string) (*daemon, chan error) {
		t.Helper()
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		serve, err := place.Take(l)
		if err != nil {
			t.Fatal(err)
		}
		served := make(chan error, 1)
		go func() { served <- serve() }()
		return &daemon{Server: d.Server, socket: path}, served
	}
	dir := testprog.Dir(t)
	first, ended := take(filepath.Join(dir, "1"))
	standing := open(t, first, "")
	standing.must(t, clientStart(nil))
	second, served := take(filepath.Join(dir, "2"))
	if err := <-ended; err != nil {
		t.Errorf("the first listener, after the second was taken: %v", err)
	}
	if c, err := net.Dial("unix", first.socket); err == nil {
		c.Close()
		t.Error("the first listener is open")
	}
	open(t, second, "").must(t, clientStart(nil))
	if _, err := open(t, second, "").do(clientStart(nil)); err == nil || !strings.Contains(err.Error(), "holds 2 connections") {
		t.Errorf("a third connection of the place's: %v", err)
	}
	if _, err := standing.do(next([]byte("?"))); err == nil || !strings.Contains(err.Error(), "malformed") {
		t.Errorf("the connection that came by the first: %v", err)
	}
	now, cancel := context.WithCancel(t.Context())
	cancel()
	d.Shutdown(now) // what is under way is cut
	if err := <-served; err != nil {
		t.Errorf("the second listener, after the end: %v", err)
	}
}
