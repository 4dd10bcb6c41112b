package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"

	"github.com/shared-altsd/shared-altsd/internal/testca"
)

// Machines: the client's and the server's, both this one.
const here, there = "alpha", "beta"

// A world is what the variants run in: a directory with programs, certificates and sockets, and an account.
type world struct {
	dir      string
	account  *syscall.Credential // nil is this process's own
	user     string              // its name
	stations []*station
	idle     int // connections that a forwarder has to hold
	// unixTarget has the server of forwards at a UNIX socket.
	unixTarget bool
}

// A station is the processes of a variant.
type station struct {
	*variant
	client, server                   *process
	clientForwarder, serverForwarder *process // nil but for a table of forwards
	clientDaemon, serverDaemon       *process // nil if the variant has none
	app                              app      // the client's, for more of them
}

// newWorld starts the processes. The world is to be ended also if there is an error.
func newWorld(ctx context.Context, c config) (w *world, err error) {
	w = &world{idle: c.idle, unixTarget: c.unixTarget}
	if w.dir, err = os.MkdirTemp("/tmp", "altsd-bench-"); err != nil {
		return w, err
	}
	if err := errors.Join(os.Chmod(w.dir, 0o755), w.chooseAccount()); err != nil {
		return w, err
	}
	// Where every account may run them.
	for name, from := range map[string]string{"bench": "/proc/self/exe", "shared-altsd": c.daemon} {
		program, err := os.ReadFile(from)
		if err != nil {
			return w, err
		}
		if err := os.WriteFile(w.path(name), program, 0o755); err != nil {
			return w, err
		}
	}
	for _, v := range c.variants {
		s := &station{variant: v}
		w.stations = append(w.stations, s)
		if err := w.start(ctx, c, s); err != nil {
			return w, fmt.Errorf("%s: %w", v.Name, err)
		}
	}
	return w, nil
}

func (w *world) path(elem ...string) string {
	return filepath.Join(append([]string{w.dir}, elem...)...)
}

// chooseAccount takes, in root's place, an account without privileges that every distribution has.
func (w *world) chooseAccount() error {
	if os.Geteuid() != 0 {
		me, err := user.Current()
		if err == nil {
			w.user = me.Username
		}
		return err
	}
	w.user = "daemon"
	u, err := user.Lookup(w.user)
	if err != nil {
		return fmt.Errorf("in the place of root: %w", err)
	}
	uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
	gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
	w.account = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	return errors.Join(err1, err2)
}

// mkdir makes a directory of the account's.
func (w *world) mkdir(name string) error {
	if err := os.Mkdir(w.path(name), 0o755); err != nil {
		return err
	}
	return w.own(w.path(name))
}

func (w *world) own(path string) error {
	if w.account == nil {
		return nil
	}
	return os.Chown(path, int(w.account.Uid), int(w.account.Gid))
}

// certify makes certificates of the type for both machines, by a CA with an ECDSA key, once.
func (w *world) certify(key string) error {
	if _, err := os.Stat(w.path(key)); err == nil {
		return nil
	}
	ca, err := testca.NewCA(testca.Options{})
	if err != nil {
		return err
	}
	if err := errors.Join(w.mkdir(key), os.WriteFile(w.path(key, "ca.pem"), ca.PEM(), 0o644)); err != nil {
		return err
	}
	for _, machine := range []string{here, there} {
		file := w.path(key, machine+".pem")
		issued, err := ca.Issue(testca.Leaf{Hosts: []string{machine + ".test"}, IPs: []net.IP{net.IPv4(127, 0, 0, 1)}, KeyType: key})
		if err != nil {
			return err
		}
		if err := errors.Join(os.WriteFile(file, issued.PEM(), 0o600), w.own(file)); err != nil {
			return err
		}
	}
	return nil
}

func (w *world) start(ctx context.Context, c config, s *station) (err error) {
	if err := errors.Join(w.certify(s.key), w.mkdir(s.Name)); err != nil {
		return err
	}
	if s.daemons() {
		if s.clientDaemon, err = w.daemon(ctx, s.variant, here); err != nil {
			return err
		}
		if s.serverDaemon, err = w.daemon(ctx, s.variant, there); err != nil {
			return err
		}
	}
	if c.table == forwardsTable {
		return w.startForwards(ctx, s)
	}
	s.app = app{Variant: s.Name, Certificates: w.path(s.key), Machine: there, Socket: w.path(s.Name, there)}
	if s.server, err = w.run(ctx, s.variant, "server", appArgument, s.app); err != nil {
		return err
	}
	a, err := s.server.hear()
	if err != nil {
		return err
	}
	s.app.Machine, s.app.Socket, s.app.Addr, s.app.Target = here, w.path(s.Name, here), a.Addr, w.user+"@"+there+".test"
	s.client, err = w.run(ctx, s.variant, "client", appArgument, s.app)
	return err
}

// run starts this program again, as a client or server or, if it takes no requests, as a forwarder.
func (w *world) run(ctx context.Context, v *variant, name, argument string, end any) (*process, error) {
	text, err := json.Marshal(end)
	if err != nil {
		return nil, err
	}
	talks := argument != forwarderArgument
	return start(ctx, w.account, name, w.path(v.Name, name+".log"), talks, w.path("bench"), argument, string(text))
}

// daemon starts a machine's, and returns when it is ready.
func (w *world) daemon(ctx context.Context, v *variant, machine string) (*process, error) {
	socket := w.path(v.Name, machine)
	p, err := start(ctx, w.account, "daemon of "+machine, socket+".log", false, w.path("shared-altsd"), "serve",
		"--credentials", w.path(v.key, machine+".pem"), "--ca", w.path(v.key, "ca.pem"), "--socket", socket)
	if err != nil {
		return nil, err
	}
	return p, p.ready("unix", socket)
}

// processes returns those that there are.
func (s *station) processes() (all []*process) {
	for _, p := range []*process{s.client, s.server, s.clientForwarder, s.serverForwarder, s.clientDaemon,
		s.serverDaemon} {
		if p != nil {
			all = append(all, p)
		}
	}
	return all
}

// end leaves nothing behind.
func (w *world) end() error {
	for _, s := range w.stations {
		for _, p := range s.processes() {
			p.end()
		}
	}
	if w.dir == "" {
		return nil
	}
	return os.RemoveAll(w.dir)
}
