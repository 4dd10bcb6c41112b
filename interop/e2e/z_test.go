package e2e

import (
	"encoding/hex"
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
		d.find(t, 0, "its start", func(r *record) bool { return r.Msg == "shared-altsd starts" })
	}
	w.alpha.find(t, 0, "level debug", func(r *record) bool { return r.Level == "DEBUG" })
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
