package localgrpc

import (
	"encoding/xml"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/shared-altsd/shared-altsd/internal/testnet"
)

// notOurs are the cases of h2spec that do not concern a gRPC server, by a part of their description, and why.
var notOurs = map[string]string{
	"Sends a WINDOW_UPDATE frame on half-closed (remote) stream": "wants a page at /; a GET is answered by 405 and no body",
	"Sends a PRIORITY frame on half-closed (remote) stream":      "the same",
	"Sends HEADERS frames that causes their advertised concurrent stream limit to be exceeded": "the streams are over at " +
		"once, by 405: TestStreamsAtOnce",
	"Sends multiple WINDOW_UPDATE frames increasing the flow control window to above 2^31-1 on a stream": "the stream is " +
		"over, by 405: TestWindowOverflow",
	`Sends a HEADERS frame with the "content-length" header field which does not equal the DATA frame payload length`: "" +
		"gRPC's messages have lengths of their own; content-length is not looked at",
	`Sends a HEADERS frame with the "content-length" header field which does not equal the sum of the multiple DATA frames ` +
		`payload length`: "the same",
}

// The server against the cases of h2spec, through a relay from TCP.
func TestH2Spec(t *testing.T) {
	s := startServer(t, nil)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go testnet.ServeEach(l, func(c net.Conn) { relay(c, s.path) })
	report := filepath.Join(t.TempDir(), "report.xml")
	cmd := exec.Command("go", "run", ".", "-port", strconv.Itoa(l.Addr().(*net.TCPAddr).Port), "-report", report)
	cmd.Dir = "h2spec"
	cmd.Env = append(os.Environ(), "GOFLAGS=-mod=readonly", "GOWORK=off")
	out, err := cmd.CombinedOutput()
	b, readErr := os.ReadFile(report)
	if readErr != nil {
		t.Fatalf("h2spec: %v\n%s", err, out)
	}
	var outcome struct {
		Suites []struct {
			Package string `xml:"package,attr"`
			Cases   []struct {
				Name    string  `xml:"classname,attr"`
				Failure *string `xml:"failure"`
				Error   *string `xml:"error"`
			} `xml:"testcase"`
		} `xml:"testsuite"`
	}
	if err := xml.Unmarshal(b, &outcome); err != nil {
		t.Fatalf("%v\n%s", err, b)
	}
	passed := 0
	for _, suite := range outcome.Suites {
		for _, c := range suite.Cases {
			_, excused := notOurs[c.Name]
			switch failed := c.Failure != nil || c.Error != nil; {
			case !failed:
				passed++
			case !excused:
				t.Errorf("%s: %q failed: %s", suite.Package, c.Name, strings.TrimSpace(deref(c.Failure)+deref(c.Error)))
			}
		}
	}
	t.Logf("%d cases passed", passed)
	if passed < 100 {
		t.Errorf("only %d cases passed:\n%s", passed, out)
	}
}

func deref(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// relay joins a TCP connection to the socket.
func relay(c net.Conn, path string) {
	u, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return
	}
	go func() {
		io.Copy(u, c)
		u.CloseWrite()
	}()
	io.Copy(c, u)
	u.Close()
}
