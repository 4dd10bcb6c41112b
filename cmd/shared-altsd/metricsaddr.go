package main

import (
	"errors"
	"fmt"
	"net"

	"golang.org/x/sys/unix"

	"github.com/shared-altsd/shared-altsd/internal/localsock"
	"github.com/shared-altsd/shared-altsd/internal/metrics"
)

// A metricsAddr is the value of --metrics; the zero value is none.
type metricsAddr struct{ network, address string }

func (a *metricsAddr) set(v string) (err error) {
	a.network, a.address, err = metrics.ParseAddr(v)
	if err == nil && a.network == "unix" {
		err = localsock.CheckPath(a.address)
	}
	return err
}

// listen returns the listener for metrics: the one that the service manager made, or that of the flag; nil for none.
func (a *metricsAddr) listen(given net.Listener) (net.Listener, error) {
	switch {
	case given != nil && a.network != "":
		given.Close()
		return nil, errors.New("--metrics is given, and the service manager passes a socket for metrics as well: use one of them")
	case given != nil, a.network == "":
		return given, nil
	case a.network == "unix":
		// Its place is made safe like that of the other sockets; who may read is up to the directory.
		l, err := localsock.Listen(a.address, 0o666, -1)
		if err != nil {
			return nil, fmt.Errorf("--metrics: %w", err)
		}
		return l, nil
	}
	l, err := net.Listen(a.network, a.address)
	if errors.Is(err, unix.EAFNOSUPPORT) {
		return nil, fmt.Errorf("--metrics: this service may open no TCP port (RestrictAddressFamilies=): enable "+
			"shared-altsd-metrics.socket, through which systemd opens it, in the place of --metrics: %w", err)
	}
	if err != nil {
		return nil, fmt.Errorf("--metrics: %w", err)
	}
	return l, nil
}
