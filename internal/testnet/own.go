package testnet

import (
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// ownVariable says to a test binary, and to all that it starts, that it is in a network of its own already.
const ownVariable = "SHARED_ALTSD_TEST_NETWORK"

// Own starts the test binary again in a network namespace with nothing but loopback and one address besides, so that what it takes there by a fixed
// address or port is nobody else's: tests of several packages run at a time. To be called first in TestMain. Without root's
// rights, or where it is in such a namespace, it does nothing.
func Own() {
	if os.Geteuid() != 0 || os.Getenv(ownVariable) != "" {
		return
	}
	err := enterOwn()
	fmt.Fprintf(os.Stderr, "a network of the tests' own: %v\n", err)
	os.Exit(1)
}

// enterOwn returns only where it fails. execve leaves of all threads the one that calls it, whose namespace is the process' then.
func enterOwn() error {
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return err
	}
	if err := LoopbackUp(); err != nil {
		return err
	}
	// glibc answers for IPv4 only where there is an address besides 127.0.0.1 (AI_ADDRCONFIG), as on any machine.
	if err := interfaces(func(fd int) error {
		req, err := unix.NewIfreq("lo:1")
		if err != nil {
			return err
		}
		if err := req.SetInet4Addr([]byte{198, 18, 0, 1}); err != nil {
			return err
		}
		return unix.IoctlIfreq(fd, unix.SIOCSIFADDR, req)
	}); err != nil {
		return err
	}
	return unix.Exec("/proc/self/exe", os.Args, append(os.Environ(), ownVariable+"=1"))
}

// LoopbackUp makes loopback of the calling thread's network usable.
func LoopbackUp() error {
	return interfaces(func(fd int) error {
		req, err := unix.NewIfreq("lo")
		if err != nil {
			return err
		}
		req.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
		return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, req)
	})
}

// interfaces runs f with a socket by which the calling thread's interfaces can be set.
func interfaces(f func(fd int) error) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return f(fd)
}
