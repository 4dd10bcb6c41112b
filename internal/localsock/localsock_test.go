package localsock

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/shared-altsd/shared-altsd/internal/safepath"
	"github.com/shared-altsd/shared-altsd/internal/testprog"
)

// mkdir makes a directory below dir with exactly that mode.
func mkdir(t *testing.T, dir, name string, mode fs.FileMode) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
	return path
}

// Rule 23: the way to the socket.
func TestSocketParents(t *testing.T) {
	dir := testprog.Dir(t)
	safe := mkdir(t, dir, "safe", 0o755)
	open := mkdir(t, dir, "open", 0o777)
	group := mkdir(t, dir, "group", 0o775)
	sticky := mkdir(t, dir, "sticky", 0o777|fs.ModeSticky)
	below := mkdir(t, open, "below", 0o755)
	for link, target := range map[string]string{"good-link": "safe", "bad-link": open, "loop": "loop",
		"up": "safe/../safe/."} {
		if err := os.Symlink(target, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	// A link that everybody could replace, to a directory that is safe by itself.
	if err := os.Symlink(safe, filepath.Join(open, "link")); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ dir, want string }{
		{safe, ""}, {sticky, ""}, {filepath.Join(dir, "good-link"), ""}, {filepath.Join(dir, "up"), ""},
		{open, "chmod go-w"}, {group, "chmod go-w"}, {below, "chmod go-w"},
		{filepath.Join(dir, "bad-link"), "chmod go-w"}, {filepath.Join(open, "link"), "chmod go-w"},
		{filepath.Join(dir, "loop"), "symlinks"}, {filepath.Join(dir, "none"), "no such file"},
		{"/dev/null", "not a directory"},
	} {
		s, err := Listen(filepath.Join(tt.dir, "socket"), 0o666, -1)
		if tt.want != "" {
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%s: %v, want %q", tt.dir, err, tt.want)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", tt.dir, err)
			continue
		}
		if warned := strings.Contains(strings.Join(s.Warnings, "\n"), sticky); warned != (tt.dir == sticky) {
			t.Errorf("%s: warnings %q", tt.dir, s.Warnings)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

// Rule 23, where somebody else owns a part of the way. It takes root to make such a place; an account without
// privileges meets it in any home directory that is not its own.
func TestSocketForeignOwner(t *testing.T) {
	if os.Geteuid() != 0 {
		if _, _, err := safepath.Dir("/proc/1/task", "the socket"); err != nil {
			t.Fatal(err) // root's
		}
		return
	}
	dir := testprog.Dir(t)
	foreign := mkdir(t, dir, "foreign", 0o755)
	if err := os.Chown(foreign, 4711, 4711); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(filepath.Join(foreign, "socket"), 0o666, -1); err == nil || !strings.Contains(err.Error(),
		"uid 4711") {
		t.Errorf("directory: %v", err)
	}
	sticky := mkdir(t, dir, "sticky", 0o777|fs.ModeSticky)
	link := filepath.Join(sticky, "link")
	if err := os.Symlink(mkdir(t, dir, "safe", 0o755), link); err != nil {
		t.Fatal(err)
	}
	if err := os.Lchown(link, 4711, 4711); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(filepath.Join(link, "socket"), 0o666, -1); err == nil || !strings.Contains(err.Error(),
		"uid 4711") {
		t.Errorf("symlink: %v", err)
	}
	// A lock file that another user made first does not let him decide who is live.
	lock := filepath.Join(sticky, "s.lock")
	if err := os.WriteFile(lock, nil, 0o666); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(lock, 4711, 4711); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(filepath.Join(sticky, "s"), 0o666, -1); err == nil || !strings.Contains(err.Error(),
		"lock file") {
		t.Errorf("lock file: %v", err)
	}
}

func TestSocketModeAndGroup(t *testing.T) {
	path := filepath.Join(testprog.Dir(t), "socket")
	gid := os.Getegid()
	if os.Geteuid() == 0 {
		gid = 4712
	}
	old := unix.Umask(0o077)
	defer unix.Umask(old)
	s, err := Listen(path, 0o660, gid)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := info.Mode(); got != fs.ModeSocket|0o660 {
		t.Errorf("mode %v", got)
	}
	if got := info.Sys().(*syscall.Stat_t).Gid; got != uint32(gid) {
		t.Errorf("group %d, want %d", got, gid)
	}
	if _, err := os.Lstat(path + "~"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the private name is still there: %v", err)
	}
}

// What may be replaced is a socket that nobody serves, and nothing else.
func TestSocketReplaces(t *testing.T) {
	dir := testprog.Dir(t)
	path := filepath.Join(dir, "socket")
	leave := func(path string) { // a socket whose server was killed
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		l.SetUnlinkOnClose(false)
		l.Close()
	}
	leave(path)
	leave(path + "~")
	s, err := Listen(path, 0o666, -1)
	if err != nil {
		t.Fatalf("a stale socket: %v", err)
	}
	if _, err := Listen(path, 0o666, -1); err == nil || !strings.Contains(err.Error(),
		"another shared-altsd serves") {
		t.Errorf("a live daemon's: %v", err)
	}
	if c, err := net.Dial("unix", path); err != nil {
		t.Errorf("the live one suffered: %v", err)
	} else {
		c.Close()
	}
	// Somebody replaced our socket: it is not ours to remove any more.
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	other, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(path); err != nil {
		t.Errorf("a socket of somebody else's was removed: %v", err)
	}
	// A live server that knows nothing of our lock file.
	if _, err := Listen(path, 0o666, -1); err == nil || !strings.Contains(err.Error(), "served by another program") {
		t.Errorf("another program's: %v", err)
	}
	other.Close()
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(path, 0o666, -1); err == nil || !strings.Contains(err.Error(), "not a socket") {
		t.Errorf("a plain file: %v", err)
	}
	os.Remove(path)
	if s, err = Listen(path, 0o666, -1); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the socket is still there: %v", err)
	}
}

func TestSocketPathBounds(t *testing.T) {
	dir := testprog.Dir(t)
	for _, extra := range []int{0, 1} {
		path := filepath.Join(dir, strings.Repeat("x", maxPath-len(dir)-1+extra))
		s, err := Listen(path, 0o666, -1)
		if (err == nil) != (extra == 0) {
			t.Errorf("a path of %d bytes: %v", len(path), err)
		}
		if err == nil {
			s.Close()
		}
	}
}

func TestPath(t *testing.T) {
	env := func(v string) func(string) string {
		return func(name string) string {
			if name == Variable {
				return v
			}
			return ""
		}
	}
	for _, test := range []struct {
		given  string
		secure bool
		env    string
		want   string
	}{
		{"", false, "", DefaultPath}, {"", false, "/env", "/env"}, {"", true, "/env", DefaultPath},
		{"/given", false, "/env", "/given"}, {"/given", true, "/env", "/given"},
	} {
		if got := resolve(test.given, test.secure, env(test.env)); got != test.want {
			t.Errorf("%+v: %q", test, got)
		}
	}
}
