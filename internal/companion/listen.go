package companion

import (
	"errors"
	"fmt"
	"net"
	"os/user"
	"slices"
	"strconv"

	"github.com/shared-altsd/shared-altsd/internal/localsock"
	"github.com/shared-altsd/shared-altsd/internal/systemd"
)

// Listen returns the socket that the service manager passed, or, if it passed none, one that is bound at path, to which every
// account may connect: whom the Server serves it asks the kernel. end is to be called at the end.
func Listen(path string) (l *net.UnixListener, end func() error, err error) {
	given, err := systemd.Sockets()
	switch {
	case err != nil:
		return nil, nil, err
	case len(given) > 1 || len(given) == 1 && path != "":
		return nil, nil, errors.New("the service manager passes a socket: it must be one alone, and --socket not be given beside it")
	case len(given) == 1:
		l, ok := given[0].Listener.(*net.UnixListener)
		if !ok {
			return nil, nil, fmt.Errorf("%v is not a UNIX socket: give a path in ListenStream=", given[0])
		}
		return l, l.Close, nil
	case path == "":
		return nil, nil, errors.New("no socket: start it by its socket unit, or give --socket PATH")
	}
	bound, err := localsock.Listen(path, 0o666, -1)
	if err != nil {
		return nil, nil, fmt.Errorf("--socket: %w", err)
	}
	return bound.Unix(), bound.Close, nil
}

// Accounts returns the Clients of a Server that are named, by name or uid.
func Accounts(names []string) (func(uid uint32) bool, error) {
	var uids []uint32
	for _, name := range names {
		number := name
		if _, err := strconv.ParseUint(name, 10, 32); err != nil {
			u, err := user.Lookup(name)
			if err != nil {
				return nil, fmt.Errorf("--client %s: %w: name an account of this machine", name, err)
			}
			number = u.Uid
		}
		uid, err := strconv.ParseUint(number, 10, 32)
		if err != nil {
			return nil, fmt.Errorf("--client %s: its uid %q is no number", name, number)
		}
		if localsock.Overflow(uint32(uid)) {
			return nil, fmt.Errorf("--client %s: uid %d stands for every account unknown here: name one account", name, uid)
		}
		uids = append(uids, uint32(uid))
	}
	return func(uid uint32) bool { return slices.Contains(uids, uid) }, nil
}
