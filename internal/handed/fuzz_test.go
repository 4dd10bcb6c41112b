package handed

import (
	"encoding/binary"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// FuzzRequest: whatever an application sends with a descriptor, in two pieces, is a request or an error at once, and the
// descriptor is the caller's only with a request that is whole.
func FuzzRequest(f *testing.F) {
	for _, s := range []string{"", "\x00", "\x00\x00\x00\x00", "\x00\x00\x00\x03\x0a\x01x", "\x00\x00\x00\x03\xff\xff\xff",
		"\x00\x02\x00\x01", "\xff\xff\xff\xff", "\x00\x00\x00\x01\x00\x00", Hello} {
		f.Add([]byte(s), 3)
	}
	f.Fuzz(func(t *testing.T, b []byte, cut int) {
		if len(b) > 8192 {
			return
		}
		cut = max(0, min(cut, len(b)))
		x, y := unixPair(t)
		defer x.Close()
		defer y.Close()
		if cut > 0 {
			if _, _, err := x.WriteMsgUnix(b[:cut], unix.UnixRights(0), nil); err != nil {
				t.Fatal(err)
			}
		}
		x.Write(b[cut:])
		x.CloseWrite()
		_, fd, err := ReadRequest(y, time.Minute)
		// The kernel gives the piece with the descriptor by itself, so that what the second has beyond the request stays unread.
		fits := cut > 0 && len(b) >= prefix
		if fits {
			size := prefix + int(binary.BigEndian.Uint32(b))
			fits = cut <= size && size <= len(b)
		}
		if (fd >= 0) != fits || err == nil && !fits {
			t.Errorf("descriptor %d, %v", fd, err)
		}
		if fd >= 0 {
			unix.Close(fd)
		}
	})
}
