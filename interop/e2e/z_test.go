package e2e

import (
	"encoding/hex"
	"strings"
	"testing"
)

// TestLogs comes last, by the name of its file: the daemons still serve, have logged no panic and no data race, and no
// key.
func TestLogs(t *testing.T) {
	w := theWorld(t)
	wantHonest(t, w, w.beta, w.as(t, bob).listen(t, w.beta, 0))
	w.joined(t) // whose keys are known
	for _, d := range w.daemons {
		if err := d.faults(); err != nil {
			t.Error(err)
		}
		if !strings.Contains(d.said(), `"msg":"shared-altsd starts"`) {
			t.Errorf("the log of %s does not begin with its start:\n%s", d.machine, d.said())
		}
	}
	if !strings.Contains(w.alpha.said(), `"level":"DEBUG"`) {
		t.Error("nothing was logged at level debug, so that its lines were not looked at")
	}
	// That a key would be found.
	key := []byte("0123456789abcdefghijklmnopqrstuv")
	w.keepSecret("the key of this test", key)
	for _, text := range []string{"key=" + hex.EncodeToString(key), "raw " + string(key),
		"base64 MDEyMzQ1Njc4OWFiY2RlZmdoaWprbG1u"} {
		if w.leaks(text) == nil {
			t.Errorf("a key in %q is not found", text)
		}
	}
}
