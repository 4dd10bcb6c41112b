package service

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"github.com/shared-altsd/shared-altsd/internal/altspb"
)

// as runs a caller with another uid, and gives what it was told.
func as(t *testing.T, uid uint32, socket string) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "altsd")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	bin := filepath.Join(dir, "caller") // go test's own directory is closed to other uids
	if err := os.WriteFile(bin, self, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(bin)
	cmd.Dir = "/"
	cmd.Env = []string{helperSocket + "=" + socket}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("caller: %v: %s", err, out)
	}
	return string(out)
}

// The identity is the effective uid at connect; the overflow uid and one without a name are refused, and each is told.
func TestRule21And18Callers(t *testing.T) {
	if !isRoot() {
		t.Skip("only root can start callers with other uids")
	}
	nameless := uint32(54321)
	for {
		if _, err := user.LookupId(fmt.Sprint(nameless)); err != nil {
			break
		}
		nameless++
	}
	d := startDaemon(t, "beta.test", Config{})
	for uid, want := range map[uint32]string{
		0:        "<nil>",
		1:        "<nil>",
		65534:    "overflow uid (nobody)",
		nameless: "has no name in the user database",
	} {
		if got := as(t, uid, d.socket); !strings.Contains(got, want) {
			t.Errorf("uid %d is told %q, want %q", uid, got, want)
		}
	}
}

// A listener that is limited to uids refuses others, with the reason.
func TestRule22(t *testing.T) {
	d := startDaemon(t, "beta.test", Config{})
	me := uint32(os.Geteuid())
	mine := &daemon{Server: d.Server, socket: d.listen(t, UIDRanges{{me, me}})}
	others := &daemon{Server: d.Server, socket: d.listen(t, UIDRanges{{me + 1, me + 10}, {me + 100, me + 100}})}
	open(t, mine, "").must(t, clientStart(nil))
	_, err := open(t, others, "").do(clientStart(nil))
	wantErr(t, err, codes.PermissionDenied, "may not use this socket")
	resp, err := open(t, others, "grpc-c/29").do(clientStart(nil))
	if err != nil || !strings.Contains(resp.Status.GetDetails(), "may not use this socket") {
		t.Errorf("C-core: %v, %v", resp, err)
	}
	if isRoot() {
		if got := as(t, me+1, others.socket); !strings.Contains(got, "<nil>") {
			t.Errorf("uid %d: %s", me+1, got)
		}
	}
}

func TestParseUIDRanges(t *testing.T) {
	r, err := ParseUIDRanges("0+100000-165535")
	if err != nil || len(r) != 2 || r[1] != (UIDRange{100000, 165535}) {
		t.Errorf("%v, %v", r, err)
	}
	if !r.contains(0) || !r.contains(165535) || r.contains(165536) || r.contains(1) || !UIDRanges(nil).contains(7) {
		t.Error("contains")
	}
	for _, s := range []string{"", "a", "5-4", "1-", "-1", "4294967296", "1,2"} {
		if _, err := ParseUIDRanges(s); err == nil {
			t.Errorf("%q: no error", s)
		}
	}
}

// The age to which a connection is let live, with grpc's jitter and the grace, is at most 30 minutes.
func TestRule21Age(t *testing.T) {
	if age := connectionAge + connectionAge/10 + connectionGrace; age > 30*time.Minute {
		t.Errorf("a connection may live %v", age)
	}
	if connectionGrace < 2*handshakeTimeout {
		t.Error("a handshake could be cut by the age of its connection")
	}
}

func TestPeerCreds(t *testing.T) {
	var p peerCreds
	if _, _, err := p.ServerHandshake(&net.TCPConn{}); err == nil {
		t.Error("a TCP connection has an identity")
	}
	if _, _, err := p.ClientHandshake(context.Background(), "", nil); err == nil {
		t.Error("a client's handshake")
	}
	if p.Clone() != p || p.OverrideServerName("x") != nil || p.Info().SecurityProtocol == "" ||
		(callerInfo{}).AuthType() == "" {
		t.Error("the interface's other methods")
	}
	s := &Server{conns: map[*conn]struct{}{}}
	if _, err := (&conn{UnixConn: new(net.UnixConn), srv: s}).identify(); err == nil {
		t.Error("no error from a closed connection")
	}
	if err := s.doHandshake(nil, noStream{}); err == nil {
		t.Error("a stream without peer credentials is served")
	}
}

type noStream struct{ grpc.ServerStream }

func (noStream) Context() context.Context { return context.Background() }

// A connection that sends no HTTP/2 preface does not hold up the stop.
func TestShutdownWithSilentConnection(t *testing.T) {
	d := startDaemon(t, "beta.test", Config{})
	c, err := net.Dial("unix", d.socket)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for d.Snapshot().Connections == 0 {
		time.Sleep(time.Millisecond)
	}
	d.Shutdown(canceled())
	if n := d.Snapshot().Connections; n != 0 {
		t.Errorf("%d connections are left", n)
	}
}

// A thousand idle applications, each with one handshake behind it, cost less than 40 MB.
func TestIdleConnectionsAreSmall(t *testing.T) {
	const n, limit = 1000, 40 << 20
	d := startDaemon(t, "beta.test", Config{})
	var hdr bytes.Buffer
	enc := hpack.NewEncoder(&hdr)
	for _, f := range [][2]string{{":method", "POST"}, {":scheme", "http"}, {":path", altspb.FullMethod},
		{":authority", "localhost"},
		{"content-type", "application/grpc"}, {"te", "trailers"}, {"user-agent", "grpc-c/29"}} {
		enc.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]})
	}
	memory := func() uint64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapInuse + m.StackInuse
	}
	before := memory()
	for i := range n {
		c, err := net.Dial("unix", d.socket)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		io.WriteString(c, http2.ClientPreface)
		fr := http2.NewFramer(c, c)
		fr.WriteSettings()
		fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: hdr.Bytes(), EndStream: true,
			EndHeaders: true})
		for done := false; !done; { // until the stream's end
			f, err := fr.ReadFrame()
			if err != nil {
				t.Fatalf("connection %d: %v", i, err)
			}
			h, ok := f.(*http2.HeadersFrame)
			done = ok && h.StreamEnded()
		}
	}
	if got := d.Snapshot().Connections; got != n {
		t.Fatalf("%d connections", got)
	}
	cost := memory() - before
	t.Logf("%d idle connections: %.1f MB, both ends here", n, float64(cost)/(1<<20))
	if cost > limit {
		t.Errorf("%d idle connections cost %d bytes, more than %d", n, cost, limit)
	}
}
