package testprog

import (
	"fmt"
	"os"
	"sync"
	"testing"
)

// Main is for a package's TestMain: it runs the tests, ends what they have shared, and gives the exit status.
func Main(m *testing.M, ends ...func() error) (code int) {
	// Otherwise each process with the race detector waits a second at its end.
	os.Setenv("GORACE", "atexit_sleep_ms=0")
	code = m.Run()
	for _, end := range append(ends, raced.End, plain.End, static.End, signer.End) {
		if err := end(); err != nil {
			fmt.Fprintln(os.Stderr, "FAIL: at the end of the tests:", err)
			code = 1
		}
	}
	return code
}

// Shared is what the tests of a package share: made when the first of them asks, and ended by Main.
type Shared[T comparable] struct {
	Make func() (T, error)
	// Close ends it, also what Make has returned with an error, unless that is zero.
	Close func(T) error

	once  sync.Once
	value T
	err   error
}

// Get returns it, the same each time.
func (s *Shared[T]) Get(t testing.TB) T {
	t.Helper()
	v, err := s.get()
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func (s *Shared[T]) get() (T, error) {
	s.once.Do(func() { s.value, s.err = s.Make() })
	return s.value, s.err
}

// End is for Main.
func (s *Shared[T]) End() error {
	var none T
	if s.value == none {
		return nil
	}
	return s.Close(s.value)
}
