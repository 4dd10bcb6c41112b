package daemon

import (
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"github.com/shared-altsd/shared-altsd/certbind"
	"github.com/shared-altsd/shared-altsd/internal/testca"
	"github.com/shared-altsd/shared-altsd/internal/testprog"
)

// What is asked for while the task is done is done once more, however often, and nobody who asks waits.
func TestSideline(t *testing.T) {
	began, gate := make(chan struct{}), make(chan struct{})
	done := make(chan struct{})
	s := newSideline(done, func() {
		began <- struct{}{}
		<-gate
	})
	s.ask()
	<-began
	for range 100 {
		s.ask()
	}
	gate <- struct{}{}
	<-began // the second time
	// It was asked for once more only: nothing is left of the hundred.
	if n := len(s.asked); n != 0 {
		t.Errorf("asked for %d times more", n)
	}
	close(done)
	gate <- struct{}{}
}

// TestRule10ReloadTakesLong: while a certificate is being prepared nothing of the main loop waits, and handshakes are
// attested; a reload that hangs is seen.
func TestRule10ReloadTakesLong(t *testing.T) {
	dir := testprog.Dir(t)
	ca := testca.MustCA(t, testca.Options{})
	pem := func() []byte { return testca.MustIssue(t, ca, testca.Leaf{Hosts: []string{"a.test"}}).PEM() }
	file := filepath.Join(dir, "machine.pem")
	f := Files{Credentials: write(t, file, pem()), CAs: []CAFile{{File: write(t, filepath.Join(dir, "ca.pem"), ca.PEM())}}}
	l, err := f.load("")
	if err != nil {
		t.Fatal(err)
	}
	began, gate := make(chan struct{}, 1), make(chan struct{}, 1)
	gate <- struct{}{}
	m, err := certbind.NewMachine(certbind.MachineConfig{Credential: l.credential, Name: l.name, Trust: l.trust,
		NewStatic: func() (public, private [32]byte, err error) {
			began <- struct{}{}
			<-gate
			return
		}})
	if err != nil {
		t.Fatal(err)
	}
	<-began
	r := newReloader(f, f.state(), m, noStandard(), &listMemory{marks: certbind.Marks{}}, slog.New(slog.DiscardHandler),
		func(error, *refusal) {})
	if r.hangs() {
		t.Error("it hangs before anything began")
	}
	write(t, file, pem())
	outcome := make(chan error)
	go func() {
		_, err := r.Reload(reloadRequest{})
		outcome <- err
	}()
	<-began
	r.poll()
	r.poll()
	r.remember()
	if r.Refused() != nil || r.hangs() {
		t.Error("a reload that is under way is refused, or hangs")
	}
	if _, err := m.Attest(t.Context(), "alice", nil); err != nil || m.Credential() != l.credential {
		t.Errorf("the old certificate does not serve: %v", err)
	}
	long := time.Now().Add(-maxReload - time.Second)
	r.began.Store(&long)
	if !r.hangs() {
		t.Error("a reload that hangs is not seen")
	}
	gate <- struct{}{}
	if err := <-outcome; err != nil || m.Credential() == l.credential || r.hangs() {
		t.Errorf("then: %v", err)
	}
}
