// Package testprog builds and runs the real program in tests.
package testprog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/shared-altsd/shared-altsd/internal/race"
)

// Patience bounds every wait for something that should happen at once: only a broken program uses it up.
const Patience = 90 * time.Second

// root is the top of the work tree: all packages that run the program lie two folders deep.
const root = "../.."

// The program is built at most once in each way, in a directory of its own: with the race detector, if the tests have it,
// without, and static.
var (
	raced  = Shared[string]{Make: func() (string, error) { return build("shared-altsd", nil, "-race") }, Close: remove}
	plain  = Shared[string]{Make: func() (string, error) { return build("shared-altsd", nil) }, Close: remove}
	static = Shared[string]{Make: func() (string, error) { return build("shared-altsd", []string{"CGO_ENABLED=0"}) }, Close: remove}
	signer = Shared[string]{Make: func() (string, error) {
		if race.Enabled {
			return build("shared-altsd-signer", nil, "-race")
		}
		return build("shared-altsd-signer", nil)
	}, Close: remove}
)

// Path returns the path of the program, built with the race detector where the tests have it. Every account may run it.
func Path() (string, error) {
	if race.Enabled {
		return raced.get()
	}
	return plain.get()
}

// Plain is Path without the race detector, for a program that is measured.
func Plain() (string, error) { return plain.get() }

// Static is Path for the program as the packages have it, which needs no other file of the system's.
func Static() (string, error) { return static.get() }

// Signer is Path for shared-altsd-signer.
func Signer() (string, error) { return signer.get() }

func build(program string, env []string, flags ...string) (path string, err error) {
	// Go keeps the outcome of tests until a file changes that they have looked at themselves.
	for _, dir := range []string{"altscreds", "certbind", "cmd", "internal", "noiseproto", "service"} {
		seen := func(_ string, _ os.DirEntry, err error) error { return err }
		if err := filepath.WalkDir(filepath.Join(root, dir), seen); err != nil {
			return "", fmt.Errorf("the program's sources are not all there: %w", err)
		}
	}
	dir, err := os.MkdirTemp("/tmp", "altsd-program-")
	if err != nil {
		return "", err
	}
	path = filepath.Join(dir, program)
	args := append([]string{"build", "-o", path}, flags...)
	cmd := exec.Command("go", append(args, root+"/cmd/"+program)...)
	cmd.Env = append(os.Environ(), env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return path, fmt.Errorf("cannot build %s: %w\n%s", program, err, out)
	}
	return path, os.Chmod(dir, 0o755)
}

func remove(path string) error { return os.RemoveAll(filepath.Dir(path)) }

// Run runs the program to its end.
func Run(t testing.TB, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	path, err := Path()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err = cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) || ctx.Err() != nil {
		t.Fatalf("%q: %v %v", args, err, ctx.Err())
	}
	return cmd.ProcessState.ExitCode(), out.String(), errs.String()
}

// CopySelf puts a copy of the test binary at a path, where every account may run it.
func CopySelf(path string) error {
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		return err
	}
	return os.WriteFile(path, self, 0o755)
}

// Dir returns a directory, removed when the test ends, that passes rule 23, that every account may enter and that is
// short enough for a socket, whatever TMPDIR is.
func Dir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "altsd-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// Write puts data at a path by rename, as a careful renewal does, and returns the path.
func Write(t testing.TB, path string, data []byte) string {
	t.Helper()
	if err := os.WriteFile(path+".new", data, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
	return path
}
