package ident

import (
	"bytes"
	"fmt"
	"testing"
	"testing/iotest"
)

// FuzzQuery holds that a query is read within its bound, and that what it is taken for says the same again.
func FuzzQuery(f *testing.F) {
	for _, s := range []string{"6193,23\r\n", " 6193 , 23 \n", "0,1\n", "1,65536\n", "1,2,3\n", "-1,2\n", "1,2", "\r\n,\r\n", "1\x00,2\n", "٣,2\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		line, err := readLine(iotest.OneByteReader(bytes.NewReader(b)))
		if err != nil {
			if end := bytes.IndexByte(b, '\n'); end >= 0 && end < maxQuery {
				t.Fatalf("%q is not read: %v", b, err)
			}
			return
		}
		if len(line) >= maxQuery || !bytes.HasPrefix(b, append(line[:len(line):len(line)], '\n')) {
			t.Fatalf("%q is read as %q", b, line)
		}
		ours, theirs, err := parseQuery(line)
		if err != nil {
			return
		}
		if ours == 0 || theirs == 0 {
			t.Fatalf("%q: ports %d and %d", line, ours, theirs)
		}
		if o, th, err := parseQuery(fmt.Appendf(nil, "%d , %d\r", ours, theirs)); o != ours || th != theirs || err != nil {
			t.Fatalf("%q: %d and %d are read as %d and %d, %v", line, ours, theirs, o, th, err)
		}
	})
}
