package matrix

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/shared-altsd/shared-altsd/internal/testcache"
)

var cpp = &kind{name: "c++", how: "`shared_altsd.h`", build: buildCPP, serverCap: 40, attributes: true, serverIdentity: true,
	argv: func(w *world, d *daemon, args []string) []string {
		return append([]string{filepath.Join(w.dir, "cpp", "peer"), args[0], d.socket}, args[1:]...)
	},
	version: func(*world) (string, error) {
		out, err := exec.Command("pkg-config", "--modversion", "grpc++").Output()
		return "gRPC " + strings.TrimSpace(string(out)) + " (Debian 12)", err
	}}

// cppNew is the newest gRPC that Debian has, as it is today: that has no number to be named.
var cppNew = &kind{name: "c++-new", slow: true, how: "`shared_altsd.h`", build: buildNewCPP, serverCap: 100, attributes: true, serverIdentity: true,
	argv: func(w *world, d *daemon, args []string) []string {
		dir := filepath.Join(w.dir, "cpp-new")
		return append([]string{filepath.Join(dir, "ld.so"), "--library-path", dir, filepath.Join(dir, "peer"), args[0], d.socket}, args[1:]...)
	},
	version: func(*world) (string, error) { return "gRPC of Debian's experimental (1.83 in 2026-11)", nil }}

// buildNewCPP builds the program in a root of its own, by the compiler there, and copies it out with its loader and libraries.
func buildNewCPP(w *world) error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("chroot is for root: %w", testcache.ErrMissing)
	}
	from, err := testcache.Get("cpp-new", nil, func(dir string) error { return fetch("../cpp/newest.sh", dir) })
	if err != nil {
		return err
	}
	root := filepath.Join(from, "root")
	src := filepath.Join(root, "src")
	if err := os.RemoveAll(src); err != nil {
		return err
	}
	for to, from := range map[string]string{"interop/cpp": "../cpp", "clients/cpp": "../../clients/cpp"} {
		if err := os.CopyFS(filepath.Join(src, to), os.DirFS(from)); err != nil {
			return err
		}
	}
	proto, err := os.ReadFile("../interop.proto")
	if err == nil {
		err = os.WriteFile(filepath.Join(src, "interop/interop.proto"), proto, 0o644)
	}
	if err != nil {
		return err
	}
	// The version of C++ that abseil asks for.
	make := exec.Command("chroot", root, "/usr/bin/make", "-s", "-C", "/src/interop/cpp", "BUILD=/src/build", "CXX=/usr/bin/g++", "STD=c++17")
	if out, err := make.CombinedOutput(); err != nil {
		return fmt.Errorf("make -C interop/cpp in %s: %w: %s", root, err, out)
	}
	const loader = "/lib64/ld-linux-x86-64.so.2"
	list, err := exec.Command("chroot", root, loader, "--list", "/src/build/peer").Output()
	if err != nil {
		return fmt.Errorf("the libraries of %s/src/build/peer: %w", root, err)
	}
	dir := filepath.Join(w.dir, "cpp-new")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	files := map[string]string{"/src/build/peer": "peer", loader: "ld.so"}
	for _, m := range regexp.MustCompile(`(?m)^\s+(\S+) => (/\S+)`).FindAllStringSubmatch(string(list), -1) {
		files[m[2]] = m[1]
	}
	for from, to := range files {
		b, err := os.ReadFile(filepath.Join(root, from))
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, to), b, 0o755)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func buildCPP(w *world) error {
	if err := exec.Command("pkg-config", "--exists", "grpc++", "protobuf").Run(); err != nil {
		return fmt.Errorf("libgrpc++-dev: %w", testcache.ErrMissing)
	}
	if _, err := exec.LookPath("grpc_cpp_plugin"); err != nil {
		return fmt.Errorf("protobuf-compiler-grpc: %w", testcache.ErrMissing)
	}
	out, err := exec.Command("make", "-s", "-C", "../cpp", "BUILD="+filepath.Join(w.dir, "cpp")).CombinedOutput()
	if err != nil {
		return fmt.Errorf("make -C interop/cpp: %w: %s", err, out)
	}
	return nil
}
