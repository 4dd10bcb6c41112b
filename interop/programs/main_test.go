package programs

import (
	"fmt"
	"os"
	"os/exec"
	"testing"

	"github.com/shared-altsd/shared-altsd/internal/testprog"
)

const (
	// wanted runs these tests: they need programs that no other test does.
	wanted = "SHARED_ALTSD_PROGRAMS"
	// roleVariable makes the test binary one of the programs that the tests run.
	roleVariable = "SHARED_ALTSD_PROGRAMS_ROLE"
)

// roles are what the test binary can be besides. A role has the arguments after the program's name.
var roles = map[string]func(args []string) error{"machine": beMachine, "enter": enter}

func TestMain(m *testing.M) {
	if role := roles[os.Getenv(roleVariable)]; role != nil {
		if err := role(os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	if os.Getenv(wanted) == "" {
		fmt.Println("These tests are run by make interop-programs.")
		return
	}
	os.Exit(testprog.Main(m, shared.End))
}

var shared = testprog.Shared[*world]{Make: newWorld, Close: (*world).end}

// theWorld returns what the tests share.
func theWorld(t testing.TB) *world {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, for networks and accounts of the machines' own: run make interop-programs as root")
	}
	need(t, "ip")
	return shared.Get(t)
}

// need skips a test without these programs, each a name or a path.
func need(t testing.TB, programs ...string) {
	t.Helper()
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			t.Skipf("%v: make interop-programs installs it on Debian", err)
		}
	}
}
