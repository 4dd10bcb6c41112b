// Package conformance tests the daemon, as a process, against the second implementation of docs/spec/protocol.md
// (interop/python), which is honest or hostile, and the Go packages against its verdicts on mutated input.
package conformance

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/shared-altsd/shared-altsd/internal/altspb"
	"github.com/shared-altsd/shared-altsd/internal/testprog"
)

const (
	// python is Debian's, for which Debian's python3-cryptography is installed.
	python    = "/usr/bin/python3"
	sourceDir = "../python"
)

// kinds are the signature schemes of section 5.1, each with a machine certificate for the daemon and one for the peer.
var kinds = []string{"p256", "p384", "ed25519", "rsa"}

// needPython skips the test where the second implementation cannot run.
func needPython(t *testing.T) {
	t.Helper()
	if out, err := exec.Command(python, "-c", "import cryptography").CombinedOutput(); err != nil {
		t.Skipf("%s with cryptography is missing, install Debian's python3-cryptography: %v %s", python, err, out)
	}
}

// peer returns a command of the second implementation.
func peer(args ...string) *exec.Cmd {
	cmd := exec.Command(python, append([]string{"-B", "-m", "altsd_peer"}, args...)...)
	cmd.Dir = sourceDir
	return cmd
}

// started starts such a command, and gives what it prints and how it ends.
func started(t *testing.T, cmd *exec.Cmd) (out *bufio.Reader, end func() error) {
	t.Helper()
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var said bytes.Buffer
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return bufio.NewReader(pipe), func() error {
		if err := cmd.Wait(); err != nil {
			return fmt.Errorf("%s: %w %s", cmd, err, &said)
		}
		return nil
	}
}

// A world is the PKI that the second implementation makes, and a daemon for each kind of key in it.
type world struct {
	dir, program, pki string

	mu      sync.Mutex
	daemons map[string]*daemon
}

func TestMain(m *testing.M) {
	// Go keeps the outcome of a test until a file changes that the test has looked at: these are run by Python.
	if err := filepath.WalkDir(sourceDir, func(_ string, _ os.DirEntry, err error) error { return err }); err != nil {
		fmt.Fprintln(os.Stderr, "FAIL: the sources are not all there:", err)
		os.Exit(1)
	}
	os.Exit(testprog.Main(m, shared.End))
}

var shared = testprog.Shared[*world]{Make: newWorld, Close: (*world).end}

// theWorld returns what the tests share.
func theWorld(t *testing.T) *world {
	t.Helper()
	needPython(t)
	return shared.Get(t)
}

func newWorld() (_ *world, err error) {
	w := &world{daemons: map[string]*daemon{}}
	if w.program, err = testprog.Path(); err != nil {
		return nil, err
	}
	if w.dir, err = os.MkdirTemp("", "altsd-conformance-"); err != nil {
		return nil, err
	}
	w.pki = filepath.Join(w.dir, "pki")
	if out, err := peer("make-pki", w.pki).CombinedOutput(); err != nil {
		return w, fmt.Errorf("altsd_peer make-pki: %w: %s", err, out)
	}
	return w, nil
}

// end stops the daemons and looks at what they have logged.
func (w *world) end() (err error) {
	for kind, d := range w.daemons {
		d.conn.Close()
		if failed := errors.Join(d.run.Stop(), testprog.Faults(d.run.Log.String())); failed != nil {
			err = errors.Join(err, fmt.Errorf("the daemon %s: %w", kind, failed))
		}
	}
	return errors.Join(err, os.RemoveAll(w.dir))
}

// A daemon is shared-altsd serve with a certificate of the PKI.
type daemon struct {
	run  *testprog.Process
	conn *grpc.ClientConn
}

