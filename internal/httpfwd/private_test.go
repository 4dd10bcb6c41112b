package httpfwd

import (
	"context"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/shared-altsd/shared-altsd/internal/testprog"
)

const theBackend, stranger = 40011, 40012

func asRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, to make files of other accounts")
	}
}

// A file of the way to the socket, from the top.
type file struct {
	name     string
	uid, gid int
	mode     os.FileMode
}

// made makes the files, the last of which is the socket, and returns its path.
func made(t *testing.T, files []file) string {
	t.Helper()
	path := testprog.Dir(t)
	for i, f := range files {
		path = filepath.Join(path, f.name)
		var err error
		if i < len(files)-1 {
			err = os.Mkdir(path, 0o700)
		} else {
			var l net.Listener
			if l, err = net.Listen("unix", path); err == nil {
				t.Cleanup(func() { l.Close() })
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	whole := path
	for _, f := range slices.Backward(files) {
		if err := os.Lchown(path, f.uid, f.gid); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, f.mode); err != nil {
			t.Fatal(err)
		}
		path = filepath.Dir(path)
	}
	return whole
}

// Who could reach the backend's socket: the kernel's own judgement is tried beside.
func TestRule55PrivateSocket(t *testing.T) {
	asRoot(t)
	const two, many, unknown = 40021, 40022, 40023 // groups
	members := func(gid uint32) ([]uint32, error) {
		switch gid {
		case two:
			return []uint32{theBackend, 0}, nil
		case many:
			return []uint32{theBackend, stranger}, nil
		}
		return nil, os.ErrNotExist
	}
	for _, row := range []struct {
		refused string // "" if it is private
		files   []file
	}{
		{"", []file{{"d", theBackend, 0, 0o700}, {"s", theBackend, 0, 0o777}}},
		{"", []file{{"d", 0, 0, 0o755}, {"s", theBackend, 0, 0o600}}},
		{"", []file{{"d", 0, two, 0o750}, {"s", 0, 0, 0o666}}},
		{"", []file{{"d", 0, 0, 0o755}, {"s", theBackend, two, 0o660}}},
		{"", []file{{"d", theBackend, 0, 0o700}, {"e", theBackend, 0, 0o755}, {"s", theBackend, 0, 0o777}}},
		{"", []file{{"d", 0, 0, 0o777 | os.ModeSticky}, {"s", theBackend, 0, 0o600}}},
		{"may connect", []file{{"d", 0, 0, 0o755}, {"s", theBackend, 0, 0o777}}},
		{"may connect", []file{{"d", 0, 0, 0o755}, {"s", theBackend, 0, 0o602}}},
		{"may connect", []file{{"d", 0, many, 0o750}, {"s", theBackend, 0, 0o666}}},
		{"may connect", []file{{"d", 0, 0, 0o755}, {"s", theBackend, many, 0o660}}},
		{"may connect", []file{{"d", 0, 0, 0o711}, {"s", theBackend, 0, 0o666}}},
		{"group 40023", []file{{"d", 0, unknown, 0o750}, {"s", theBackend, 0, 0o666}}},
		{"belongs to uid 40012", []file{{"d", stranger, 0, 0o755}, {"s", theBackend, 0, 0o600}}},
		{"belongs to uid 40012", []file{{"d", 0, 0, 0o755}, {"s", stranger, 0, 0o600}}},
		{"may be written", []file{{"d", 0, 0, 0o777}, {"s", theBackend, 0, 0o600}}},
		{"may be written", []file{{"d", 0, many, 0o770}, {"s", theBackend, 0, 0o600}}},
		{"may be written", []file{{"d", 0, 0, 0o755}, {"e", 0, 0, 0o777}, {"s", theBackend, 0, 0o600}}},
	} {
		path := made(t, row.files)
		err := Private{Path: path, Account: theBackend, members: members}.Check()
		if (err == nil) != (row.refused == "") || err != nil && !strings.Contains(err.Error(), row.refused) {
			t.Errorf("%+v: %v", row.files, err)
		}
		if err == nil {
			if reached := connects(t, path, stranger); reached {
				t.Errorf("%+v: taken for private, and uid %d connects", row.files, stranger)
			}
		}
	}
}

// connects reports whether an account may connect to a socket.
func connects(t *testing.T, path string, uid uint32) bool {
	t.Helper()
	cmd := exec.Command("/usr/bin/python3", "-I", "-c", "import socket,sys; socket.socket(socket.AF_UNIX).connect(sys.argv[1])", path)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	out, err := cmd.CombinedOutput()
	if err != nil && !strings.Contains(string(out), "PermissionError") {
		t.Fatalf("connect as uid %d: %v: %s", uid, err, out)
	}
	return err == nil
}

func TestRule55PrivateWay(t *testing.T) {
	asRoot(t)
	socket := func() string {
		return made(t, []file{{"d", theBackend, 0, 0o700}, {"s", theBackend, 0, 0o777}})
	}
	for what, row := range map[string]struct {
		refused string
		change  func(path string) (string, error)
	}{
		"a relative path": {"absolute", func(p string) (string, error) { return "d/s", nil }},
		"a way back":      {"..", func(p string) (string, error) { return filepath.Dir(p) + "/../d/s", nil }},
		"no socket":       {"neither", func(p string) (string, error) { return p, errorsOf(os.Remove(p), os.WriteFile(p, nil, 0o600)) }},
		"nothing":         {"no such file", func(p string) (string, error) { return p, os.Remove(p) }},
		"a directory":     {"is a directory", func(p string) (string, error) { return filepath.Dir(p), nil }},
		"another name":    {"2 names", func(p string) (string, error) { return p, os.Link(p, filepath.Dir(filepath.Dir(p))+"/t") }},
		"a symlink of root's": {"", func(p string) (string, error) {
			link := filepath.Dir(filepath.Dir(p)) + "/l"
			return link + "/s", os.Symlink(filepath.Dir(p), link)
		}},
		"a symlink of a stranger's": {"belongs to uid 40012", func(p string) (string, error) {
			link := filepath.Dir(filepath.Dir(p)) + "/l"
			return link + "/s", errorsOf(os.Symlink(filepath.Dir(p), link), os.Lchown(link, stranger, 0))
		}},
		"a symlink out of the private directory": {"may connect", func(p string) (string, error) {
			open := made(t, []file{{"s", theBackend, 0, 0o777}})
			return p + "2", os.Symlink(open, p+"2")
		}},
		"an access list": {"setfacl", func(p string) (string, error) {
			return p, unix.Setxattr(filepath.Dir(p), "system.posix_acl_access", accessList, 0)
		}},
	} {
		path, err := row.change(socket())
		if err == unix.ENOTSUP {
			t.Errorf("%s: this file system has none", what)
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		err = Private{Path: path, Account: theBackend}.Check()
		if (err == nil) != (row.refused == "") || err != nil && !strings.Contains(err.Error(), row.refused) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// accessList is u::rwx, u:40012:rwx, g::---, m::rwx, o::---.
var accessList = []byte("\x02\x00\x00\x00" + "\x01\x00\x07\x00\xff\xff\xff\xff" + "\x02\x00\x07\x00\x4c\x9c\x00\x00" +
	"\x04\x00\x00\x00\xff\xff\xff\xff" + "\x10\x00\x07\x00\xff\xff\xff\xff" + "\x20\x00\x00\x00\xff\xff\xff\xff")

func errorsOf(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// The kernel says who serves a socket; nothing is written to another account.
func TestRule55WhoServes(t *testing.T) {
	path := made(t, []file{{"d", os.Geteuid(), os.Getegid(), 0o700}, {"s", os.Geteuid(), os.Getegid(), 0o600}})
	dial := Private{Path: path, Account: theBackend}.Dial(dialUNIX(path))
	c, err := dial(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	tcp := Private{Path: path, Account: theBackend}.Dial(func(context.Context) (net.Conn, error) {
		here, _ := pair(t)
		return here, nil
	})
	if _, err := tcp(context.Background()); err == nil {
		t.Error("TCP is taken for private")
	}
	asRoot(t)
	other := exec.Command("/usr/bin/python3", "-I", "-c", `import os,socket,sys
s = socket.socket(socket.AF_UNIX)
s.bind(sys.argv[1])
os.setuid(40012)
s.listen()
print("up", flush=True)
sys.stdin.read()`, path+"2")
	other.Stderr = os.Stderr
	in, err := other.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := other.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		other.Wait()
	})
	if _, err := out.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	_, err = Private{Path: path + "2", Account: theBackend}.Dial(dialUNIX(path + "2"))(context.Background())
	if err == nil || !strings.Contains(err.Error(), "uid 40012 serves") {
		t.Errorf("a stranger's: %v", err)
	}
}

// The groups beside what id(1) and the like say of accounts that every Debian has.
func TestMembers(t *testing.T) {
	u, err := user.Lookup("daemon")
	if err != nil {
		t.Skip("there is no account daemon: ", err)
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		t.Fatal(err)
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		t.Fatal(err)
	}
	got, err := membersOf(uint32(gid))
	if err != nil || !slices.Contains(got, uint32(uid)) {
		t.Errorf("group %d has %v, %v", gid, got, err)
	}
	if got, err := membersOf(40099); err != nil || len(got) > 0 {
		t.Errorf("a group that is none has %v, %v", got, err)
	}
}
