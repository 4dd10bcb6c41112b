package ping

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"
)

// connect connects to the first address that answers. Each has its part of the time, so that one that is silent, or of a
// kind that this machine does not have, hides no other.
func connect(ctx context.Context, ips []net.IPAddr, port string) (net.Conn, error) {
	failed := &connectError{}
	for i, ip := range ips {
		part := ctx
		if d, ok := ctx.Deadline(); ok {
			var cancel context.CancelFunc
			part, cancel = context.WithTimeout(ctx, time.Until(d)/time.Duration(len(ips)-i))
			defer cancel()
		}
		address := net.JoinHostPort(ip.String(), port)
		conn, err := new(net.Dialer).DialContext(part, "tcp", address)
		if err == nil {
			return conn, nil
		}
		failed.add(address, err)
	}
	return nil, failed
}

// A connectError is why none of several addresses could be connected to.
type connectError struct {
	whys  []string            // each once, in the order of the addresses
	of    map[string][]string // the addresses of each
	worst error               // the one that tells most
}

func (e *connectError) add(address string, err error) {
	why := err
	var op *net.OpError
	if errors.As(err, &op) {
		why = op.Err // the address is told here
	}
	if e.of == nil {
		e.of = make(map[string][]string)
	}
	if text := why.Error(); !slices.Contains(e.whys, text) {
		e.whys = append(e.whys, text)
	}
	e.of[why.Error()] = append(e.of[why.Error()], address)
	if e.worst == nil || tells(err) > tells(e.worst) {
		e.worst = err
	}
}

// tells returns how much an error says of the other machine: one of this machine's says nothing of it.
func tells(err error) int {
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return 3
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded), errors.Is(err, syscall.EHOSTUNREACH):
		return 2
	case errors.Is(err, syscall.EADDRNOTAVAIL), errors.Is(err, syscall.EAFNOSUPPORT), errors.Is(err, syscall.ENETUNREACH):
		return 0
	}
	return 1
}

// Error tells each failure once, with its addresses, of many some.
func (e *connectError) Error() string {
	const named = 3
	var all []string
	for _, why := range e.whys {
		of := e.of[why]
		list := strings.Join(of[:min(len(of), named)], ", ")
		if len(of) > named {
			list += fmt.Sprintf(" and %d more addresses", len(of)-named)
		}
		all = append(all, fmt.Sprintf("%s: %s", list, why))
	}
	return strings.Join(all, "; ")
}

// Unwrap returns the failure that tells most.
func (e *connectError) Unwrap() error { return e.worst }
