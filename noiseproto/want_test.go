package noiseproto

import "testing"

// Reading no more than Want says before each Feed takes exactly the handshake, though the record protocol's first bytes
// follow at once, on both sides.
func TestWantStopsAtTheEnd(t *testing.T) {
	records := []byte("the first record")
	alpha, beta := sides(t)
	i, r := alpha.start(t, true), beta.start(t, false)
	toR := i.first(t)
	var toI []byte
	for !i.Done() || !r.Done() {
		for _, side := range []struct {
			h       *Handshake
			in, out *[]byte
		}{{r, &toR, &toI}, {i, &toI, &toR}} {
			for n := side.h.Want(); n > 0 && n <= len(*side.in); n = side.h.Want() {
				consumed, out, err := side.h.Feed((*side.in)[:n])
				if err != nil || consumed != n {
					t.Fatalf("Feed of the %d bytes that were wanted took %d: %v", n, consumed, err)
				}
				*side.in = (*side.in)[n:]
				*side.out = append(*side.out, out...)
				if side.h.Done() {
					*side.out = append(*side.out, records...)
				}
			}
		}
	}
	if string(toI) != string(records) || string(toR) != string(records) {
		t.Errorf("left for the record protocols: %q and %q, want %q for both", toI, toR, records)
	}
}
