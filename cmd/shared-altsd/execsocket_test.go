package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/shared-altsd/shared-altsd/altscreds"
	"github.com/shared-altsd/shared-altsd/internal/testca"
	"github.com/shared-altsd/shared-altsd/internal/testprog"
)

// shakeHands is a program with altscreds: both ends of a handshake with itself. It prints who either end is.
func shakeHands() {
	err := func() error {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		dialed, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			return err
		}
		accepted, err := l.Accept()
		if err != nil {
			return err
		}
		server := altscreds.Server(accepted, altscreds.ServerOptions{ApplicationProtocols: spoken})
		served := make(chan error, 1)
		go func() { served <- server.Handshake() }()
		client := altscreds.Client(dialed, altscreds.ClientOptions{ApplicationProtocols: spoken, ServerName: "localhost"})
		if err := errors.Join(client.Handshake(), <-served); err != nil {
			return err
		}
		fmt.Println(client.Peer(), server.Peer())
		return nil
	}()
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	os.Exit(0)
}

// ordinary returns what runs a program as the account, which every system has.
func ordinary(t *testing.T, name string) (*syscall.SysProcAttr, uint32) {
	t.Helper()
	u, err := user.Lookup(name)
	if err != nil {
		t.Fatal(err)
	}
	uid, _ := strconv.Atoi(u.Uid)
	gid, _ := strconv.Atoi(u.Gid)
	return &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}, uint32(uid)
}

// TestRule43OwnSocket has a daemon of an account of its own, and programs that ask it under exec: in the user namespace
// that exec makes without root, the daemon's own socket seems to be of nobody, and so does everybody else's.
func TestRule43OwnSocket(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can start a daemon of another account")
	}
	dir, ca := testprog.Dir(t), newCA(t, testca.Options{})
	credentials := write(t, filepath.Join(dir, "a.pem"), issue(t, ca, testca.Leaf{Hosts: []string{"a.test"}}).PEM())
	caFile := write(t, filepath.Join(dir, "ca.pem"), ca.PEM())
	sockets := filepath.Join(dir, "run")
	attr, uid := ordinary(t, "daemon")
	if err := errors.Join(os.Chmod(dir, 0o755), os.Mkdir(sockets, 0o755), os.Chmod(caFile, 0o644),
		os.Chown(sockets, int(uid), int(uid)), os.Chown(credentials, int(uid), int(uid))); err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(sockets, "socket")
	start := func() *process {
		cmd := exec.Command(program(t), "serve", "--socket", socket, "--credentials", credentials, "--ca", caFile)
		cmd.SysProcAttr = attr
		p := launch(t, socket, cmd)
		p.told.waitAfter(t, 0, "READY=1")
		return p
	}
	p := start()
	eachAccount(t, func(t *testing.T, e execTest) {
		e.socket = socket
		account := "root"
		if e.uid != 0 {
			account = "bin"
			_, bin := ordinary(t, account)
			e.uid = int(bin)
		}
		me := account + "@a.test"
		// Each line of input is one round of all.
		cmd := e.command("sh", "-c", `dir=$(dirname "$SHARED_ALTS_SOCKET"); stat -c '%a %u' "$dir"
			while read line; do
				$P whoami | head -n1; $P status >/dev/null && echo status; $P shake-hands
				$P pong --count 1 127.0.0.1:0 | (
					read listening at address rest; $P ping --target-account $ME $address >/dev/null && echo ping; cat >/dev/null)
				echo .
			done`)
		cmd.Args = slices.Insert(cmd.Args, 2, "--daemon-uid", strconv.Itoa(int(uid)))
		cmd.Env = append(cmd.Env, "P="+e.program, "ME="+me)
		cmd.Stderr = os.Stderr
		in, out := startPiped(t, cmd)
		said := bufio.NewScanner(out)
		if said.Scan(); said.Text() != fmt.Sprint("700 ", e.uid) {
			t.Errorf("mode and owner of the socket's directory: %s", said.Text())
		}
		for range 2 {
			io.WriteString(in, "\n")
			var got []string
			for said.Scan() && said.Text() != "." {
				got = append(got, said.Text())
			}
			if want := []string{me, "status", me + " " + me, "ping"}; !slices.Equal(got, want) {
				t.Errorf("%q, not %q", got, want)
			}
			p.stop() // the second round is with another daemon
			p = start()
		}
		in.Close()
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}

		// Without exec's socket, in the same namespace: nobody's is believed, whatever uid is named.
		if e.uid == 0 {
			return
		}
		for _, told := range []string{"", "--daemon-uid 65534", fmt.Sprint("--daemon-uid ", uid)} {
			direct := e.command("sh", "-c", fmt.Sprintf("$P status --socket %s %s; test $? = 1", socket, told))
			direct.Args = slices.Insert(direct.Args, 2, "--daemon-uid", strconv.Itoa(int(uid)))
			direct.Env = append(direct.Env, "P="+e.program)
			if out, err := direct.CombinedOutput(); err != nil || !strings.Contains(string(out), "stands for every account") {
				t.Errorf("%q: %v %s", told, err, out)
			}
		}
	})
}
