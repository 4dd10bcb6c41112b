package ping

import (
	"context"
	"errors"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
)

// opError is how net tells of a failed connect.
func opError(err error) error { return &net.OpError{Op: "dial", Net: "tcp", Err: err} }

// Where a name has several addresses the diagnosis is of the one that tells most of the other machine, whichever was tried
// last: ::1 on a machine without IPv6 says nothing of a firewall.
func TestConnectTellsTheTruth(t *testing.T) {
	refused, noIPv6 := opError(os.NewSyscallError("connect", syscall.ECONNREFUSED)),
		opError(os.NewSyscallError("connect", syscall.EADDRNOTAVAIL))
	noRoute, silent := opError(os.NewSyscallError("connect", syscall.ENETUNREACH)), opError(context.DeadlineExceeded)
	for _, tt := range []struct {
		errs []error
		want string
	}{
		{[]error{refused, noIPv6}, "nothing listens"}, {[]error{noIPv6, refused}, "nothing listens"},
		{[]error{noRoute, silent}, "firewall on the way"}, {[]error{silent, noRoute}, "firewall on the way"},
		{[]error{noIPv6}, "no IPv6"}, {[]error{noRoute, noRoute}, "no way to the machine"},
	} {
		e := &connectError{}
		for _, err := range tt.errs {
			e.add("192.0.2.1:1", err)
		}
		if got := diagnose(StepConnect, "localhost:1", e); !strings.Contains(got, tt.want) {
			t.Errorf("%v: %q, want %q", tt.errs, got, tt.want)
		}
	}
}

// All addresses are tried, and many equal failures are one.
func TestConnectTriesAll(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(l.Addr().String())
	ips := []net.IPAddr{{IP: net.IPv6loopback}, {IP: net.IPv4(127, 0, 0, 2)}, {IP: net.IPv4(127, 0, 0, 1)}}
	c, err := connect(t.Context(), ips, port) // nobody has this port elsewhere
	if err != nil || !strings.HasPrefix(c.RemoteAddr().String(), "127.0.0.1:") {
		t.Fatal(c, err)
	}
	c.Close()
	l.Close()
	for range 13 {
		ips = append(ips, net.IPAddr{IP: net.IPv4(127, 0, 0, 1)})
	}
	_, err = connect(t.Context(), ips, port)
	if !errors.Is(err, syscall.ECONNREFUSED) || strings.Count(err.Error(), "connection refused") != 1 ||
		!strings.Contains(err.Error(), " more addresses: ") {
		t.Errorf("%v", err)
	}
}
