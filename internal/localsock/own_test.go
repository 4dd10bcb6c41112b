package localsock

import (
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shared-altsd/shared-altsd/internal/testprog"
)

// Rule 51: a socket that lends an identity is in a directory in which nobody else can put another in its place.
func TestRule51OwnDirectory(t *testing.T) {
	dir := testprog.Dir(t)
	own := mkdir(t, dir, "own", 0o755)
	sticky := mkdir(t, dir, "sticky", 0o777|fs.ModeSticky)
	rows := []struct{ dir, want string }{
		{own, ""}, {mkdir(t, sticky, "own", 0o700), ""}, {sticky, "chmod go-w"}, {mkdir(t, dir, "group", 0o770), "chmod go-w"},
		{filepath.Join(dir, "none"), "no such file"},
	}
	if os.Geteuid() == 0 {
		others := mkdir(t, dir, "others", 0o755)
		if err := os.Chown(others, 1, -1); err != nil {
			t.Fatal(err)
		}
		rows = append(rows, struct{ dir, want string }{others, "belongs to uid 1"},
			struct{ dir, want string }{mkdir(t, others, "below", 0o700), "belongs to uid 1"})
	} else {
		rows = append(rows, struct{ dir, want string }{"/usr", "belongs to uid 0, not to this account"})
	}
	for _, tt := range rows {
		path := filepath.Join(tt.dir, "socket")
		s, err := ListenOwn(path, 0o600)
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
		if info, err := os.Lstat(path); err != nil || info.Mode().Perm() != 0o600 || len(s.Warnings) > 0 {
			t.Errorf("%s: %v, %v, warnings %q", tt.dir, info, err, s.Warnings)
		}
		if _, err := ListenOwn(path, 0o600); err == nil || !strings.Contains(err.Error(), "another shared-altsd serves") {
			t.Errorf("a second one: %v", err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		for _, left := range []string{path, path + lockSuffix} {
			if _, err := os.Lstat(left); err == nil {
				t.Errorf("%s is still there", left)
			}
		}
	}
	// A socket that nobody serves any more is replaced, one that somebody serves is not.
	path := filepath.Join(own, "left")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	if _, err := ListenOwn(path, 0o600); err == nil || !strings.Contains(err.Error(), "served by another program") {
		t.Errorf("a socket that is served: %v", err)
	}
	l.Close()
	s, err := ListenOwn(path, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
}
