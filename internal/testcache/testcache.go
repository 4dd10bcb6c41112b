// Package testcache has what tests download and build, kept from run to run.
package testcache

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// limit is how long one download or build may take: a registry that is not reached must not hang the tests.
const limit = 6 * time.Minute

// ErrMissing is of a tool or download that is not to be had: what needs it is skipped.
var ErrMissing = errors.New("not to be had here (on Debian, make interop-all and interop-programs install tools; " +
	"downloads need the registries)")

// Dir is where all of it is.
func Dir() (string, error) {
	dir := os.Getenv("SHARED_ALTSD_CACHE")
	if dir == "" {
		base, err := os.UserCacheDir()
		if err != nil {
			return "", fmt.Errorf("name a directory for downloads in SHARED_ALTSD_CACHE: %w", err)
		}
		dir = filepath.Join(base, "shared-altsd")
	}
	return dir, os.MkdirAll(dir, 0o755)
}

// Get returns a directory that fill has made, now or in an earlier run of the same sources, if it is made of any.
func Get(name string, sources []string, fill func(dir string) error) (string, error) {
	cache, err := Dir()
	if err != nil {
		return "", err
	}
	if len(sources) > 0 {
		h := sha256.New()
		for _, path := range sources {
			b, err := os.ReadFile(path)
			if err != nil {
				return "", err
			}
			fmt.Fprintf(h, "%s %d\n%s", path, len(b), b)
		}
		name = fmt.Sprintf("%s-%.12x", name, h.Sum(nil))
	}
	dir := filepath.Join(cache, name)
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	// What is whole gets its name, so that nothing that was broken off is ever taken for it.
	unfinished, err := os.MkdirTemp(cache, name+".unfinished-")
	if err != nil {
		return "", err
	}
	if err := fill(unfinished); err != nil {
		return "", errors.Join(err, os.RemoveAll(unfinished))
	}
	if err := os.Rename(unfinished, dir); err != nil && !errors.Is(err, os.ErrExist) {
		return "", errors.Join(err, os.RemoveAll(unfinished))
	}
	return dir, nil
}

// Run runs a command that downloads or builds. What fails is ErrMissing only if there is no such command.
func Run(env []string, dir, name string, args ...string) error {
	if _, err := exec.LookPath(name); err != nil {
		return fmt.Errorf("%w: %w", ErrMissing, err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), env...)
	cmd.WaitDelay = time.Second // for what it has started and left
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", cmd, err, out)
	}
	return nil
}
