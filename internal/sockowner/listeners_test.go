package sockowner

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// listenAt listens at an address, with SO_REUSEPORT if so asked.
func listenAt(t *testing.T, network, addr string, reuse bool) net.Listener {
	t.Helper()
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		return c.Control(func(fd uintptr) {
			if reuse {
				unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
			}
		})
	}}
	l, err := lc.Listen(context.Background(), network, addr)
	if err != nil {
		t.Skipf("%s %s: %v", network, addr, err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func TestListeners(t *testing.T) {
	for _, c := range []struct {
		network, addr string
		v4, v6        int // sockets that take 127.0.0.1, and ::1
	}{
		{"tcp4", "127.0.0.1:0", 1, 0}, {"tcp4", "127.0.0.9:0", 0, 0}, {"tcp4", "0.0.0.0:0", 1, 0},
		{"tcp6", "[::1]:0", 0, 1}, {"tcp6", "[::]:0", 0, 1}, {"tcp", "[::]:0", 1, 1}, {"tcp", ":0", 1, 1},
	} {
		t.Run(c.network+c.addr, func(t *testing.T) {
			port := listenAt(t, c.network, c.addr, false).Addr().(*net.TCPAddr).AddrPort().Port()
			for addr, want := range map[string]int{"127.0.0.1": c.v4, "::1": c.v6} {
				list, err := Listeners(netip.AddrPortFrom(netip.MustParseAddr(addr), port))
				if err != nil || len(list) != want {
					t.Errorf("%s: %+v, %v; want %d", addr, list, err, want)
				}
				for _, o := range list {
					if o.UID != uint32(os.Geteuid()) || o.inode == 0 || o.cookie == [2]uint32{} {
						t.Errorf("%s: %+v", addr, o)
					}
				}
			}
		})
	}
}

// TestListenersOfOnePort has as many sockets of SO_REUSEPORT as fill several datagrams of the kernel's, and one that is
// replaced by another.
func TestListenersOfOnePort(t *testing.T) {
	first := listenAt(t, "tcp4", "127.0.0.1:0", true)
	at := first.Addr().(*net.TCPAddr).AddrPort()
	const n = 200
	for range n - 1 {
		listenAt(t, "tcp4", at.String(), true)
	}
	list, err := Listeners(at)
	if err != nil || len(list) != n {
		t.Fatalf("%d, %v", len(list), err)
	}
	again, err := Listeners(at)
	if err != nil || !slices.Equal(list, again) {
		t.Errorf("asked again: %v", err)
	}
	first.Close()
	listenAt(t, "tcp4", at.String(), true)
	if again, err = Listeners(at); err != nil || len(again) != n || slices.Equal(list, again) {
		t.Errorf("with one replaced: %d, the same: %v, %v", len(again), slices.Equal(list, again), err)
	}
}

func TestOnLoopback(t *testing.T) {
	for addr, want := range map[string]bool{"127.0.0.1": true, "127.9.9.9": true, "::1": true, "::ffff:127.0.0.1": true,
		"192.0.2.1": false, "0.0.0.0": false, "::": false, "fe80::1%lo": false} {
		if got := OnLoopback(netip.MustParseAddr(addr)); got != want {
			t.Errorf("%s: %v", addr, got)
		}
	}
	if OnLoopback(netip.Addr{}) {
		t.Error("no address")
	}
}

// netlinkMessage returns a message of netlink's, padded.
func netlinkMessage(kind, flags uint16, body []byte) []byte {
	b := binary.NativeEndian.AppendUint32(nil, uint32(unix.NLMSG_HDRLEN+len(body)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = binary.NativeEndian.AppendUint16(b, flags)
	b = append(append(b, make([]byte, 8)...), body...)
	return append(b, make([]byte, -len(b)&3)...)
}

func listenerMessage(at string, attrs ...byte) []byte {
	a := netip.MustParseAddrPort(at)
	m := diagMessage{family: familyOf(a.Addr()), state: tcpListen, uid: 1000, inode: 7, id: newSockID(a, netip.AddrPort{})}
	return append(bytes.Clone(unsafe.Slice((*byte)(unsafe.Pointer(&m)), unsafe.Sizeof(m))), attrs...)
}

func v6OnlyAttr(v byte) []byte {
	b := binary.NativeEndian.AppendUint16(nil, 5)
	return append(binary.NativeEndian.AppendUint16(b, diagV6Only), v, 0, 0, 0)
}

func TestCheckListener(t *testing.T) {
	other := append(binary.NativeEndian.AppendUint16(binary.NativeEndian.AppendUint16(nil, 6), 4), 1, 2, 0, 0)
	for _, c := range []struct {
		at    string
		attrs []byte
		to    string
		takes bool
	}{
		{"127.0.0.1:80", nil, "127.0.0.1:80", true}, {"0.0.0.0:80", nil, "127.0.0.1:80", true}, {"127.0.0.2:80", nil, "127.0.0.1:80", false},
		{"127.0.0.1:81", nil, "127.0.0.1:80", false}, {"0.0.0.0:80", nil, "[::1]:80", false}, {"[::1]:80", nil, "127.0.0.1:80", false},
		{"[::]:80", v6OnlyAttr(0), "127.0.0.1:80", true}, {"[::]:80", v6OnlyAttr(1), "127.0.0.1:80", false},
		{"[::]:80", append(other, v6OnlyAttr(1)...), "127.0.0.1:80", false}, {"[::]:80", nil, "127.0.0.1:80", true},
		{"[::]:80", []byte{1, 0, 11, 0}, "127.0.0.1:80", true}, {"[::]:80", v6OnlyAttr(1), "[::1]:80", true},
		{"[::ffff:127.0.0.1]:80", v6OnlyAttr(0), "127.0.0.1:80", true},
	} {
		o, takes, err := checkListener(listenerMessage(c.at, c.attrs...), netip.MustParseAddrPort(c.to))
		if err != nil || takes != c.takes || takes && (o.UID != 1000 || o.inode != 7) {
			t.Errorf("%s (%v) for %s: %+v, %v, %v", c.at, c.attrs, c.to, o, takes, err)
		}
	}
	if _, takes, err := checkListener(listenerMessage("127.0.0.1:80")[:71], netip.MustParseAddrPort("127.0.0.1:80")); err == nil || takes {
		t.Errorf("a short answer: %v, %v", takes, err)
	}
}

func TestEachAnswer(t *testing.T) {
	minus := func(e syscall.Errno) []byte { return binary.NativeEndian.AppendUint32(nil, uint32(-int32(e))) }
	two := append(netlinkMessage(diagByFamily, 0, []byte("abc")), netlinkMessage(diagByFamily, 0, []byte("d"))...)
	for _, c := range []struct {
		name string
		b    []byte
		got  string
		last bool
		fail bool
	}{
		{"two", two, "abc d ", false, false}, {"end", slices.Concat(two, netlinkMessage(unix.NLMSG_DONE, 0, minus(0))), "abc d ", true, false},
		{"an end that failed", slices.Concat(two, netlinkMessage(unix.NLMSG_DONE, 0, minus(unix.ENOENT))), "abc d ", true, true},
		{"error", netlinkMessage(unix.NLMSG_ERROR, 0, minus(unix.EPERM)), "", true, true},
		{"interrupted", netlinkMessage(diagByFamily, unix.NLM_F_DUMP_INTR, []byte("x")), "", true, true},
		{"cut", two[:len(two)-4], "abc ", true, true}, {"cut header", two[:len(two)-10], "abc ", true, true},
	} {
		var got string
		last, err := eachAnswer(c.b, func(body []byte) error { got += fmt.Sprintf("%s ", body); return nil })
		if got != c.got || last != c.last || (err != nil) != c.fail {
			t.Errorf("%s: %q, %v, %v", c.name, got, last, err)
		}
	}
}

// FuzzAnswer has answers of any bytes.
func FuzzAnswer(f *testing.F) {
	f.Add(netlinkMessage(diagByFamily, 0, listenerMessage("[::]:80", v6OnlyAttr(1)...)))
	f.Add(append(netlinkMessage(diagByFamily, 0, listenerMessage("0.0.0.0:80")), netlinkMessage(unix.NLMSG_DONE, 0, nil)...))
	to := netip.MustParseAddrPort("127.0.0.1:80")
	f.Fuzz(func(t *testing.T, b []byte) {
		eachAnswer(b, func(body []byte) error {
			_, takes, err := checkListener(body, to)
			if takes && (err != nil || len(body) < 72) {
				t.Errorf("%v of %d bytes", err, len(body))
			}
			return err
		})
		checkDiag(b, to, to, halfEnds.theirs)
	})
}
