package connect

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/shared-altsd/shared-altsd/altscreds"
	"github.com/shared-altsd/shared-altsd/certbind"
	"github.com/shared-altsd/shared-altsd/internal/names"
)

// A Target is who has to be at the other end, and where he listens.
type Target struct {
	Account string // user@machine, as the daemons name it
	Machine string
	Port    string
}

// ParseTarget reads ACCOUNT@MACHINE:PORT. An account may itself hold an @: the last one divides.
func ParseTarget(v string) (t Target, err error) {
	const form = "write ACCOUNT@MACHINE:PORT, such as postgres@beta.example.com:6432"
	colon := strings.LastIndexByte(v, ':')
	if colon < 0 || colon < strings.LastIndexByte(v, '@') {
		return t, fmt.Errorf("%q has no port: %s", v, form)
	}
	if t.Port, err = port(v[colon+1:]); err != nil {
		return t, fmt.Errorf("%q: %w: %s", v, err, form)
	}
	account, user, machine, err := names.Account(v[:colon])
	if err != nil {
		return t, fmt.Errorf("%q names no account: %w: %s", v, err, form)
	}
	if _, err := netip.ParseAddr(strings.Trim(machine, "[]")); err == nil || strings.ContainsAny(machine, "[]:") {
		return t, fmt.Errorf("%q names an address: MACHINE is the name that the machine's certificate has, and the address is given "+
			"beside it, by --dial HOST:PORT", v)
	}
	if err := certbind.ValidMachineName(machine); err != nil {
		return t, fmt.Errorf("%q: %w: %s", v, err, form)
	}
	if err := certbind.ValidAccount(user, true); err != nil {
		return t, fmt.Errorf("%q: %w: %s", v, err, form)
	}
	t.Account, t.Machine = account, machine
	return t, nil
}

// port returns a port in its one spelling, since it names the service.
func port(v string) (string, error) {
	n, err := strconv.ParseUint(v, 10, 16)
	if err != nil || n == 0 {
		return "", errors.New("the port is not a number from 1 to 65535")
	}
	return strconv.FormatUint(n, 10), nil
}

func (t Target) String() string { return t.Account + ":" + t.Port }

// address is what is dialled where nothing else is named.
func (t Target) address() string { return net.JoinHostPort(t.Machine, t.Port) }

// CheckService returns why a service cannot have the name.
func CheckService(name string) error {
	_, err := altscreds.ServiceProtocol(name)
	return err
}
