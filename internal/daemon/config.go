package daemon

import (
	"io/fs"
	"log/slog"
	"time"

	"github.com/shared-altsd/shared-altsd/service"
)

// A Config is what an administrator sets of a daemon.
type Config struct {
	Files Files
	// Denied is the directory of what is denied before all rules, "" for DefaultDeniedDir if that is there.
	Denied string
	// Sockets are for applications. If there are none, and none of the service manager's, localsock.DefaultPath is one.
	Sockets     []Socket
	SocketMode  fs.FileMode
	SocketGroup int // gid, -1 for the daemon's own
	Metrics     MetricsAddr

	PublishGroups  []string
	SecureNaming   service.SecureNaming
	ServerAccounts []string
	MinVersion     int  // of the protocol between daemons
	KeepRevoked    bool // connections that would be refused now stand

	HandshakeTimeout  time.Duration
	StatementLifetime time.Duration // after which the static key is replaced as well
	VerifiedPeers     int           // identities of peers that are kept, so that they cost no certificate work again
	DrainTimeout      time.Duration
	Limits            service.Limits

	LogLevel slog.Level
	LogJSON  bool

	// Again reads what is set once more, nil where that cannot change while the daemon runs.
	Again *Again
}

// A Socket is a place for applications to reach the daemon.
type Socket struct {
	Path string
	Use  service.SocketUse
}

// A MetricsAddr is where the metrics are served, as net.Listen has it; the zero value is nowhere.
type MetricsAddr struct{ Network, Address string }
