package matrix

import (
	"fmt"
	"testing"
)

// envoyLibrary is source/extensions/transport_sockets/alts: frames of 1 MiB, C++'s user agent, no target name and no target
// identities; an unconsumed byte is lost unless it comes with the result; at the result the stream object is destroyed,
// which half-closes it and cancels the call.
var envoyLibrary = library{userAgent: "grpc-c++/1.66.1 grpc-c/43.0.0 (linux; chttp2)", maxFrame: 1 << 20,
	atResult: func(d *driver) { d.stream.CloseSend(); d.cancel() }}

func TestEnvoy(t *testing.T) {
	w := theWorld(t)
	client, server := me(t)+"@alpha.test", me(t)+"@beta.test"
	// Envoy compares the peer's account itself (peer_service_accounts), and gives its daemon nothing to compare.
	alpha := w.alpha.variant(t, "--secure-naming", "off")
	extra := []byte("the first record")
	early := envoyLibrary
	early.startsEmpty = true
	for name, lib := range map[string]library{"start with bytes": envoyLibrary, "start at accept": early} {
		for _, segment := range []int{1, 7, 1000, 1 << 20} {
			t.Run(fmt.Sprint(name, ", segments of ", segment), func(t *testing.T) {
				c, s := newDriver(t, alpha, envoyLibrary, true), newDriver(t, w.beta, lib, false)
				shake(t, c, s, segment, extra)
				c.checkResult(server, client, 1<<20, extra)
				s.checkResult(client, server, 1<<20, nil)
			})
		}
	}
	t.Run("Java upstream", func(t *testing.T) {
		c, s := newDriver(t, alpha, envoyLibrary, true), newDriver(t, w.beta, grpcJava, false)
		shake(t, c, s, 1000, extra)
		c.checkResult(server, client, 128<<10, extra)
		s.checkResult(client, server, 1<<20, nil)
	})
	t.Run("Java downstream", func(t *testing.T) {
		c, s := newDriver(t, w.alpha, grpcJava, true), newDriver(t, w.beta, early, false)
		c.targets = []string{server}
		shake(t, c, s, 1000, extra)
		c.checkResult(server, client, 1<<20, extra)
		s.checkResult(client, server, 128<<10, nil)
	})
	t.Run("nothing to compare", func(t *testing.T) {
		c, s := newDriver(t, w.alpha.variant(t), envoyLibrary, true), newDriver(t, w.beta, envoyLibrary, false)
		shake(t, c, s, 1<<20, nil)
		c.checkError("this machine's daemon refused")
		checkInBand(t, c)
	})
	t.Run("a machine that is not trusted", func(t *testing.T) {
		c, s := newDriver(t, w.gamma.variant(t, "--secure-naming", "off"), envoyLibrary, true), newDriver(t, w.beta, envoyLibrary, false)
		shake(t, c, s, 1<<20, nil)
		c.checkError("the peer's daemon refused", "(unknown_ca)")
		checkInBand(t, c)
	})
}

// checkInBand wants the error in a response, where Envoy looks for its text.
func checkInBand(t *testing.T, d *driver) {
	t.Helper()
	if _, ok := d.err.(*inBand); !ok {
		t.Errorf("not in the response's status: %v", d.err)
	}
}
