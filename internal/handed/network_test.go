package handed

import (
	"io"
	"net/netip"
	"testing"
)

func TestNetwork(t *testing.T) {
	for addr, want := range map[string]string{
		"192.0.2.1": "192.0.2.1/32", "::ffff:192.0.2.1": "192.0.2.1/32", "2001:db8::1": "2001:db8::/64",
		"127.0.0.1": "::1/128", "127.5.6.7": "::1/128", "::1": "::1/128", "fe80::1%eth0": "fe80::/64",
	} {
		if got := Network(netip.MustParseAddr(addr)).String(); got != want {
			t.Errorf("%s is of %s, want %s", addr, got, want)
		}
	}
	for addr, want := range map[string]string{
		"192.0.2.1": "192.0.2.0/24", "::ffff:192.0.2.1": "192.0.2.0/24", "2001:db8:0:1::1": "2001:db8::/48",
		"127.5.6.7": "::1/128", "::1": "::1/128",
	} {
		if got := Site(netip.MustParseAddr(addr)).String(); got != want {
			t.Errorf("%s is of the site %s, want %s", addr, got, want)
		}
	}
	if Network(netip.Addr{}).IsValid() || Site(netip.Addr{}).IsValid() {
		t.Error("no address has a network")
	}
}

// PeekUntil takes nothing, waits for what is enough, and says when no more will come.
func TestPeekUntil(t *testing.T) {
	a, b, _ := pair(t)
	long := func(p []byte) bool { return len(p) >= 5 }
	buf := make([]byte, 8)
	a.Write([]byte("one"))
	got := make(chan int, 1)
	go func() {
		n, err := PeekUntil(b, buf, long)
		if err != nil {
			t.Error(err)
		}
		got <- n
	}()
	a.Write([]byte("two"))
	if n := <-got; n != 6 || string(buf[:n]) != "onetwo" {
		t.Errorf("%d bytes: %q", n, buf)
	}
	if n, err := PeekUntil(b, buf[:2], func([]byte) bool { return false }); n != 2 || err != nil {
		t.Errorf("a buffer that is full: %d, %v", n, err)
	}
	a.CloseWrite()
	if n, err := PeekUntil(b, buf, func([]byte) bool { return false }); n != 6 || err != io.EOF {
		t.Errorf("at the end: %d, %v", n, err)
	}
	if p, err := io.ReadAll(b); err != nil || string(p) != "onetwo" {
		t.Errorf("then %q, %v", p, err)
	}
	if n, err := PeekUntil(b, buf, long); n != 0 || err != io.EOF {
		t.Errorf("after the end: %d, %v", n, err)
	}
}
