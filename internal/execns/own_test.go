package execns

import (
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// startOwn serves a command's own socket for a daemon that answers as serve does, and returns a connection to it.
func startOwn(t *testing.T, serve func(*net.UnixConn)) *net.UnixConn {
	t.Helper()
	r, _, _ := startRelay(t, func(c net.Conn) { serve(c.(*net.UnixConn)) })
	t.Setenv("RUNTIME_DIRECTORY", "")
	t.Setenv("XDG_RUNTIME_DIR", "")
	l, path, err := listenOwn()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		l.Close()
		removeOwn(path)
		if _, err := os.Stat(filepath.Dir(path)); err == nil {
			t.Errorf("%s is left", path)
		}
	})
	if info, err := os.Stat(filepath.Dir(path)); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	go r.serveOwn(l)
	c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(30 * time.Second))
	return c
}

// TestOwnSocketPassesDescriptors sends a pipe's end with a word to a daemon, which answers into it and sends it back.
func TestOwnSocketPassesDescriptors(t *testing.T) {
	c := startOwn(t, func(d *net.UnixConn) {
		b, oob := make([]byte, 100), make([]byte, 100)
		n, oobn, _, _, err := d.ReadMsgUnix(b, oob)
		if err == nil {
			d.WriteMsgUnix(append(b[:n], '!'), oob[:oobn], nil)
		}
		io.Copy(d, d) // the rest is an echo, whose end is passed on
		d.Close()
	})
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, _, err := c.WriteMsgUnix([]byte("take"), unix.UnixRights(int(w.Fd())), nil); err != nil {
		t.Fatal(err)
	}
	w.Close()
	b, oob := make([]byte, 100), make([]byte, 100)
	n, oobn, _, _, err := c.ReadMsgUnix(b, oob)
	if err != nil || string(b[:n]) != "take!" {
		t.Fatalf("%q, %v", b[:n], err)
	}
	messages, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil || len(messages) != 1 {
		t.Fatalf("%v, %v", messages, err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		t.Fatalf("%v, %v", fds, err)
	}
	unix.Write(fds[0], []byte("hello"))
	unix.Close(fds[0])
	if n, err := r.Read(b); err != nil || string(b[:n]) != "hello" {
		t.Errorf("%q, %v", b[:n], err)
	}
	sent := make([]byte, 1<<20)
	go func() {
		c.Write(sent)
		c.CloseWrite()
	}()
	if got, err := io.ReadAll(c); err != nil || len(got) != len(sent) {
		t.Errorf("%d bytes of %d back, %v", len(got), len(sent), err)
	}
}

// TestOwnSocketPassesEnds has either end close, which is more than the end of what it sends.
func TestOwnSocketPassesEnds(t *testing.T) {
	ended := make(chan bool, 1)
	c := startOwn(t, func(d *net.UnixConn) {
		d.Write([]byte("x"))
		d.SetReadDeadline(time.Now().Add(30 * time.Second))
		_, err := d.Read(make([]byte, 1))
		ended <- err == io.EOF && hungUp(d)
	})
	if _, err := c.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	c.Close()
	if !<-ended {
		t.Error("the daemon does not see that the program is gone")
	}

	c = startOwn(t, func(d *net.UnixConn) { d.Close() })
	if _, err := c.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("%v", err)
	}
	for !hungUp(c) { // the deadline of the test binary bounds it
		time.Sleep(time.Millisecond)
	}
}
