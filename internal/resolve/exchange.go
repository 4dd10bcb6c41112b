package resolve

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"

	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/sys/unix"
)

const (
	// patience bounds a question, with all that is tried.
	patience = 5 * time.Second
	// maxUDP is the largest packet that there is.
	maxUDP = 1<<16 - 1
	// maxPackets bounds the packets that are read and are no answer, as of who guesses ids.
	maxPackets = 1000
)

// retries are when a question is sent again without an answer, after it was sent first.
var retries = []time.Duration{1 * time.Second, 2500 * time.Millisecond}

// refusedWait is how long it takes until a resolver that refuses is tried once more, as while it is restarted.
const refusedWait = 500 * time.Millisecond

// errName is why a name cannot be asked for.
var errName = errors.New("the name is too long for DNS")

// A dialer connects to the resolver.
type dialer func(ctx context.Context, network, address string) (net.Conn, error)

// exchange asks the resolver and returns the message that answers.
func exchange(ctx context.Context, dial dialer, resolver netip.AddrPort, name string, kind dnsmessage.Type) (*question, []byte, error) {
	var random [2]byte
	rand.Read(random[:])
	q, err := newQuestion(name, kind, binary.BigEndian.Uint16(random[:]))
	if err != nil {
		return nil, nil, errName
	}
	packed, err := q.pack()
	if err != nil {
		return nil, nil, errName
	}
	msg, err := byUDP(ctx, dial, resolver, q, packed)
	if errors.Is(err, unix.ECONNREFUSED) {
		select {
		case <-time.After(refusedWait):
			msg, err = byUDP(ctx, dial, resolver, q, packed)
		case <-ctx.Done():
		}
	}
	if err != nil {
		return nil, nil, err
	}
	if _, truncated := q.answeredBy(msg); truncated {
		if msg, err = byTCP(ctx, dial, resolver, q, packed); err != nil {
			return nil, nil, fmt.Errorf("by TCP, as the answer is long: %v", err)
		}
	}
	return q, msg, nil
}

// connect connects to the resolver. Reading and writing end with ctx.
func connect(ctx context.Context, dial dialer, network string, resolver netip.AddrPort) (net.Conn, func(), error) {
	c, err := dial(ctx, network, resolver.String())
	if err != nil {
		return nil, nil, err
	}
	stop := context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })
	return c, func() { stop(); c.Close() }, nil
}

// byUDP asks from one connected socket, whose port the kernel chooses at random, so that only the resolver's address is heard.
func byUDP(ctx context.Context, dial dialer, resolver netip.AddrPort, q *question, packed []byte) ([]byte, error) {
	c, end, err := connect(ctx, dial, "udp", resolver)
	if err != nil {
		return nil, err
	}
	defer end()
	if _, err := c.Write(packed); err != nil {
		return nil, err
	}
	for _, after := range retries {
		defer time.AfterFunc(after, func() { c.Write(packed) }).Stop() // what fails the reading tells
	}
	buf := make([]byte, maxUDP)
	for range maxPackets {
		n, err := c.Read(buf)
		if err != nil {
			return nil, err
		}
		if is, _ := q.answeredBy(buf[:n]); is {
			return buf[:n], nil
		}
	}
	return nil, errors.New("nothing but packets that answer another question")
}

// byTCP asks by a connection of its own.
func byTCP(ctx context.Context, dial dialer, resolver netip.AddrPort, q *question, packed []byte) ([]byte, error) {
	c, end, err := connect(ctx, dial, "tcp", resolver)
	if err != nil {
		return nil, err
	}
	defer end()
	if _, err := c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(packed))), packed...)); err != nil {
		return nil, err
	}
	var size [2]byte
	if _, err := io.ReadFull(c, size[:]); err != nil {
		return nil, err
	}
	msg := make([]byte, binary.BigEndian.Uint16(size[:]))
	if _, err := io.ReadFull(c, msg); err != nil {
		return nil, err
	}
	if is, truncated := q.answeredBy(msg); !is || truncated {
		return nil, errors.New("what comes answers another question, or is cut short")
	}
	return msg, nil
}
