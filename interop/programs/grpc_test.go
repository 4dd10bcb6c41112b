package programs

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/shared-altsd/shared-altsd/internal/testcache"
	"github.com/shared-altsd/shared-altsd/internal/testprog"
)

// A grpcKind is a gRPC library with what stands beside it.
type grpcKind struct {
	name string
	alts bool // the library speaks ALTS itself, and needs neither connect nor listen
	// build makes the program, below the world's directory.
	build func(w *world) error
	// argv is the command of the program, with its role and what is behind it.
	argv func(w *world, m *machine, args ...string) []string
	// For docs/clients.md.
	version func(w *world) (string, error)
	// broken is the status of a call on a connection that is refused, "14" (UNAVAILABLE) if it is empty.
	broken string
}

var (
	goKind = &grpcKind{name: "altscreds", alts: true, build: func(*world) error { return nil },
		argv: func(w *world, _ *machine, args ...string) []string {
			return append([]string{"/usr/bin/env", roleVariable + "=grpc", w.self}, args...)
		},
		version: func(*world) (string, error) { return "grpc-go " + grpc.Version, nil }}
	cppKind = &grpcKind{name: "c++", alts: true, build: buildCPP,
		argv: func(w *world, m *machine, args ...string) []string {
			return append([]string{filepath.Join(w.dir, "cpp-peer"), args[0], m.socket}, args[1:]...)
		},
		version: output("gRPC %s (Debian 12)", "pkg-config", "--modversion", "grpc++")}
	nodeKind = &grpcKind{name: "node", build: buildNode,
		argv: func(w *world, _ *machine, args ...string) []string {
			return append([]string{"node", filepath.Join(w.dir, "node", "peer.js")}, args...)
		},
		version: found("@grpc/grpc-js %s", "../node/package-lock.json", `(?s)"node_modules/@grpc/grpc-js": \{\s+"version": "(.*?)"`)}
	rustKind = &grpcKind{name: "rust", build: buildRust, broken: "2",
		argv: func(w *world, _ *machine, args ...string) []string {
			return append([]string{filepath.Join(w.dir, "rust-peer")}, args...)
		},
		version: found("tonic %s", "../rust/Cargo.lock", `name = "tonic"\nversion = "(.*?)"`)}
	rubyKind = &grpcKind{name: "ruby", build: buildRuby,
		argv: func(w *world, _ *machine, args ...string) []string {
			return append([]string{"/usr/bin/ruby", filepath.Join(w.dir, "peer.rb")}, args...)
		},
		version: output("grpc %s (Debian 12)", "/usr/bin/ruby", "-e", `require "grpc"; print GRPC::VERSION`)}

	grpcKinds = []*grpcKind{goKind, cppKind, nodeKind, rustKind, rubyKind}
)

func output(format, name string, args ...string) func(*world) (string, error) {
	return func(*world) (string, error) {
		out, err := exec.Command(name, args...).Output()
		return fmt.Sprintf(format, strings.TrimSpace(string(out))), err
	}
}

func found(format, path, pattern string) func(*world) (string, error) {
	return func(*world) (string, error) {
		b, err := os.ReadFile(path)
		if err != nil {
			return "", err
		}
		m := regexp.MustCompile(pattern).FindSubmatch(b)
		if m == nil {
			return "", fmt.Errorf("%s does not match %s", path, pattern)
		}
		return fmt.Sprintf(format, m[1]), nil
	}
}

func buildCPP(w *world) error {
	sources := []string{"../interop.proto", "../cpp/peer.cc", "../cpp/Makefile", "../../clients/cpp/shared_altsd.h"}
	from, err := testcache.Get("programs-cpp", sources, func(dir string) error {
		return testcache.Run(nil, "", "make", "-s", "-C", "../cpp", "BUILD="+dir)
	})
	if err != nil {
		return err
	}
	return install(filepath.Join(from, "peer"), filepath.Join(w.dir, "cpp-peer"), 0o755)
}

