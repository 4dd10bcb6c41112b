package altscreds

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"os"
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

// TestRecordVectors holds the records of docs/spec/vectors.md against this package, which did not make them.
func TestRecordVectors(t *testing.T) {
	b, err := os.ReadFile("../noiseproto/testdata/vectors.json")
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Vectors []struct {
			Name    string
			KeyData string `json:"key_data"`
			Records []struct {
				From           string
				Number         uint64
				Payload, Frame string
			}
		}
	}
	if err := json.Unmarshal(b, &file); err != nil {
		t.Fatal(err)
	}
	unhex := func(s string) []byte {
		b, err := hex.DecodeString(s)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	records := 0
	for _, v := range file.Vectors {
		for _, r := range v.Records {
			records++
			var s cipherState
			s.init(unhex(v.KeyData), r.From == "responder")
			s.counter = r.Number
			frame := make([]byte, overhead+len(unhex(r.Payload)))
			if _, err := sealFrame(&s, frame, unhex(r.Payload)); err != nil || !bytes.Equal(frame, unhex(r.Frame)) {
				t.Errorf("%s, number %d of the %s: %x, %v", v.Name, r.Number, r.From, frame, err)
			}
		}
	}
	if records == 0 {
		t.Fatal("no records in the file")
	}
}