// daemon returns the running daemon whose key is of the kind.
func (w *world) daemon(t *testing.T, kind string) *daemon {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	if d := w.daemons[kind]; d != nil {
		return d
	}
	file, socket := func(name string) string { return filepath.Join(w.pki, name) }, filepath.Join(w.dir, kind+".socket")
	run, err := testprog.Start(exec.Command(w.program, "serve", "--socket", socket, "--credentials",
		file("daemon-"+kind+".pem"), "--key", file("daemon-"+kind+".key"), "--ca", file("ca.pem"), "--ca",
		"limited.test="+file("ca-limited.pem"), "--crl", file("crl.pem"), "--secure-naming", "off", "--handshake-timeout",
		"30s"))
	if err != nil {
		t.Fatal(err)
	}
	conn, err := grpc.NewClient("unix:"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	w.daemons[kind] = &daemon{run, conn}
	return w.daemons[kind]
}

var errHungUp = errors.New("the peer hung up")

// relay does what an application's ALTS library does, from the raw service: it carries one handshake between conn and
// the daemon.
func (d *daemon) relay(conn net.Conn, client bool) (*altspb.HandshakerResult, error) {
	ctx, cancel := context.WithTimeout(context.Background(), testprog.Patience)
	defer cancel()
	s, err := d.conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, altspb.FullMethod)
	if err != nil {
		return nil, err
	}
	// The service may end the stream at any time, also while nothing comes from the peer.
	answers := make(chan *altspb.HandshakerResp)
	var ended error
	go func() {
		defer close(answers)
		for {
			r := new(altspb.HandshakerResp)
			if ended = s.RecvMsg(r); ended != nil {
				_ = conn.SetReadDeadline(time.Now()) // wakes the reader; a closed connection wakes it too
				return
			}
			select {
			case answers <- r:
			case <-ctx.Done():
				ended = ctx.Err()
				return
			}
		}
	}()
	buf := make([]byte, 65536)
	read := func() ([]byte, error) {
		n, err := conn.Read(buf)
		if n > 0 {
			return buf[:n], nil
		}
		if err == io.EOF || errors.Is(err, syscall.ECONNRESET) {
			return nil, errHungUp
		}
		return nil, err
	}
	rpc := &altspb.RpcProtocolVersions{MaxRpcVersion: &altspb.RpcProtocolVersions_Version{Major: 2, Minor: 1},
		MinRpcVersion: &altspb.RpcProtocolVersions_Version{Major: 2, Minor: 1}}
	record := []string{"ALTSRP_GCM_AES128_REKEY"}
	request := &altspb.HandshakerReq{ReqOneof: &altspb.HandshakerReq_ClientStart{
		ClientStart: &altspb.StartClientHandshakeReq{HandshakeSecurityProtocol: altspb.HandshakeProtocol_ALTS,
			ApplicationProtocols: []string{"grpc"}, RecordProtocols: record, RpcVersions: rpc}}}
	if !client {
		request.ReqOneof = &altspb.HandshakerReq_ServerStart{ServerStart: &altspb.StartServerHandshakeReq{
			ApplicationProtocols: []string{"grpc"}, RpcVersions: rpc,
			HandshakeParameters: map[int32]*altspb.ServerHandshakeParameters{
				int32(altspb.HandshakeProtocol_ALTS): {RecordProtocols: record}}}}
	}
	for hungUp := false; ; {
		if err := s.SendMsg(request); err != nil && err != io.EOF { // at io.EOF RecvMsg knows the reason
			return nil, err
		}
		r, ok := <-answers
		if !ok {
			return nil, ended
		}
		if len(r.OutFrames) > 0 {
			if _, err := conn.Write(r.OutFrames); err != nil && !hungUp {
				return nil, err
			}
		}
		if r.Status.GetCode() != 0 {
			return nil, errors.New(r.Status.Details)
		}
		if r.Result != nil {
			return r.Result, nil
		}
		if hungUp {
			return nil, errHungUp
		}
		data, err := read()
		if errors.Is(err, errHungUp) {
			hungUp = true // told to the service by an empty request, as grpc-go does
		} else if err != nil {
			<-answers // closed by the reader of the stream, whose end woke this one
			return nil, errors.Join(ended, ctx.Err())
		}
		request = &altspb.HandshakerReq{ReqOneof: &altspb.HandshakerReq_Next{
			Next: &altspb.NextHandshakeMessageReq{InBytes: bytes.Clone(data)}}}
	}
}

// hangUp closes a connection so that what was sent still arrives, although bytes may be left unread.
func hangUp(conn *net.TCPConn) {
	_ = conn.CloseWrite()
	_ = conn.SetReadDeadline(time.Now().Add(testprog.Patience))
	_, _ = io.Copy(io.Discard, conn)
	conn.Close()
}
