package conformance

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shared-altsd/shared-altsd/internal/altspb"
	"github.com/shared-altsd/shared-altsd/internal/testprog"
)

// The tests of the second implementation itself: primitives by published vectors, and the suite against itself.
func TestPythonUnitTests(t *testing.T) {
	needPython(t)
	t.Parallel()
	cmd := peer()
	cmd.Args = []string{python, "-B", "-m", "unittest", "discover", "-s", "tests"}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Logf("%s", lastLines(out, 3))
}

// The second implementation reproduces each vector, and gives each negative one the same answer.
func TestVectors(t *testing.T) {
	needPython(t)
	t.Parallel()
	out, err := peer("vectors", "../../noiseproto/testdata/vectors.json").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Logf("%s", lastLines(out, 1))
}

func lastLines(out []byte, n int) []byte {
	lines := bytes.Split(bytes.TrimSpace(out), []byte("\n"))
	return bytes.Join(lines[max(0, len(lines)-n):], []byte("\n"))
}

// An outcome is what the second implementation prints of a handshake.
type outcome struct {
	OK      bool   `json:"ok"`
	Peer    string `json:"peer_identity"`
	KeyHash string `json:"key_data_sha256"`
	Detail  string `json:"detail"`
}

// Honest handshakes with each signature scheme at each side, in both roles: both ends have the same key and know each
// other.
func TestHonestHandshakes(t *testing.T) {
	w := theWorld(t)
	t.Parallel()
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	for _, kind := range kinds {
		for _, daemonDials := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/dials=%v", kind, daemonDials), func(t *testing.T) {
				d := w.daemon(t, kind)
				got, result := honest(t, w, d, kind, daemonDials)
				sum := sha256.Sum256(result.KeyData)
				if !got.OK || got.Peer != me.Username+"@daemon.example.test" || got.KeyHash != hex.EncodeToString(sum[:]) {
					t.Errorf("the second implementation says %+v", got)
				}
				if id := result.PeerIdentity; id.GetServiceAccount() != "alice@peer.example.test" ||
					id.Attributes["uid"] != "1000" || len(result.KeyData) != 64 {
					t.Errorf("the daemon says of its peer: %v, with %d bytes of key", id, len(result.KeyData))
				}
			})
		}
	}
}

// honest runs one handshake and gives what the second implementation and the daemon say of it.
func honest(t *testing.T, w *world, d *daemon, kind string, daemonDials bool) (outcome, *altspb.HandshakerResult) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	command, address := "dial", l.Addr().String()
	if daemonDials {
		command, address = "listen", "127.0.0.1:0"
	}
	cmd := peer(command, address, "--pki", w.pki, "--entry", "peer-"+kind, "--account", "alice", "--attribute", "uid=1000")
	out, end := started(t, cmd)
	defer func() {
		if err := end(); err != nil {
			t.Error(err)
		}
	}()
	var conn net.Conn
	if daemonDials {
		var listening struct{ Listening string }
		readJSON(t, out, &listening)
		if conn, err = net.Dial("tcp", listening.Listening); err != nil {
			t.Fatal(err)
		}
	} else if conn, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	r, err := d.relay(conn, daemonDials)
	if err != nil {
		t.Errorf("the daemon refuses: %v", err)
		r = new(altspb.HandshakerResult)
	}
	var got outcome
	readJSON(t, out, &got)
	return got, r
}

func readJSON(t *testing.T, r *bufio.Reader, v any) {
	t.Helper()
	line, err := r.ReadBytes('\n')
	if err != nil {
		t.Errorf("reading the second implementation's outcome: %v", err)
		return
	}
	if err := json.Unmarshal(line, v); err != nil {
		t.Errorf("%v: %s", err, line)
	}
}

// suite runs the hostile peer and reports every case that did not go as the document has it.
func suite(t *testing.T, w *world, ready func(listening string), args ...string) {
	t.Helper()
	report := filepath.Join(t.TempDir(), "report.json")
	cmd := peer(append([]string{"conformance", "--pki", w.pki, "--quiet", "--survival", "25", "--timeout", "60",
		"--json", report}, args...)...)
	out, end := started(t, cmd)
	if ready != nil {
		var listening struct{ Listening string }
		readJSON(t, out, &listening)
		ready(listening.Listening)
	}
	rest, readErr := io.ReadAll(out)
	if err := errors.Join(end(), readErr); err != nil {
		t.Errorf("%v\n%s", err, rest)
	}
	t.Logf("%s", lastLines(rest, 1))
	var r struct {
		Cases    int
		Failures []json.RawMessage
	}
	b, err := os.ReadFile(report)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &r); err != nil {
		t.Fatal(err)
	}
	if r.Cases < 150 || len(r.Failures) > 0 {
		t.Errorf("%d cases, %d failures", r.Cases, len(r.Failures))
	}
}

// Every malformed, reordered, replayed, truncated, oversized, cross-signed and wrongly bound message, to a daemon
// behind a server application: the status of the code that the document demands comes, or nothing where it demands that.
func TestHostileInitiator(t *testing.T) {
	w := theWorld(t)
	t.Parallel()
	d := w.daemon(t, "p256")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var applications sync.WaitGroup
	applications.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			applications.Go(func() {
				_, _ = d.relay(conn, false) // the peer sees how it went, and tells
				hangUp(conn.(*net.TCPConn))
			})
		}
	})
	suite(t, w, nil, "--connect", l.Addr().String())
	l.Close()
	applications.Wait()
	d.serves(t, w)
}

// The same to a daemon that dials for a client application, which is told the reason.
func TestHostileResponder(t *testing.T) {
	w := theWorld(t)
	t.Parallel()
	d := w.daemon(t, "p256")
	verdicts, err := os.Create(filepath.Join(t.TempDir(), "verdicts"))
	if err != nil {
		t.Fatal(err)
	}
	defer verdicts.Close()
	var dialler sync.WaitGroup
	suite(t, w, func(address string) {
		dialler.Go(func() {
			for {
				conn, err := net.DialTimeout("tcp", address, testprog.Patience)
				if err != nil {
					return // the suite is over
				}
				_, err = d.relay(conn, true)
				verdict := "accepted"
				if err != nil {
					verdict = strings.ReplaceAll(err.Error(), "\n", " ")
				}
				fmt.Fprintln(verdicts, verdict)
				hangUp(conn.(*net.TCPConn))
			}
		})
	}, "--listen", "127.0.0.1:0", "--strict", "--verdicts", verdicts.Name())
	dialler.Wait()
	d.serves(t, w)
}

// serves checks that the daemon is well after all that.
func (d *daemon) serves(t *testing.T, w *world) {
	t.Helper()
	select {
	case <-d.run.Ended:
		t.Fatal("the daemon has ended")
	default:
	}
	began := time.Now()
	if got, _ := honest(t, w, d, "ed25519", false); !got.OK {
		t.Errorf("at the end the daemon serves no longer: %+v", got)
	}
	t.Logf("an honest handshake afterwards, a new process included: %v", time.Since(began).Round(time.Millisecond))
}
