package matrix

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/shared-altsd/shared-altsd/internal/testcache"
)

var javaNew, javaOld = javaKind("java", newJava), javaKind("java-old", oldJava)

func init() {
	javaNew.serverIdentity = true // which gRPC shows a client from 1.71 on
}

// javaKind is a version of gRPC for Java.
func javaKind(name, version string) *kind {
	built := func(w *world) string { return filepath.Join(w.dir, "java-"+version) }
	return &kind{name: name, how: "`exec`", slow: true, serverCap: 100,
		version: func(*world) (string, error) { return "grpc-alts " + version, nil },
		build:   func(w *world) error { return buildJava(built(w), version) },
		argv: func(w *world, d *daemon, args []string) []string {
			if args[0] == "server" {
				_, port, _ := strings.Cut(args[1], ":")
				args = []string{"server", port}
			}
			return append(underExec(w, d), append([]string{"java", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xmx1g",
				"-XX:-UsePerfData", "-cp", filepath.Join(built(w), "lib", "*"), "Peer"}, args...)...)
		}}
}

func buildJava(dir, version string) error {
	for tool, pkg := range map[string]string{"java": "default-jdk-headless", "mvn": "maven"} {
		if _, err := exec.LookPath(tool); err != nil {
			return fmt.Errorf("%s: %w", pkg, testcache.ErrMissing)
		}
	}
	cache, err := testcache.Dir()
	if err != nil {
		return err
	}
	err = testcache.Run(nil, "", "mvn", "--quiet", "--batch-mode", "--file", "../java/pom.xml", "package",
		"-Dgrpc.version="+version, "-DbuildDirectory="+dir, "-Dmaven.repo.local="+filepath.Join(cache, "maven"))
	if err != nil && !strings.Contains(err.Error(), "COMPILATION ERROR") {
		return fmt.Errorf("%w: %w", testcache.ErrMissing, err)
	}
	return err
}
