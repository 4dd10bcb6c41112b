// Package keysahead makes key pairs of handshakes ahead of them, while the daemon has nothing else to do.
//
// A key pair takes a tenth of a handshake, and the peer waits for it. So each that was used is made up for by another, one
// at a time (Piece), when whoever has the processor to give says so; no goroutine is started. As many are made as were used
// while others were: the first handshake after a pause makes its own and leaves none behind.
//
// A key that lies about is a secret that lies about. It could be read, and a virtual machine that is copied or set back has
// it twice. So at most 64 of a kind are kept, none is given out that is 10 seconds old, by a clock that goes on while the
// machine sleeps, and a timer drops those that are, whether anybody asks or not. Close drops all. Rule 46.
//
// What it cannot do: nothing can wipe a key of ML-KEM, so one that is dropped stays in memory until it is written
// over; those of X25519 are wiped. A virtual machine whose copy takes its clocks with it believes for up to 10 seconds
// that its keys are young; what a key that two copies use costs is in docs/threat-model.md. There is no fork: Go programs
// don't.
package keysahead

import (
	"time"

	"golang.org/x/sys/unix"

	"github.com/shared-altsd/shared-altsd/internal/mlkem768"
	"github.com/shared-altsd/shared-altsd/internal/x25519"
	"github.com/shared-altsd/shared-altsd/noiseproto"
)

const (
	maxKept = 64               // of a kind
	maxAge  = 10 * time.Second // of a key that is given out
)

// Keys gives out key pairs, each once. It is made by New and must be ended by Close. It is safe for concurrent use.
type Keys struct {
	x25519   stock[*x25519.KeyPair]
	mlkem768 stock[*mlkem768.DecapsulationKey]
}

// New returns Keys with none made ahead. Those that it lacks, and those that it makes ahead, are made by fresh.
func New(fresh noiseproto.Keys) *Keys { return newKeys(fresh, sinceBoot) }

func newKeys(fresh noiseproto.Keys, now func() time.Duration) *Keys {
	k := new(Keys)
	k.x25519.fresh, k.mlkem768.fresh = fresh.X25519, fresh.MLKEM768
	k.x25519.wipe, k.mlkem768.wipe = (*x25519.KeyPair).Wipe, func(*mlkem768.DecapsulationKey) {}
	k.x25519.now, k.mlkem768.now = now, now
	return k
}

// X25519 returns an ephemeral key pair.
func (k *Keys) X25519() (*x25519.KeyPair, error) { return k.x25519.take() }

// MLKEM768 returns a decapsulation key.
func (k *Keys) MLKEM768() (*mlkem768.DecapsulationKey, error) { return k.mlkem768.take() }

// Pending reports whether a key that was used is to be made up for.
func (k *Keys) Pending() bool { return k.x25519.pending() || k.mlkem768.pending() }

// Piece makes up for one key, which takes some 50 microseconds and waits for nothing.
func (k *Keys) Piece() {
	if !k.x25519.piece() {
		k.mlkem768.piece()
	}
}

// Held returns how many keys there are that were made ahead, at most 128.
func (k *Keys) Held() int { return k.x25519.held() + k.mlkem768.held() }

// Close drops the keys that were made ahead. From then on each is made when it is asked for.
func (k *Keys) Close() {
	k.x25519.close()
	k.mlkem768.close()
}

// sinceBoot returns the time since the machine was started, that in which it slept included.
func sinceBoot() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		panic("CLOCK_BOOTTIME cannot be read: " + err.Error()) // every Linux since 2.6.39 has it
	}
	return time.Duration(t.Nano())
}
