package listen

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/shared-altsd/shared-altsd/internal/ident"
	"github.com/shared-altsd/shared-altsd/internal/metrics"
	"github.com/shared-altsd/shared-altsd/internal/systemd"
)

const (
	identName   = "ident" // FileDescriptorName= of the socket at port 113
	metricsName = "metrics"
)

// sockets are all that a listener listens on.
type sockets struct {
	peers   []net.Listener
	ident   net.Listener // nil for none
	metrics net.Listener // nil for none
}

// addresses are where peers connect.
func (s *sockets) addresses() (list []string) {
	for _, l := range s.peers {
		list = append(list, l.Addr().String())
	}
	return list
}

// bind takes over the sockets of the service manager, or of what this process was before (see shed), and binds the others
// that a right may be needed for.
func (c *Config) bind() (_ *sockets, err error) {
	kept, err := keptSockets()
	if kept != nil || err != nil {
		return kept, err
	}
	given, err := systemd.Sockets()
	if err != nil {
		return nil, err
	}
	s := new(sockets)
	used := make([]bool, len(given))
	take := func(name string) (list []net.Listener) {
		for i, g := range given {
			if g.Name == name && !used[i] {
				used[i] = true
				list = append(list, g.Listener)
			}
		}
		return list
	}
	for _, v := range c.Listen {
		if name, ok := strings.CutPrefix(v, "systemd:"); ok {
			list := take(name)
			if list == nil {
				return nil, fmt.Errorf("--listen %s: the service manager passed no socket of that name: write FileDescriptorName=%s in "+
					"the socket unit, and start that", v, name)
			}
			s.peers = append(s.peers, list...)
			continue
		}
		l, err := net.Listen("tcp", v)
		if err != nil {
			return nil, fmt.Errorf("--listen %s: %w; give an address of this machine's, and a port that is free and that this account "+
				"may use", v, err)
		}
		s.peers = append(s.peers, l)
	}
	if c.Ident.IsValid() {
		if list := take(identName); list != nil {
			s.ident = list[0]
		} else if privileged() { // else package ident binds it
			if s.ident, err = net.Listen("tcp4", netip.AddrPortFrom(c.Ident, ident.Port).String()); err != nil {
				return nil, fmt.Errorf("--ident: %w: the address has to be this forward's alone; ss -ltnp 'sport = :%d' names who has it",
					err, ident.Port)
			}
		}
	}
	if list := take(metricsName); list != nil {
		if c.Metrics != "" {
			return nil, errors.New("--metrics is given, and the service manager passes a socket for metrics as well: use one of them")
		}
		s.metrics = list[0]
		if err := metrics.CheckListener(s.metrics); err != nil {
			return nil, err
		}
	}
	if i := slices.Index(used, false); i >= 0 {
		return nil, fmt.Errorf("%v is for nothing here: write FileDescriptorName=NAME with a --listen systemd:NAME, ident or metrics",
			given[i])
	}
	return s, nil
}

// privileged reports whether this process has capabilities that an account was given.
func privileged() bool {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var caps [2]unix.CapUserData
	return os.Geteuid() != 0 && unix.Capget(&header, &caps[0]) == nil && caps[0].Permitted|caps[1].Permitted != 0
}

// keptVariable tells the process that shed makes where its sockets are.
const keptVariable = "SHARED_ALTSD_LISTEN_SOCKETS"

// shed executes the program again without the capability by which it has bound a port under 1024, which only a process as
// a whole can let go of. It returns if there is none to let go of. Root keeps what it has.
func (s *sockets) shed() error {
	if !privileged() {
		return nil
	}
	var words []string
	keep := func(name string, l net.Listener) error {
		file, ok := l.(interface{ File() (*os.File, error) })
		if !ok {
			return fmt.Errorf("%v is no socket", l.Addr())
		}
		if u, ok := l.(*net.UnixListener); ok {
			u.SetUnlinkOnClose(false)
		}
		f, err := file.File()
		if err != nil {
			return err
		}
		fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD, 3) // without FD_CLOEXEC
		words = append(words, name+"="+strconv.Itoa(fd))
		return err
	}
	for _, l := range s.peers {
		if err := keep("peer", l); err != nil {
			return err
		}
	}
	for name, l := range map[string]net.Listener{identName: s.ident, metricsName: s.metrics} {
		if l != nil {
			if err := keep(name, l); err != nil {
				return err
			}
		}
	}
	runtime.LockOSThread() // the new program has of this thread's capabilities the ambient ones
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return fmt.Errorf("clearing the ambient capabilities: %w", err)
	}
	// What is inheritable alone gives nothing, and a unit's filter of system calls may forbid to take it back.
	header, none := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, [2]unix.CapUserData{}
	_ = unix.Capset(&header, &none[0])
	env := append(os.Environ(), keptVariable+"="+strings.Join(words, ","))
	path, err := os.Executable() // /proc/self/exe would be what logs call the process
	if err != nil {
		return err
	}
	return fmt.Errorf("executing the program again without capabilities: %w", unix.Exec(path, os.Args, env))
}

// keptSockets returns what shed has passed on, nil for nothing.
func keptSockets() (*sockets, error) {
	text, ok := os.LookupEnv(keptVariable)
	os.Unsetenv(keptVariable)
	if !ok {
		return nil, nil
	}
	s := new(sockets)
	for _, word := range strings.Split(text, ",") {
		name, number, _ := strings.Cut(word, "=")
		fd, err := strconv.Atoi(number)
		if err != nil || fd < 3 {
			return nil, fmt.Errorf("%s of the environment is not this program's: unset it", keptVariable)
		}
		unix.CloseOnExec(fd)
		f := os.NewFile(uintptr(fd), name)
		l, err := net.FileListener(f)
		f.Close()
		if err != nil {
			return nil, fmt.Errorf("%s of the environment: %w", keptVariable, err)
		}
		switch name {
		case identName:
			s.ident = l
		case metricsName:
			s.metrics = l
		default:
			s.peers = append(s.peers, l)
		}
	}
	return s, nil
}
