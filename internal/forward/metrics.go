package forward

import (
	"fmt"
	"net"

	"github.com/shared-altsd/shared-altsd/internal/localsock"
	"github.com/shared-altsd/shared-altsd/internal/metrics"
)

// ListenMetrics listens where metrics are to be read, which is what --metrics says; nil for nowhere.
func ListenMetrics(at string) (net.Listener, error) {
	if at == "" {
		return nil, nil
	}
	network, address, err := metrics.ParseAddr(at)
	if err != nil {
		return nil, err
	}
	if network == "unix" { // who may read is up to the directory
		l, err := localsock.Listen(address, 0o666, -1)
		if err != nil {
			return nil, fmt.Errorf("--metrics: %w", err)
		}
		return l, nil
	}
	l, err := net.Listen(network, address)
	if err != nil {
		return nil, fmt.Errorf("--metrics: %w", err)
	}
	return l, nil
}
