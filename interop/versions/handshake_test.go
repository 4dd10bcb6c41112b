package versions

import (
	"encoding/json"
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"github.com/shared-altsd/shared-altsd/internal/testprog"
)

// A report is what testapp call prints.
type report struct {
	Channels int            `json:"channels"`
	Failed   int            `json:"failed"`
	Errors   map[string]int `json:"errors"`
	Peer     string         `json:"peer"`
	SeenAs   string         `json:"seen_as"`
}

// An application is a program of users': with the altscreds of a release, or stock grpc-go under the exec of one.
type application struct {
	release *release
	stock   bool
}

func (a application) String() string {
	if a.stock {
		return "stock under exec of " + a.release.name
	}
	return "altscreds of " + a.release.name
}

// command is the application at a daemon.
func (a application) command(socket string, args ...string) (program string, _ []string) {
	if a.stock {
		return a.release.program, append([]string{"exec", "--socket", socket, "--daemon-uid", uid, "--", a.release.app, args[0], "--stock"}, args[1:]...)
	}
	return a.release.app, append(args, "--socket", socket, "--daemon-uid", uid)
}

// serve starts the application as a server of the machine and returns its address.
func (a application) serve(m *machine) (address string) {
	m.t.Helper()
	program, args := a.command(m.socket, "serve", "--address", "127.0.0.1:0")
	talker := testprog.Talk(m.t, a.String(), exec.Command("sh", append([]string{"-c", `"$@" & read -r _; kill $!; wait $!`, "sh", program}, args...)...))
	line := talker.Line()
	address, ok := strings.CutPrefix(line, "listening on ")
	if !ok {
		m.t.Fatalf("%v says %q", a, line)
	}
	return address
}

// call makes a channel from the machine to a server that has to be target's.
func (a application) call(m, target *machine, address string) report {
	m.t.Helper()
	program, args := a.command(m.socket, "call", "--address", address, "--target", target.account())
	o := run(m.t, "", program, args...)
	var r report
	if err := json.Unmarshal([]byte(o.out), &r); err != nil {
		m.t.Fatalf("%v: %v: %v", a, err, o)
	}
	return r
}

// TestHandshakes: daemons of the last release and of today in both roles, with programs of both at each.
func TestHandshakes(t *testing.T) {
	s := newSite(t)
	was, is := releases(t)
	clients, servers := map[*release]*machine{}, map[*release]*machine{}
	for _, r := range both(t) {
		clients[r] = s.machine("client-" + r.name + ".test").start(r)
		servers[r] = s.machine("server-" + r.name + ".test").start(r)
	}
	// What the packages have.
	static := s.machine("static.test").start(was)
	programs := []application{{was, false}, {is, false}, {was, true}, {is, true}}
	good := 0
	for _, accepts := range both(t) {
		for _, server := range programs {
			at := servers[accepts]
			address := server.serve(at)
			for _, dials := range []*machine{clients[was], clients[is], static} {
				if dials.release == was && accepts == was && server.release == was {
					continue // the last release's own tests
				}
				for _, client := range programs {
					r := client.call(dials, at, address)
					if r.Failed != 0 || r.Peer != at.account() || r.SeenAs != dials.account() {
						t.Errorf("client: %v, daemon of %s; server: %v, daemon of %s: %+v", client, dials.release.name, server, accepts.name, r)
						continue
					}
					good++
				}
			}
		}
	}
	fmt.Printf("| last release and today: %d pairs of programs and daemons, one channel each\n", good)
}
