package connect

import (
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/shared-altsd/shared-altsd/internal/safepath"
)

// makePrivate makes a directory that only this account can enter, and whose name nobody could foresee: below
// XDG_RUNTIME_DIR if that is this account's, else below TMPDIR or /tmp.
func makePrivate() (dir string, err error) {
	for _, parent := range []string{runtimeDir(), os.TempDir()} {
		if parent == "" {
			continue
		}
		if parent, _, err = safepath.Dir(parent, "the private directory"); err != nil {
			continue
		}
		dir = filepath.Join(parent, "shared-altsd-"+rand.Text()[:13])
		// Not MkdirAll or MkdirTemp: what somebody else has made is not to be used, and the umask can only take away.
		if err = os.Mkdir(dir, 0o700); err == nil {
			return dir, nil
		}
	}
	return "", fmt.Errorf("no private directory for COMMAND: %w (TMPDIR can name another place)", err)
}

// runtimeDir returns XDG_RUNTIME_DIR if it belongs to this account alone, which after su it does not, else "".
func runtimeDir() string {
	dir := os.Getenv("XDG_RUNTIME_DIR")
	if !filepath.IsAbs(dir) {
		return ""
	}
	info, err := os.Stat(dir)
	if err != nil || !info.IsDir() || safepath.Owner(info) != uint32(os.Geteuid()) || info.Mode().Perm()&0o077 != 0 {
		return ""
	}
	return dir
}

// A Setting is a variable of COMMAND's environment.
type Setting struct{ name, value string }

// ParseSetting reads NAME=VALUE.
func ParseSetting(v string) (Setting, error) {
	name, value, found := strings.Cut(v, "=")
	if !found || name == "" {
		return Setting{}, fmt.Errorf("%q is not NAME=VALUE", v)
	}
	_, err := expand(value, "", 0)
	return Setting{name, value}, err
}

// expand returns value with %d, the private directory, and %p, the port of the first TCP listener; %% is a percent sign.
func expand(value, dir string, port int) (string, error) {
	var b strings.Builder
	for {
		before, after, found := strings.Cut(value, "%")
		b.WriteString(before)
		switch {
		case !found:
			return b.String(), nil
		case strings.HasPrefix(after, "d"):
			b.WriteString(dir)
		case strings.HasPrefix(after, "p"):
			b.WriteString(strconv.Itoa(port))
		case strings.HasPrefix(after, "%"):
			b.WriteByte('%')
		default:
			return "", fmt.Errorf("%q: behind a %% stands d (the private directory), p (the port) or another %% (a percent sign)", value)
		}
		value = after[1:]
	}
}

// environment returns env with the settings, where all listeners are there.
func environment(env []string, settings []Setting, dir string, port int) ([]string, error) {
	for _, s := range settings {
		v, err := expand(s.value, dir, port)
		if err != nil {
			return nil, err
		}
		env = append(removeVariable(env, s.name), s.name+"="+v)
	}
	return env, nil
}

func removeVariable(env []string, name string) (rest []string) {
	for _, v := range env {
		if !strings.HasPrefix(v, name+"=") {
			rest = append(rest, v)
		}
	}
	return rest
}
