package forward

import (
	"fmt"
	"net"

	"github.com/shared-altsd/shared-altsd/internal/adminclient"
	"github.com/shared-altsd/shared-altsd/internal/localsock"
	"github.com/shared-altsd/shared-altsd/internal/metrics"
	"github.com/shared-altsd/shared-altsd/internal/version"
)

// NewMetrics returns the counts of a forward of a kind, which are this machine's: the daemon says its name.
func NewMetrics(kind, service, socket string, daemonUID uint32) *metrics.Forwards {
	return metrics.NewForwards(version.Number(), kind, service, OutcomeNames(), func() (string, error) {
		return adminclient.Client{Socket: socket, DaemonUID: daemonUID}.Machine()
	})
}

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
