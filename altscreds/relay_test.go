package altscreds_test

import (
	"bytes"
	"os"
	"os/exec"
	"testing"

	"github.com/shared-altsd/shared-altsd/altscreds"
)

// The other tests run by handing over sockets, wherever the peer is on TCP. Here all of them run by the interface that
// works with every handshaker service.
func TestAllByRelayAlone(t *testing.T) {
	if os.Getenv(altscreds.RelayOnly) != "" {
		return // this is the other process
	}
	cmd := exec.Command(os.Args[0], "-test.run=^Test", "-test.count=1")
	cmd.Env = append(os.Environ(), altscreds.RelayOnly+"=1")
	out, err := cmd.CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("PASS")) {
		t.Errorf("%v\n%s", err, out)
	}
}