func buildNode(w *world) error {
	const lock = "package-lock.json"
	from, err := testcache.Get("programs-node", []string{"../node/package.json", "../node/" + lock}, func(dir string) error {
		return errors.Join(install("../node/package.json", filepath.Join(dir, "package.json"), 0o644),
			install("../node/"+lock, filepath.Join(dir, lock), 0o644),
			testcache.Run(nil, dir, "npm", "ci", "--silent", "--no-audit", "--no-fund", "--ignore-scripts"))
	})
	if err != nil {
		return err
	}
	to := filepath.Join(w.dir, "node")
	// The links in node_modules/.bin are of no use here.
	copying := exec.Command("cp", "-r", from, to)
	if out, err := copying.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", copying, err, out)
	}
	return errors.Join(os.Chmod(to, 0o755), install("../node/peer.js", filepath.Join(to, "peer.js"), 0o644))
}

func buildRust(w *world) error {
	cache, err := testcache.Dir()
	if err != nil {
		return err
	}
	target := filepath.Join(cache, "programs-rust-target") // kept for the next change of our own sources
	sources := []string{"../rust/Cargo.toml", "../rust/Cargo.lock", "../rust/src/main.rs"}
	from, err := testcache.Get("programs-rust", sources, func(dir string) error {
		return errors.Join(testcache.Run([]string{"CARGO_TARGET_DIR=" + target}, "../rust", "cargo", "build", "--locked", "--quiet"),
			install(filepath.Join(target, "debug", "peer"), filepath.Join(dir, "peer"), 0o755))
	})
	if err != nil {
		return err
	}
	return install(filepath.Join(from, "peer"), filepath.Join(w.dir, "rust-peer"), 0o755)
}

func buildRuby(w *world) error {
	if err := exec.Command("/usr/bin/ruby", "-e", `require "grpc"`).Run(); err != nil {
		return fmt.Errorf("ruby-grpc: %w: %w", testcache.ErrMissing, err)
	}
	return install("../ruby/peer.rb", filepath.Join(w.dir, "peer.rb"), 0o644)
}

func install(from, to string, mode os.FileMode) error {
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, b, mode)
}

var grpcBuilds = map[*grpcKind]func(w *world) error{}

func init() {
	for _, k := range grpcKinds {
		var once sync.Once
		var err error
		grpcBuilds[k] = func(w *world) error {
			once.Do(func() { err = k.build(w) })
			return err
		}
	}
}

func (k *grpcKind) need(t *testing.T, w *world) {
	t.Helper()
	if err := grpcBuilds[k](w); errors.Is(err, testcache.ErrMissing) {
		t.Skipf("%s: %v", k.name, err)
	} else if err != nil {
		t.Fatalf("%s: %v", k.name, err)
	}
}

// privateDir makes a directory in an account's own that nobody else may enter.
func (m *machine) privateDir(t *testing.T, a account, name string) string {
	t.Helper()
	dir := filepath.Join(m.home(a), name)
	if err := errors.Join(os.MkdirAll(dir, 0o700), os.Chown(dir, int(a.uid), int(a.uid))); err != nil {
		t.Fatal(err)
	}
	return dir
}

// grpcServer starts a server of the kind on beta, as web, and behind listen --http if the library knows no ALTS.
func grpcServer(t *testing.T, w *world, k *grpcKind, port int) (behind *testprog.Process) {
	t.Helper()
	web := w.beta.account("web")
	at := fmt.Sprintf("0.0.0.0:%d", port)
	switch {
	case !k.alts:
		at = filepath.Join(w.beta.privateDir(t, web, "grpc"), k.name)
		os.Remove(at)
	case k == goKind:
		at = fmt.Sprint(port)
	}
	p := testprog.Talk(t, k.name+" server", w.beta.command(web, k.argv(w, w.beta, "server", at)...))
	if got := p.Line(); !strings.HasPrefix(got, "port ") {
		t.Fatalf("%s: %q", k.name, got)
	}
	if k.alts {
		return nil
	}
	return w.beta.forward(t, web, "--listen", fmt.Sprintf(":%d", port), "--target", "unix:"+at, "--http",
		"--allow", "alice@alpha.example.com")
}

