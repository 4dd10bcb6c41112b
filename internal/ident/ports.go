package ident

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shared-altsd/shared-altsd/internal/names"
)

const (
	// MaxPorts bounds the connections at once: a held port is one less for what the whole machine listens at or connects from.
	MaxPorts = 3584
	// spare ports rest while others are used.
	spare = 512
	// Ports are held from lowest on, outside those from which the kernel chooses for who does not choose.
	lowest, highest = 49152, 65535
)

const (
	// restAsked is for a port whose connection the server has asked about, which it does once a connection.
	restAsked = 5 * time.Second
	// restUnasked is for the others: longer than PostgreSQL's authentication may take, after which it asks no more.
	restUnasked = 75 * time.Second
	// settle is for all when the forward begins: whom a stranger left at the server from one of the ports, it asks about at once
	// and gets no answer.
	settle = 5 * time.Second
)

// ports are those that this process alone can connect from.
type ports struct {
	mu      sync.Mutex
	held    []int          // descriptors, bound and never connected
	resting []restingPort  // not in use
	taken   map[string]int // how many each user, and each machine, uses or has used last
	// most is for one user; accounts of one machine, which may say of any number that they are its, have mostOf together.
	most, mostOf int
}

// A restingPort may be used for anybody from its time on, since whoever asks about its last user has asked by then.
type restingPort struct {
	port  uint16
	user  string // who used it last
	ready time.Time
}

// hold binds ports for so many connections, with as many and some to rest.
func hold(addr netip.Addr, connections int) (*ports, error) {
	p := &ports{taken: map[string]int{}}
	ready := time.Now().Add(settle)
	aside, chosen := candidates()
	for n, port := range append(aside, chosen...) {
		// Of those that others connect from no more than are needed.
		if len(p.held) == 2*connections+spare || n >= len(aside) && len(p.held) >= connections+spare {
			break
		}
		fd, err := bind(addr, port)
		if errors.Is(err, unix.EADDRINUSE) {
			continue
		}
		if err != nil {
			p.close()
			return nil, fmt.Errorf("holding port %d of %v (%d are held; LimitNOFILE= of the unit has to allow %d files): %w", port, addr,
				len(p.held), 2*connections+spare, err)
		}
		p.held = append(p.held, fd)
		p.resting = append(p.resting, restingPort{port: port, ready: ready})
	}
	if len(p.held) < connections+spare {
		n := len(p.held)
		p.close()
		return nil, fmt.Errorf("only %d of %d ports of %v are free between %d and %d: another program uses them, or the address "+
			"(ss -tanp 'src %v' names it): give another address", n, connections+spare, addr, lowest, highest, addr)
	}
	p.most, p.mostOf = len(p.held)/2, len(p.held)*3/4
	return p, nil
}

// candidates returns the ports to hold, in no order that anybody could foresee: those that the kernel does not give out,
// then the others.
func candidates() (aside, chosen []uint16) {
	first, last := 32768, 60999
	if b, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range"); err == nil {
		fmt.Sscan(string(b), &first, &last)
	}
	for n := range highest - lowest + 1 {
		if port := lowest + n; port < first || port > last {
			aside = append(aside, uint16(port))
		} else {
			chosen = append(chosen, uint16(port))
		}
	}
	for _, s := range [][]uint16{aside, chosen} {
		rand.Shuffle(len(s), func(i, j int) { s[i], s[j] = s[j], s[i] })
	}
	return aside, chosen
}

// bind returns a socket that keeps other accounts from the port, and lets this one's others connect from it.
func bind(addr netip.Addr, port uint16) (fd int, err error) {
	fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrInet4{Addr: addr.As4(), Port: int(port)})
	}
	if err != nil {
		unix.Close(fd)
		return 0, err
	}
	return fd, nil
}

func (p *ports) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, fd := range p.held {
		unix.Close(fd)
	}
	p.held, p.resting = nil, nil
}

// take returns the port that has rested the longest, and waits for one if none has rested enough. Who has half of all
// waits for one of his own, and whose machine has three quarters for one of hers, so that nobody's haste is another's delay.
func (p *ports) take(ctx context.Context, user string) (uint16, error) {
	for {
		port, wait, err := p.try(user)
		if err != nil || wait <= 0 {
			return port, err
		}
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return 0, fmt.Errorf("no source port is free yet for %s, of those whose last connection the server may still ask about: %w",
				user, context.Cause(ctx))
		}
	}
}

func (p *ports) try(user string) (port uint16, wait time.Duration, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	of, best := machineOf(user), -1
	own, ours := p.taken[user] >= p.most, p.taken[of] >= p.mostOf
	for n, r := range p.resting {
		if (!own || r.user == user) && (!ours || machineOf(r.user) == of) && (best < 0 || r.ready.Before(p.resting[best].ready)) {
			best = n
		}
	}
	if best < 0 {
		return 0, 0, fmt.Errorf("all source ports of this forward that %s may have are in use", user)
	}
	r := p.resting[best]
	if wait := time.Until(r.ready); wait > 0 {
		return 0, wait, nil
	}
	p.resting = slices.Delete(p.resting, best, best+1)
	p.count(r.user, -1)
	p.count(user, 1)
	return r.port, 0, nil
}

// machineOf returns what the ports of a user's machine are counted by.
func machineOf(user string) string {
	_, machine := names.SplitAccount(user)
	return "@" + machine
}

// count counts a port more or less of a user, and of his machine.
func (p *ports) count(user string, n int) {
	for _, of := range []string{user, machineOf(user)} {
		if p.taken[of] += n; p.taken[of] <= 0 {
			delete(p.taken, of)
		}
	}
}

// rest puts a port back, which nobody gets before so long.
func (p *ports) rest(port uint16, user string, d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.resting = append(p.resting, restingPort{port: port, user: user, ready: time.Now().Add(d)})
}
