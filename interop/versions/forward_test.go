package versions

import (
	"regexp"
	"strings"
	"testing"
)

// TestForwards: connect and listen of both releases, at daemons of both, carry bytes both ways to an end that is one.
func TestForwards(t *testing.T) {
	s := newSite(t)
	sent := strings.Repeat("0123456789abcdef", 16<<10) // 256 KiB: more than any buffer on the way
	daemons := map[*release][2]*machine{}
	for _, r := range both(t) {
		daemons[r] = [2]*machine{s.machine("from-" + r.name + ".test").start(r), s.machine("to-" + r.name + ".test").start(r)}
	}
	port := regexp.MustCompile(`listen=\[127\.0\.0\.1:([0-9]+)`)
	for _, accepts := range both(t) {
		for _, listen := range both(t) {
			to := daemons[accepts][1]
			_, line := background(t, "listen starts", listen.program, "listen", "--socket", to.socket, "--daemon-uid", uid,
				"--listen", "127.0.0.1:0", "--service", "echo", "--allow", "*@.test", "--", "cat")
			found := port.FindStringSubmatch(line)
			if found == nil {
				t.Fatalf("no address in %q", line)
			}
			for _, dials := range both(t) {
				for _, connect := range both(t) {
					from := daemons[dials][0]
					o := run(t, sent, connect.program, "connect", "--socket", from.socket, "--daemon-uid", uid, "--dial", "127.0.0.1:"+found[1],
						"--service", "echo", to.account()+":7000")
					if o.code != 0 || o.out != sent {
						t.Errorf("connect of %s, daemon of %s; listen of %s, daemon of %s: exit status %d, %d bytes: %s", connect.name, dials.name,
							listen.name, accepts.name, o.code, len(o.out), o.err)
					}
				}
			}
		}
	}
}
