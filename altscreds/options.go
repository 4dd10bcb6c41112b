package altscreds

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/shared-altsd/shared-altsd/internal/localsock"
	"github.com/shared-altsd/shared-altsd/internal/names"
)

const (
	// DefaultSocket is where an installed daemon listens.
	DefaultSocket = localsock.DefaultPath
	// SocketVariable names the environment variable that overrides DefaultSocket. It is ignored in a program that the
	// kernel started with privileges of its own (setuid, setgid, file capabilities: AT_SECURE).
	SocketVariable = localsock.Variable
	// DefaultTimeout limits a handshake whose context and connection have no deadline.
	DefaultTimeout = 20 * time.Second

	defaultProtocol = "grpc"
)

// ClientOptions are the options of the side that dials. The zero value works where the daemon is installed in its
// default place: the daemon's secure naming then decides who the peer may be.
type ClientOptions struct {
	// Socket is the path of the local daemon's UNIX socket. "": SocketVariable, else DefaultSocket.
	Socket string
	// DaemonUID is the account that the daemon may run as, besides root and the program's own.
	DaemonUID uint32
	// Timeout limits a handshake where the context sets no deadline; 0 means DefaultTimeout.
	Timeout time.Duration
	// TargetAccounts are the accounts, "user@machine", that the peer may be. Name them wherever they are known: the name
	// of a host proves the machine, and on a shared machine anybody may listen. Capitals count as lower case.
	TargetAccounts []string
	// TargetMachines are machines on which the peer may be any account. The peer must be in one of the two lists, if
	// either has an entry; otherwise the daemon checks the name that was dialled.
	TargetMachines []string
	// ServerName is checked by the daemon in place of the name that was dialled.
	ServerName string
	// ApplicationProtocols are what is spoken over the connection, most wanted first; one must be the server's as well.
	// For gRPC, nil is "grpc", the only one that the stock gRPC libraries know. Everything else names its own, such as
	// "http/1.1", or one of ServiceProtocol for bytes whose end is to be authenticated.
	ApplicationProtocols []string
}

// ServerOptions are the options of the side that accepts. The zero value works where the daemon is installed in its
// default place: every peer that the daemon verifies is accepted, and authorization is up to the program (Authorizer).
type ServerOptions struct {
	// Socket, DaemonUID, Timeout and ApplicationProtocols are as in ClientOptions.
	Socket               string
	DaemonUID            uint32
	Timeout              time.Duration
	ApplicationProtocols []string
	// Mixed, if set, has the server take TLS or plaintext beside ALTS on the same port.
	Mixed *Mixed
}

// settings are the options of either side after checks and defaults.
type settings struct {
	client             bool
	socket             string
	daemonUID          uint32
	timeout            time.Duration
	accounts, machines []string
	serverName         string
	protocols          []string
	mixed              *Mixed
}

func (o ClientOptions) settings() (*settings, error) {
	s := &settings{client: true, daemonUID: o.DaemonUID, serverName: o.ServerName, protocols: slices.Clone(o.ApplicationProtocols)}
	for _, a := range o.TargetAccounts {
		account, _, _, err := names.Account(a)
		if err != nil {
			return nil, fmt.Errorf("altscreds: target account %q is not of the form user@machine: %w", a, err)
		}
		s.accounts = append(s.accounts, account)
	}
	for _, m := range o.TargetMachines {
		if m == "" || strings.ContainsAny(m, "@:/ ") {
			return nil, fmt.Errorf("altscreds: target machine %q is not a host name", m)
		}
		s.machines = append(s.machines, names.Machine(m))
	}
	return s, s.common(o.Socket, o.Timeout)
}

func (o ServerOptions) settings() (*settings, error) {
	s := &settings{daemonUID: o.DaemonUID, mixed: o.Mixed, protocols: slices.Clone(o.ApplicationProtocols)}
	return s, s.common(o.Socket, o.Timeout)
}

// common sets what both sides' options have.
func (s *settings) common(socket string, timeout time.Duration) error {
	if timeout < 0 {
		return errors.New("altscreds: Timeout is negative")
	}
	if s.timeout = timeout; timeout == 0 {
		s.timeout = DefaultTimeout
	}
	s.socket = localsock.Path(socket)
	if !filepath.IsAbs(s.socket) {
		return fmt.Errorf("altscreds: the daemon's socket %q is not an absolute path", s.socket)
	}
	for _, p := range s.protocols {
		if err := checkService(p); err != nil {
			return err
		}
		if p == "" || len(p) > 64 {
			return fmt.Errorf("altscreds: application protocol %q does not have 1 to 64 bytes", p)
		}
	}
	return nil
}

// forGRPC returns the settings of gRPC's credentials, given those of options or why there are none.
func forGRPC(s *settings, err error) (*settings, error) {
	if err != nil {
		return nil, err
	}
	if len(s.protocols) == 0 {
		s.protocols = []string{defaultProtocol}
	}
	for _, p := range s.protocols {
		if IsServiceProtocol(p) {
			return nil, fmt.Errorf("altscreds: application protocol %q is for Dial and Listen: gRPC tells its own ends; leave it "+
				"out, and stock libraries are understood as well", p)
		}
	}
	return s, nil
}

// forConn returns the settings of what is a net.Conn, likewise.
func forConn(s *settings, err error) (*settings, error) {
	if err == nil && len(s.protocols) == 0 {
		err = errors.New("altscreds: ApplicationProtocols names nothing: set what is spoken over the connection, such as " +
			"\"http/1.1\", or for bytes of any kind the name that ServiceProtocol makes of a service's")
	}
	return s, err
}
