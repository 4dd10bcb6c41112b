package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/shared-altsd/shared-altsd/internal/testca"
)

// The forwards that are compared: all take connections at a UNIX socket, and carry them by TCP to another process, which
// carries them on to a TCP server.
const (
	haproxyName, forwardName                 = "haproxy", "forward"
	clientForwarderName, serverForwarderName = "forwarder of " + here, "forwarder of " + there
)

var forwardVariants = []*variant{
	{insecureName, insecureName, testca.P256, tlsName, "no security"},
	{tlsName, tlsName, testca.P256, tlsName, "crypto/tls"},
	{haproxyName, haproxyName, testca.P256, tlsName, "haproxy"},
	{forwardName, oursName, testca.P256, tlsName, "shared-altsd"},
}

const connectionName, manyName, upName, downName = "connection", "32", "up", "down"

var forwardMeasures = []*measure{
	{idleName, "hold", 0, false},
	{connectionName, "connection", 1, false},
	{manyName, "connections", 32, false},
	{upName, "up", 0, false},
	{downName, "down", 0, false},
}

func forGiB(x sample) float64 { return processor(x) * 1024 / 1e3 }

var forwardRows = []row{
	{connectionName, "new connection and its first byte back, time", "µs", perOne},
	{connectionName, "new connection and its end, processor time of all processes", "µs", processor},
	{manyName, "connections a second, 32 dialers", "/s", aSecond},
	{upName, "bulk from the client", "MiB/s", aSecond},
	{upName, "bulk from the client, processor time of all processes for a GiB", "ms", forGiB},
	{downName, "bulk to the client", "MiB/s", aSecond},
	{downName, "bulk to the client, processor time of all processes for a GiB", "ms", forGiB},
}

// spareFiles are descriptors that a process has besides two for each connection.
const spareFiles = 200

// limitForwards leaves out what this machine cannot do, and says so.
func (c *config) limitForwards() {
	if find(c.variants, haproxyName) != nil {
		if _, err := haproxy(); err != nil {
			c.variants = slices.DeleteFunc(slices.Clone(c.variants), func(v *variant) bool { return v.Name == haproxyName })
			c.Left = append(c.Left, "haproxy is not installed, so its column is left out")
		}
	}
	var limit syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit) != nil {
		return
	}
	want := uint64(2*c.idle + spareFiles)
	if limit.Cur < want {
		// The children inherit it; more than the greatest there is needs a privilege.
		raised := syscall.Rlimit{Cur: want, Max: max(want, limit.Max)}
		if syscall.Setrlimit(syscall.RLIMIT_NOFILE, &raised) == nil {
			limit = raised
		}
	}
	if n := (int(limit.Cur) - spareFiles) / 2; n < c.idle {
		c.Left = append(c.Left, fmt.Sprintf("A process may have %d descriptors, so %d idle connections are held and not %d",
			limit.Cur, n, c.idle))
		c.idle = n
	}
}

// haproxy returns its program, which Debian has where only root looks.
func haproxy() (string, error) {
	if path, err := exec.LookPath(haproxyName); err == nil {
		return path, nil
	}
	return exec.LookPath("/usr/sbin/haproxy")
}

// startForwards starts the client and the server of forwarded connections, and the forwarders between them.
func (w *world) startForwards(ctx context.Context, s *station) (err error) {
	server := stream{}
	if w.unixTarget {
		server.Path = w.path(s.Name, "back")
	}
	if s.server, err = w.run(ctx, s.variant, "server", streamArgument, server); err != nil {
		return err
	}
	backend, err := s.server.hear()
	if err != nil {
		return err
	}
	between, err := freePort()
	if err != nil {
		return err
	}
	socket := w.path(s.Name, "front")
	if s.serverForwarder, err = w.forwarder(ctx, s.variant, false, between, backend.Addr); err != nil {
		return err
	}
	if err := s.serverForwarder.ready("tcp", between); err != nil {
		return err
	}
	if s.clientForwarder, err = w.forwarder(ctx, s.variant, true, socket, between); err != nil {
		return err
	}
	if err := s.clientForwarder.ready("unix", socket); err != nil {
		return err
	}
	s.client, err = w.run(ctx, s.variant, "client", streamArgument, stream{Network: "unix", Addr: socket})
	return err
}

