package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"
)

// soakDialers open channels at the same time.
const soakDialers = 8

// A look is what a process holds at one time.
type look struct{ RSS, Threads, Descriptors int } // KiB, and numbers

func (p *process) look() (l look, err error) {
	var err1, err2 error
	l.RSS, err1 = p.memory("VmRSS")
	l.Threads, err2 = p.memory("Threads")
	fds, err3 := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.cmd.Process.Pid))
	l.Descriptors = len(fds)
	return l, errors.Join(err1, err2, err3)
}

// soak opens and closes channels of each variant in turn, for a slice of time each between two looks at the processes, until that many
// have been made, and fails with the first that fails. Then it compares what each daemon held in the last and in the first quarter of
// what followed a tenth of them.
func (w *world) soak(out io.Writer, handshakes int, slice time.Duration) error {
	fmt.Fprintf(out, "%d handshakes, by %d at a time, of %d kinds of client; what the processes held on the way:\n\n", handshakes, soakDialers, len(w.stations))
	fmt.Fprintf(out, "| handshakes | process | memory, MiB | threads | descriptors |\n|---|---|---|---|---|\n")
	looks := map[*process][]look{}
	began, next := time.Now(), 0
	for done := 0; done < handshakes; {
		for _, s := range w.stations {
			a, err := s.client.ask(request{Do: "channels", Dialers: soakDialers, For: slice})
			if err != nil {
				return fmt.Errorf("%s, after %d handshakes: %w", s.Name, done, err)
			}
			done += a.N
		}
		show := done >= next
		for _, s := range w.stations {
			for _, p := range s.processes() {
				l, err := p.look()
				if err != nil {
					return err
				}
				if done >= handshakes/10 {
					looks[p] = append(looks[p], l)
				}
				if show {
					fmt.Fprintf(out, "| %d | %s: %s | %.1f | %d | %d |\n", done, s.Name, p.name, float64(l.RSS)/1024, l.Threads, l.Descriptors)
				}
			}
		}
		if show {
			next += handshakes / 5
		}
	}
	fmt.Fprintf(out, "\nNone failed, in %v.\n", time.Since(began).Round(time.Second))
	var grown error
	for _, s := range w.stations {
		for _, p := range []*process{s.clientDaemon, s.serverDaemon} {
			if err := flat(looks[p]); err != nil {
				grown = errors.Join(grown, fmt.Errorf("%s: %s: %w", s.Name, p.name, err))
			}
		}
	}
	return grown
}

// flat compares the last quarter of looks with the first. A heap doubles between two collections and the Go runtime keeps threads that
// it once needed, so single looks vary; the least of many does not, unless something stays. Between the beginnings of the two quarters
// lie two thirds of the handshakes, and a daemon does half of them: of a million, 340,000. What stays of each, be it 100 bytes, is
// 32 MiB then, and a descriptor of each thousandth is 340.
func flat(looks []look) error {
	if len(looks) < 8 {
		return fmt.Errorf("only %d looks: ask for more handshakes", len(looks))
	}
	least := func(of []look, what func(look) int) int {
		n := what(of[0])
		for _, l := range of {
			n = min(n, what(l))
		}
		return n
	}
	quarter := len(looks) / 4
	first, last := looks[:quarter], slices.Clone(looks[len(looks)-quarter:])
	for _, of := range []struct {
		name  string
		what  func(look) int
		slack int
	}{
		{"memory, KiB", func(l look) int { return l.RSS }, 8 << 10},
		{"threads", func(l look) int { return l.Threads }, 8},
		{"descriptors", func(l look) int { return l.Descriptors }, 8},
	} {
		if was, is := least(first, of.what), least(last, of.what); is > was+of.slack {
			return fmt.Errorf("%s went from %d to %d", of.name, was, is)
		}
	}
	return nil
}
