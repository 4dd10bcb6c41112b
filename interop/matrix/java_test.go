package matrix

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/user"
	"slices"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// grpcJava is io.grpc.alts.internal, AltsHandshakerClient and AltsTsiHandshaker: 128 KiB frames; a server starts with
// the first bytes of its peer; what is not consumed stays in Netty's buffer; a result is followed by a half-close.
var grpcJava = library{userAgent: "grpc-java-netty/1.78.0", maxFrame: 128 << 10, keeps: true,
	atResult: func(d *driver) { d.stream.CloseSend() }}

// me is the account that the tests themselves run as.
func me(t *testing.T) string {
	t.Helper()
	u, err := user.LookupId(fmt.Sprint(os.Geteuid()))
	if err != nil {
		t.Fatal(err)
	}
	return u.Username
}

func TestJava(t *testing.T) {
	w := theWorld(t)
	client, server := me(t)+"@alpha.test", me(t)+"@beta.test"
	extra := []byte("the first record")
	for _, segment := range []int{1, 7, 1000, 1 << 20} {
		t.Run(fmt.Sprint("segments of ", segment), func(t *testing.T) {
			c, s := newDriver(t, w.alpha, grpcJava, true), newDriver(t, w.beta, grpcJava, false)
			c.targets, c.name = []string{server}, "service.example.com"
			shake(t, c, s, segment, extra)
			c.checkResult(server, client, 128<<10, extra)
			s.checkResult(client, server, 128<<10, nil)
			if c.result != nil && s.result != nil && !bytes.Equal(c.result.KeyData, s.result.KeyData) {
				t.Error("the two sides have different keys")
			}
			for _, d := range []*driver{c, s} {
				if _, err := d.stream.Recv(); err != io.EOF {
					t.Errorf("after the result and a half-close: %v", err)
				}
			}
		})
	}
	t.Run("by host name", func(t *testing.T) {
		c, s := newDriver(t, w.alpha.variant(t), grpcJava, true), newDriver(t, w.beta, grpcJava, false)
		c.name = "beta.test"
		shake(t, c, s, 1<<20, nil)
		c.checkResult(server, client, 128<<10, nil)
	})
	t.Run("another account asked for", func(t *testing.T) {
		c, s := newDriver(t, w.alpha, grpcJava, true), newDriver(t, w.beta, grpcJava, false)
		c.targets = []string{"nobody-else@beta.test"}
		shake(t, c, s, 1<<20, nil)
		c.checkError("this machine's daemon refused", "(target_mismatch)")
		checkJavaStatus(t, c)
	})
	t.Run("a machine that is not trusted", func(t *testing.T) {
		c, s := newDriver(t, w.gamma, grpcJava, true), newDriver(t, w.beta, grpcJava, false)
		c.targets = []string{server}
		shake(t, c, s, 1<<20, nil)
		c.checkError("the peer's daemon refused", "(unknown_ca)")
		checkJavaStatus(t, c)
	})
}

// checkJavaStatus wants an RPC status that Java shows as it is.
func checkJavaStatus(t *testing.T, d *driver) {
	t.Helper()
	rewritten := []codes.Code{codes.InvalidArgument, codes.NotFound, codes.FailedPrecondition, codes.Aborted,
		codes.OutOfRange}
	if c := status.Code(d.err); c == codes.Unknown || slices.Contains(rewritten, c) {
		t.Errorf("status %v: %v", c, d.err)
	}
}