// freePort returns an address of loopback that nobody has in this moment.
func freePort() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// forwarder starts that of the client's machine, from a UNIX socket, or that of the server's, from TCP.
func (w *world) forwarder(ctx context.Context, v *variant, client bool, from, to string) (*process, error) {
	name, machine, peer := serverForwarderName, there, here
	if client {
		name, machine, peer = clientForwarderName, here, there
	}
	log := w.path(v.Name, name+".log")
	switch v.over {
	case haproxyName:
		program, err := haproxy()
		if err != nil {
			return nil, err
		}
		file := w.path(v.Name, machine+".cfg")
		if err := os.WriteFile(file, []byte(w.haproxyConfig(client, from, to)), 0o644); err != nil {
			return nil, err
		}
		return start(ctx, w.account, name, log, false, program, "-db", "-f", file)
	case oursName:
		_, port, err := net.SplitHostPort(map[bool]string{true: to, false: from}[client])
		if err != nil {
			return nil, err
		}
		// One account may have half of the places.
		most := strconv.Itoa(2 * (w.idle + spareFiles/4))
		argv := []string{"listen", "--listen", from, "--target", target(to, "unix:"), "--target-account", w.user, "--allow", w.user + "@" + peer + ".test"}
		if client {
			argv = []string{"connect", "--listen", "unix:" + from, "--dial", to, w.user + "@" + peer + ".test:" + port}
		}
		argv = slices.Insert(argv, 1, "--socket", w.path(v.Name, machine), "--max-conns", most)
		return start(ctx, w.account, name, log, false, append([]string{w.path("shared-altsd")}, argv...)...)
	}
	f := forwarder{Listen: [2]string{networkOf(from), from}, Target: [2]string{networkOf(to), to}, Machine: machine, Peer: peer + ".test",
		Accepts: !client}
	if v.over == tlsName {
		f.Certificates = w.path(v.key)
	}
	return w.run(ctx, v, name, forwarderArgument, f)
}

// networkOf returns that of an address, which is a path or has a port.
func networkOf(addr string) string {
	if filepath.IsAbs(addr) {
		return "unix"
	}
	return "tcp"
}

// target returns an address as a program takes it that has a mark for UNIX sockets.
func target(addr, mark string) string {
	if networkOf(addr) == "unix" {
		return mark + addr
	}
	return addr
}

// haproxyConfig has TLS as the others have it, but for the hybrid key exchange, which OpenSSL does not know before 3.5.
func (w *world) haproxyConfig(client bool, from, to string) string {
	machine, bind, server := there, from, target(to, "unix@")
	ssl := func(machine string) string {
		return fmt.Sprintf(" ssl crt %s ca-file %s verify required ssl-min-ver TLSv1.3", w.path(testca.P256, machine+".pem"),
			w.path(testca.P256, "ca.pem"))
	}
	if client {
		machine = here
		bind, server = "unix@"+from, to+ssl(machine)+" verifyhost "+there+".test no-ssl-reuse"
	} else {
		bind += ssl(machine) + " no-tls-tickets"
	}
	return strings.Join([]string{
		"global",
		fmt.Sprintf("  maxconn %d", w.idle+spareFiles/4), // two descriptors each, and some
		"defaults",
		"  mode tcp",
		"  timeout connect 30s",
		"  timeout client 1h",
		"  timeout server 1h",
		"  timeout client-fin 30s",
		"  timeout server-fin 30s",
		"frontend in",
		"  bind " + bind,
		"  default_backend out",
		"backend out",
		"  server out " + server,
		"",
	}, "\n")
}

// settle is how long a process is given to come to rest before its memory is read.
const settle = time.Second

// holdForwards measures what idle connections make the forwarders and the daemons have in memory: what is theirs alone,
// as the kernel sees it.
func (r *report) holdForwards(s *station) error {
	all := []*process{s.clientForwarder, s.serverForwarder, s.clientDaemon, s.serverDaemon}
	read := func() (kib [4]int, err error) {
		time.Sleep(settle)
		for i, p := range all {
			if p == nil {
				continue
			}
			if kib[i], err = p.memory("RssAnon"); err != nil {
				return kib, err
			}
		}
		return kib, nil
	}
	before, err := read()
	if err != nil {
		return err
	}
	if _, err := s.client.ask(request{Do: "hold", N: r.idle}); err != nil {
		return err
	}
	after, err := read()
	if err != nil {
		return err
	}
	for i := range after {
		after[i] = (after[i] - before[i]) * 1024 / r.idle
	}
	m := r.Memory[s.Name]
	m.Client, m.Server, m.Daemons = after[0], after[1], after[2]+after[3]
	_, err = s.client.ask(request{Do: "drop"})
	return err
}

func (r *report) printForwardMemory(w io.Writer) {
	if find(r.measures, idleName) == nil {
		return
	}
	head(w, fmt.Sprintf("memory for an idle connection, KiB, with %d of them", r.idle), clientForwarderName, serverForwarderName,
		"both daemons")
	for _, v := range r.variants {
		m := r.Memory[v.Name]
		fmt.Fprintf(w, "| %s | %.1f | %.1f ", v.title, float64(m.Client)/1024, float64(m.Server)/1024)
		if v.daemons() {
			fmt.Fprintf(w, "| %.1f |\n", float64(m.Daemons)/1024)
		} else {
			fmt.Fprintln(w, "| |")
		}
	}
}
