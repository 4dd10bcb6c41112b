package sockowner

import (
	"bytes"
	"encoding/binary"
	"errors"
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
	if p, err := lookup(addrPort(l.Addr()), netip.MustParseAddrPort("127.0.0.1:9"), halfEnds.theirs); err == nil {
		t.Errorf("a listening socket was taken for a peer: %+v", p)
	}
	for _, a := range []string{"192.0.2.1:5", "[::1]:5"} {
		if _, err := lookup(netip.MustParseAddrPort(a), addrPort(l.Addr()), halfEnds.theirs); err == nil ||
			!strings.Contains(err.Error(), "not a loopback connection") {
			t.Errorf("%s: %v", a, err)
		}
	}
}

func TestCheckDiag(t *testing.T) {
	src, dst := netip.MustParseAddrPort("127.0.0.1:1000"), netip.MustParseAddrPort("127.1.2.3:8080")
	checkDiag := func(body []byte, src, dst netip.AddrPort) (Owner, error) {
		return checkDiag(body, src, dst, connectedEnds.theirs)
	}
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
		"FIN_WAIT1":     func(m *diagMessage) { m.state = tcpFinWait1 },
		"FIN_WAIT2":     func(m *diagMessage) { m.state = tcpFinWait2 },
		"no state":      func(m *diagMessage) { m.state = 33 },
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

// TestCheckDiagOfHalf has ends whose owner has sent his last byte, and those of nobody.
func TestCheckDiagOfHalf(t *testing.T) {
	src, dst := netip.MustParseAddrPort("[::1]:1000"), netip.MustParseAddrPort("[::1]:8080")
	for _, c := range []struct {
		state       uint8
		inode       uint32
		ok, waiting bool
	}{
		{tcpEstablished, 7, true, false}, {tcpFinWait1, 7, true, false}, {tcpFinWait2, 7, true, false},
		{tcpEstablished, 0, false, true}, {tcpSynRecv, 0, false, true}, {tcpListen, 7, false, true},
		{tcpFinWait1, 0, false, false}, {tcpFinWait2, 0, false, false}, {6, 0, false, false}, {tcpCloseWait, 7, false, false},
	} {
		m := diagMessage{family: unix.AF_INET6, state: c.state, uid: 1000, inode: c.inode, id: newSockID(src, dst)}
		body := bytes.Clone(unsafe.Slice((*byte)(unsafe.Pointer(&m)), unsafe.Sizeof(m)))
		o, err := checkDiag(body, src, dst, halfEnds.theirs)
		if (err == nil) != c.ok || errors.Is(err, ErrNotAccepted) != c.waiting || c.ok && o.UID != 1000 {
			t.Errorf("state %d, inode %d: %+v, %v", c.state, c.inode, o, err)
		}
	}
}

// An answer that was not read to its end must not be taken for that to the next question.
func TestAnswerLeftUnread(t *testing.T) {
	l := listenAt(t, "tcp4", "127.0.0.1:0", false)
	addr := l.Addr().(*net.TCPAddr).AddrPort()
	enough := errors.New("enough")
	for range 2 * cap(diagSockets) {
		req := diagRequest{family: unix.AF_INET, protocol: unix.IPPROTO_TCP, states: 1 << tcpListen}
		if err := askKernel(diagByFamily, unix.NLM_F_REQUEST|unix.NLM_F_DUMP, bytesOf(&req), func([]byte) error { return enough }, nil); err != enough {
			t.Fatal(err)
		}
		if _, err := lookup(addr, netip.MustParseAddrPort("127.0.0.1:9"), halfEnds.theirs); !errors.Is(err, ErrNotAccepted) {
			t.Errorf("a listening socket: %v", err)
		}
		if list, err := Listeners(addr); err != nil || len(list) != 1 {
			t.Errorf("%+v, %v", list, err)
		}
	}
	s, err := takeDiagSocket()
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(s.fd)
	if n, _, err := unix.Recvfrom(s.fd, s.buf[:], unix.MSG_DONTWAIT); err != unix.EAGAIN {
		t.Errorf("a socket that is kept has %d bytes to be read, %v", n, err)
	}
}

func BenchmarkListeners(b *testing.B) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	for b.Loop() {
		if _, err := Listeners(l.Addr().(*net.TCPAddr).AddrPort()); err != nil {
			b.Fatal(err)
		}
	}
}
