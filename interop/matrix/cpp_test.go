package matrix

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
)

var cpp = &kind{name: "c++", how: "`shared_altsd.h`", build: buildCPP, serverCap: 40, attributes: true, serverIdentity: true,
	argv: func(w *world, d *daemon, args []string) []string {
		return append([]string{filepath.Join(w.dir, "cpp", "peer"), args[0], d.socket}, args[1:]...)
	},
	version: func(*world) (string, error) {
		out, err := exec.Command("pkg-config", "--modversion", "grpc++").Output()
		return "gRPC " + strings.TrimSpace(string(out)) + " (Debian 12)", err
	}}

func buildCPP(w *world) error {
	if err := exec.Command("pkg-config", "--exists", "grpc++", "protobuf").Run(); err != nil {
		return fmt.Errorf("libgrpc++-dev: %w", errMissing)
	}
	if _, err := exec.LookPath("grpc_cpp_plugin"); err != nil {
		return fmt.Errorf("protobuf-compiler-grpc: %w", errMissing)
	}
	out, err := exec.Command("make", "-s", "-C", "../cpp", "BUILD="+filepath.Join(w.dir, "cpp")).CombinedOutput()
	if err != nil {
		return fmt.Errorf("make -C interop/cpp: %w: %s", err, out)
	}
	return nil
}
