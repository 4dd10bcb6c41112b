package altscreds

import (
	"bytes"
	"errors"
	"io"
	"testing"
)

// TestCounterEnd: the last number is used, and none after it.
func TestCounterEnd(t *testing.T) {
	var out bytes.Buffer
	w, _ := newRecord(wire{Writer: &out}, true, testKey, 0, nil)
	w.out.counter = 1<<64 - 1
	if _, err := w.Write([]byte("last")); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte("x")); !errors.Is(err, errRecordCounter) {
		t.Errorf("beyond the last: %v", err)
	}
	r, _ := newRecord(wire{Reader: io.MultiReader(&out, bytes.NewReader(make([]byte, 0)))}, false, testKey, 0, nil)
	r.in.counter = 1<<64 - 1
	if got, err := io.ReadAll(struct{ io.Reader }{r}); err != nil || string(got) != "last" {
		t.Errorf("the last: %q, %v", got, err)
	}
	if !r.in.exhausted {
		t.Error("the reader's counter came round")
	}
}
