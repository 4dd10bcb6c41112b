package sockowner

import (
	"bytes"
	"encoding/binary"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

func TestLookupFindsNoListener(t *testing.T) {
	l, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if p, err := lookup(addrPort(l.Addr()), netip.MustParseAddrPort("127.0.0.1:9")); err == nil {
		t.Errorf("a listening socket was taken for a peer: %+v", p)
	}
	for _, a := range []string{"192.0.2.1:5", "[::1]:5"} {
		if _, err := lookup(netip.MustParseAddrPort(a), addrPort(l.Addr())); err == nil ||
			!strings.Contains(err.Error(), "not an IPv4 loopback connection") {
			t.Errorf("%s: %v", a, err)
		}
	}
}

func TestCheckDiag(t *testing.T) {
	src, dst := netip.MustParseAddrPort("127.0.0.1:1000"), netip.MustParseAddrPort("127.1.2.3:8080")
	good := func() *diagMessage {
		m := &diagMessage{family: unix.AF_INET, state: tcpEstablished, uid: 1000, inode: 77, id: newSockID(src, dst)}
		m.id.cookie = [2]uint32{5, 6}
		return m
	}
	raw := func(m *diagMessage) []byte {
		return bytes.Clone(unsafe.Slice((*byte)(unsafe.Pointer(m)), unsafe.Sizeof(*m)))
	}
	if p, err := checkDiag(raw(good()), src, dst); err != nil || p != (Owner{1000, 77, [2]uint32{5, 6}}) {
		t.Fatalf("%+v, %v", p, err)
	}
	reborn := good()
	reborn.id.cookie[0]++
	if p, err := checkDiag(raw(reborn), src, dst); err != nil || p == (Owner{1000, 77, [2]uint32{5, 6}}) {
		t.Errorf("another cookie: %+v, %v", p, err)
	}
	if _, err := checkDiag(raw(good())[:71], src, dst); err == nil {
		t.Error("a short answer was taken")
	}
	for name, spoil := range map[string]func(*diagMessage){
		"TIME_WAIT":     func(m *diagMessage) { m.state = 6 },
		"LISTEN":        func(m *diagMessage) { m.state = 10 },
		"no inode":      func(m *diagMessage) { m.inode = 0 },
		"UNIX":          func(m *diagMessage) { m.family = unix.AF_UNIX },
		"not mapped":    func(m *diagMessage) { m.family = unix.AF_INET6 },
		"source port":   func(m *diagMessage) { m.id.sport[1]++ },
		"other port":    func(m *diagMessage) { m.id.dport[1]++ },
		"source":        func(m *diagMessage) { m.id.src[3]++ },
		"destination":   func(m *diagMessage) { m.id.dst[3]++ },
		"IPv6 leftover": func(m *diagMessage) { m.id.dst[15]++ },
	} {
		m := good()
		spoil(m)
		if p, err := checkDiag(raw(m), src, dst); err == nil {
			t.Errorf("%s: %+v", name, p)
		}
	}
}

func TestParseAnswer(t *testing.T) {
	header := func(size uint32, kind uint16, body ...byte) []byte {
		b := make([]byte, unix.NLMSG_HDRLEN, 64)
		binary.NativeEndian.PutUint32(b, size)
		binary.NativeEndian.PutUint16(b[4:], kind)
		return append(b, body...)
	}
	if b, err := parseAnswer(header(18, diagByFamily, 1, 2)); err != nil || !bytes.Equal(b, []byte{1, 2}) {
		t.Errorf("%v, %v", b, err)
	}
	noEntry := make([]byte, 4)
	minus := -int32(unix.ENOENT)
	binary.NativeEndian.PutUint32(noEntry, uint32(minus))
	if _, err := parseAnswer(header(20, unix.NLMSG_ERROR, noEntry...)); err != syscall.ENOENT {
		t.Errorf("ENOENT: %v", err)
	}
	for name, b := range map[string][]byte{
		"empty":         nil,
		"cut header":    header(16, diagByFamily)[:15],
		"longer":        header(40, diagByFamily, 1),
		"less":          header(15, diagByFamily),
		"acknowledged":  header(20, unix.NLMSG_ERROR, 0, 0, 0, 0),
		"cut error":     header(18, unix.NLMSG_ERROR, 0, 0),
		"done":          header(16, unix.NLMSG_DONE),
		"another topic": header(18, 21, 1, 2),
	} {
		if got, err := parseAnswer(b); err == nil {
			t.Errorf("%s: %v", name, got)
		}
	}
}
