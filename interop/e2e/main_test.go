package e2e

import (
	"fmt"
	"os"
	"sync"
	"testing"
	"time"
)

const (
	// patience bounds every wait for something that should happen at once: only a broken program uses it up.
	patience = 60 * time.Second
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
	code := m.Run()
	if made.world != nil {
		if err := made.world.end(); err != nil {
			fmt.Fprintln(os.Stderr, "FAIL: at the end of the tests:", err)
			code = 1
		}
	}
	os.Exit(code)
}

var made struct {
	once  sync.Once
	world *world
	err   error
}

// theWorld gives what the tests share, made when the first of them asks.
func theWorld(t testing.TB) *world {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, to run programs as several accounts: run the tests of this package as root")
	}
	made.once.Do(func() { made.world, made.err = newWorld() })
	if made.err != nil {
		t.Fatal(made.err)
	}
	return made.world
}