// grpcClient starts a client of the kind on alpha, beside connect if the library knows no ALTS.
func grpcClient(t *testing.T, w *world, k *grpcKind, who account, port int, connect ...string) *testprog.Talker {
	t.Helper()
	const server = "web@beta.example.com"
	if k.alts {
		target := fmt.Sprintf("beta.example.com:%d", port)
		return testprog.Talk(t, k.name+" client", w.alpha.command(who, k.argv(w, w.alpha, "client", target, server)...))
	}
	argv := append([]string{"shared-altsd", "connect"}, connect...)
	argv = append(argv, "--listen", "unix:grpc", "--setenv", "GRPC=%d/grpc", fmt.Sprintf("%s:%d", server, port), "--",
		"/bin/sh", "-c", `exec "$@" "$GRPC"`, "sh")
	return testprog.Talk(t, k.name+" client", w.alpha.command(who, append(argv, k.argv(w, w.alpha, "client")...)...))
}

// TestGRPC has a client of each library call a server of each, but for the pairs that need no forward: those are the matrix's.
func TestGRPC(t *testing.T) {
	w := theWorld(t)
	for _, k := range grpcKinds {
		k.need(t, w)
	}
	const messages, largest = 24, 1 << 20
	digest := "ok " + echoDigest(messages, largest)
	alice, bob := w.alpha.account("alice"), w.alpha.account("bob")
	who := fmt.Sprintf("ok alice@alpha.example.com %d", alice.uid)
	var lines []string
	for i, server := range grpcKinds {
		t.Run("to "+server.name, func(t *testing.T) {
			port := 7101 + i
			grpcServer(t, w, server, port)
			var cells []string
			for _, client := range grpcKinds {
				if client.alts && server.alts {
					cells = append(cells, "see above")
					continue
				}
				t.Run("from "+client.name, func(t *testing.T) {
					begun := time.Now()
					c := grpcClient(t, w, client, alice, port, "--grpc")
					for _, command := range []string{"greet", "forged"} {
						if got := c.Ask(command); got != who && !strings.HasPrefix(got, who+" ") {
							t.Errorf("%s: %q", command, got)
						}
					}
					for _, row := range []struct {
						command string
						want    []string
					}{
						{fmt.Sprint("echo ", messages, " ", largest), []string{digest}},
						{"turns 50", []string{"ok 50"}},
						{"fail", []string{"ok 9 no: why why"}},
						{"deadline", []string{"ok 4", "ok 1"}}, // CANCELLED where the server's timer was the first
						{"greet", nil},
					} {
						if got := c.Ask(row.command); row.want != nil && !slices.Contains(row.want, got) {
							t.Errorf("%s: %q, not %q", row.command, got, row.want)
						}
					}
					t.Logf("%v", time.Since(begun).Round(time.Millisecond))
				})
				cells = append(cells, "yes")
			}
			lines = append(lines, fmt.Sprintf("| %s | %s |\n", server.name, strings.Join(cells, " | ")))
			if server.alts {
				return
			}
			for _, client := range grpcKinds {
				want := "error " + cmp.Or(client.broken, "14") + " "
				if got := grpcClient(t, w, client, bob, port, "--grpc").Ask("greet"); !strings.HasPrefix(got, want) {
					t.Errorf("bob, whom nobody lets in, by %s: %q", client.name, got)
				}
			}
			// A forward's own protocol carries gRPC as well.
			if got := grpcClient(t, w, rubyKind, alice, port).Ask("greet"); got != who {
				t.Errorf("by altsd-tcp/1: %q", got)
			}
		})
	}
	if !t.Failed() {
		compareGRPC(t, w, lines)
	}
}

// What each library's user sees while the program behind the forward is down.
func TestGRPCBackendDown(t *testing.T) {
	w := theWorld(t)
	web, alice := w.beta.account("web"), w.alpha.account("alice")
	const port = 7120
	listen := w.beta.forward(t, web, "--listen", fmt.Sprintf(":%d", port), "--target",
		"unix:"+filepath.Join(w.beta.privateDir(t, web, "grpc"), "nobody"), "--http", "--allow", "alice@alpha.example.com")
	for _, k := range grpcKinds {
		k.need(t, w)
		got := grpcClient(t, w, k, alice, port, "--grpc").Ask("greet")
		if !strings.HasPrefix(got, "error 14 ") || !strings.Contains(got, "the program behind this forward does not answer") {
			t.Errorf("%s: %q", k.name, got)
		}
	}
	if _, err := listen.Log.WaitText(0, "the backend cannot be reached"); err != nil {
		t.Error(err)
	}
}
