package versions

import (
	"encoding/json"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/shared-altsd/shared-altsd/internal/testprog"
)

// TestStanding: a connection that was made by one release is judged, and ended, by the other, with the altscreds of either.
func TestStanding(t *testing.T) {
	was, is := releases(t)
	for _, test := range []struct{ begins, ends, library *release }{
		{was, is, was}, {was, is, is}, {is, was, was}, {is, was, is},
	} {
		t.Run(test.begins.name+" to "+test.ends.name+" with altscreds of "+test.library.name, func(t *testing.T) {
			s := newSite(t)
			client, server := s.machine("client.test").start(test.begins), s.machine("server.test").start(test.begins)
			program := application{test.library, false}
			address := program.serve(server)
			path, args := program.command(client.socket, "call", "--address", address, "--target", server.account(), "--for", "5m", "--keep",
				"--pause", "10ms")
			cmd := exec.Command(path, args...)
			var out strings.Builder
			cmd.Stdout = &out
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { cmd.Process.Kill() })
			client.waitStanding("watched")
			client.start(test.ends)
			client.waitStanding("watched")
			if o := client.tell(test.ends, "deny", "--denied", s.path("client.test.denied"), server.account()); o.code != 0 {
				t.Fatal(o)
			}
			client.waitStanding("ended")
			cmd.Process.Signal(syscall.SIGTERM)
			cmd.Wait() // its report says what came out
			var r report
			if err := json.Unmarshal([]byte(out.String()), &r); err != nil {
				t.Fatalf("%v: %q", err, &out)
			}
			if r.Channels-r.Failed == 0 || len(r.Errors) == 0 && r.Failed > 0 {
				t.Errorf("%+v", r)
			}
		})
	}
}

// waitStanding waits until the daemon counts a connection that stands in a way.
func (m *machine) waitStanding(what string) {
	m.t.Helper()
	var s struct {
		Standing map[string]any `json:"standing"`
	}
	for end := time.Now().Add(testprog.Patience); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		o := m.tell(m.release, "status", "--json")
		if err := json.Unmarshal([]byte(o.out), &s); err != nil {
			m.t.Fatalf("%v: %v", err, o)
		}
		if n, _ := s.Standing[what].(float64); n > 0 {
			return
		}
	}
	m.t.Fatalf("no connection is %s: %v", what, s.Standing)
}
