package testdns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/shared-altsd/shared-altsd/internal/testnet"
	"github.com/shared-altsd/shared-altsd/internal/testprog"
)

// A Network is a network namespace with nothing but loopback, in which a thread of this process is.
type Network struct {
	calls chan func()
}

// NewNetwork makes one, as root, which ends with the test.
func NewNetwork(t testing.TB) *Network {
	t.Helper()
	n := new(Network)
	if err := n.open(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.close)
	return n
}

// open makes it.
func (n *Network) open() error {
	n.calls = make(chan func())
	opened := make(chan error)
	go n.run(opened, make(chan struct{}))
	return <-opened
}

// run makes the namespace and runs what is called in it, in one thread. That goes back to where it came from in the end: were it to
// end itself, so would every process that it has ever started for another test (PR_SET_PDEATHSIG is about threads).
func (n *Network) run(opened chan<- error, locked chan<- struct{}) {
	runtime.LockOSThread()
	if unix.Gettid() == unix.Getpid() {
		// What /proc says of the process is its first thread's, which never ends either: another one, while this one is held.
		other := make(chan struct{})
		go n.run(opened, other)
		<-other
		runtime.UnlockOSThread()
		return
	}
	close(locked)
	own, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		opened <- err
		return
	}
	defer own.Close()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		opened <- fmt.Errorf("a network of its own: %w", err)
		return
	}
	opened <- testnet.LoopbackUp()
	for f := range n.calls {
		f()
	}
	if unix.Setns(int(own.Fd()), unix.CLONE_NEWNET) == nil {
		runtime.UnlockOSThread()
	}
}

func (n *Network) close() { close(n.calls) }

// Do runs f in a thread that has the network: sockets that f makes, and processes that it starts, have it for good. One runs at
// a time.
func (n *Network) Do(f func() error) error {
	done := make(chan error)
	n.calls <- func() { done <- f() }
	return <-done
}

// Dial connects within the network, to an address that is no name.
func (n *Network) Dial(ctx context.Context, network, address string) (c net.Conn, err error) {
	err = n.Do(func() error {
		c, err = new(net.Dialer).DialContext(ctx, network, address)
		return err
	})
	return c, err
}

// Listen listens within the network, for packets (udp) or connections (tcp), one of which is returned.
func (n *Network) Listen(network, address string) (p net.PacketConn, l net.Listener, err error) {
	err = n.Do(func() error {
		if network == "udp" {
			p, err = net.ListenPacket(network, address)
		} else {
			l, err = net.Listen(network, address)
		}
		return err
	})
	return p, l, err
}

// Start starts a command that has the network. It ends with this process, if not before.
func (n *Network) Start(cmd *exec.Cmd) (p *testprog.Process, err error) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	err = errors.Join(n.Do(func() error {
		p, err = testprog.Launch(cmd)
		return err
	}))
	return p, err
}
