package ping

import (
	"strings"
	"testing"

	"github.com/shared-altsd/shared-altsd/altscreds"
	"github.com/shared-altsd/shared-altsd/internal/reason"
)

// Every reason has a diagnosis, whoever refused.
func TestDiagnoseEveryReason(t *testing.T) {
	for c := reason.UnsupportedVersion; c.Known(); c++ {
		for _, byPeer := range []bool{false, true} {
			e := &altscreds.HandshakeError{Reason: altscreds.Reason(c.String()), ByPeer: byPeer}
			if d := diagnose(StepVerify, "b.test:1", e); len(d) < 20 || strings.Contains(d, "%!") {
				t.Errorf("%s, by the peer %v: %q", c, byPeer, d)
			}
		}
	}
}
