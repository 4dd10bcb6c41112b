package e2e

import (
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/shared-altsd/shared-altsd/internal/testprog"
)

const (
	// soon bounds a refusal on both sides: a second on a machine that has nothing else to do.
	soon = 5 * time.Second
	// roleVariable makes the test binary one of the programs that the tests run.
	roleVariable = "SHARED_ALTSD_E2E"
)

func TestMain(m *testing.M) {
	switch role := os.Getenv(roleVariable); role {
	case "":
	case "app":
		runApp()
		return
	case "daemon":
		fmt.Fprintln(os.Stderr, enterWorld(os.Args[1:]))
		os.Exit(1)
	}
	os.Exit(testprog.Main(m, shared.End))
}

var shared = testprog.Shared[*world]{Make: newWorld, Close: (*world).end}

// theWorld returns what the tests share.
func theWorld(t testing.TB) *world {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, to run programs as several accounts: run the tests of this package as root")
	}
	return shared.Get(t)
}
