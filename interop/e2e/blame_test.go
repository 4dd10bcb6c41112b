package e2e

import (
	"encoding/json"
	"errors"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/shared-altsd/shared-altsd/internal/reason"
)

// A blame is a fault of one machine, and who has to be named by whom.
type blame struct {
	name           string
	client, server *daemon
	caller         account // of the pool if there is none
	answerer       account // the same
	busy           bool    // the answerer has as many streams open as it may
	code           reason.Code
	byPeer         bool   // it is the server's daemon that refuses
	error          string // in the client's own error, beside who refused
	says           string // in the log of the daemon that refuses
	diagnosis      string // of ping
}

func (w *world) blames() []blame {
	const there, here = "the other machine", "this machine"
	return []blame{
		{name: "client's own certificate expired", client: w.expired, server: w.beta, code: reason.OwnCertificate,
			error: "this machine's certificate has expired at", diagnosis: "The certificate of " + here + " has expired or"},
		{name: "server's own certificate expired", client: w.alpha, server: w.expired, code: reason.OwnCertificate, byPeer: true,
			error: "its own certificate has expired", says: "this machine's certificate has expired at",
			diagnosis: "The certificate of " + there + " has expired or"},
		{name: "client's own certificate not yet valid", client: w.early, server: w.beta, code: reason.OwnCertificate,
			error: "this machine's certificate is valid only from", diagnosis: "The certificate of " + here + " has expired or"},
		{name: "server's own certificate not yet valid", client: w.alpha, server: w.early, code: reason.OwnCertificate, byPeer: true,
			error: "its own certificate has expired or is not yet valid", says: "this machine's certificate is valid only from",
			diagnosis: "The certificate of " + there + " has expired or"},
		{name: "client's certificate revoked", client: w.revoked, server: w.beta, code: reason.CertificateRevoked, byPeer: true,
			error: "the certificate of this machine, or one that issued it, is revoked", says: "the peer's certificates: ",
			diagnosis: "revoked the certificate of " + here},
		{name: "server's certificate revoked", client: w.alpha, server: w.revoked, code: reason.CertificateRevoked,
			error: "the peer's certificates: ", diagnosis: "revoked the certificate of " + there},
		{name: "client's CA unknown", client: w.stranger, server: w.beta, code: reason.UnknownCA, byPeer: true,
			error: "vouches for the certificate of this machine", says: "the peer's certificates: ",
			diagnosis: "On " + there + " no --ca vouches for the certificate of " + here},
		{name: "server's CA unknown", client: w.alpha, server: w.stranger, code: reason.UnknownCA,
			error: "the peer's certificates: ", diagnosis: "On " + here + " no --ca vouches for the certificate of " + there},
		{name: "client's user database fails", client: w.broken, server: w.beta, code: reason.Internal,
			error: "the user database failed", diagnosis: "The daemon of " + here + " has a fault of its own"},
		{name: "server's user database fails", client: w.alpha, server: w.broken, code: reason.Internal, byPeer: true,
			error: "it has a fault of its own", says: "the user database failed",
			diagnosis: "The daemon of " + there + " has a fault of its own"},
		{name: "client's account without a name", client: w.alpha, server: w.beta, caller: nameless, code: reason.LocalAccount,
			error: "has no name in the user database", diagnosis: "The account on " + here + " may not take part"},
		{name: "server's account without a name", client: w.alpha, server: w.beta, answerer: nameless, code: reason.LocalAccount,
			byPeer: true, error: "its own application may not take part", says: "has no name in the user database",
			diagnosis: "The account on " + there + " may not take part"},
		{name: "client's account not accepted", client: w.domains, server: w.beta, caller: domain, code: reason.AccountUnacceptable,
			byPeer: true, error: "it does not accept the name of this account", says: "the peer's account name",
			diagnosis: "The other machine does not accept the name of the account on " + here},
		{name: "server's account not accepted", client: w.alpha, server: w.domains, answerer: domain, code: reason.AccountUnacceptable,
			error: "the peer's account name is not acceptable", diagnosis: "This machine does not accept the name of the account on " + there},
		{name: "server's account has too much open", client: w.alpha, server: w.tight, busy: true, code: reason.Overloaded,
			byPeer: true, error: "it has too many handshakes under way for that account", says: "has 1 streams open",
			diagnosis: "The daemon of " + there + " is busy or stopping"},
	}
}

// A pinged is what ping --json prints of a failure.
type pinged struct {
	Error, Reason, Diagnosis string
	ByPeer                   bool `json:"refused_by_peer"`
}

// ping runs ping as an account.
func (w *world) ping(t testing.TB, a account, d *daemon, addr string) (r pinged) {
	t.Helper()
	cmd := exec.Command(w.program, "ping", "--json", "--socket", d.socket, addr)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: a.uid, Gid: a.uid}}
	out, err := cmd.Output()
	if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) {
		t.Fatalf("ping did not fail: %v\n%s", err, out)
	}
	if err := json.Unmarshal(out, &r); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return r
}

// TestBlame: whichever machine is at fault, and whichever library the two applications use, the client's error, ping's
// diagnosis and both logs name that machine, under one handshake ID.
func TestBlame(t *testing.T) {
	w := theWorld(t)
	for _, b := range w.blames() {
		for _, by := range []string{"grpc-go", "altscreds", "ping"} {
			t.Run(b.name+"/"+by, func(t *testing.T) {
				of := func(a account, d *daemon) *process {
					p := w.pool(t, d, b.code.String())
					if a.name != "" {
						return w.as(t, a.like(p.account))
					}
					return p
				}
				caller, answerer := of(b.caller, b.client), of(b.answerer, b.server)
				listening := answerer.do(t, order{Op: "listen", Socket: b.server.socket, Altscreds: by != "grpc-go"})
				if key := "busy " + answerer.name; b.busy && w.used[key] == 0 {
					w.used[key]++
					answerer.do(t, order{Op: "raw", Socket: b.server.socket, Key: key, Timeout: time.Hour,
						Requests: [][]byte{serverStart(nil, nil)}}) // its client says nothing
				}
				mark, clientMark := b.server.mark(), b.client.mark()
				var text string
				if by == "ping" {
					got := w.ping(t, caller.account, b.client, listening.Addr)
					if got.Reason != b.code.String() || got.ByPeer != b.byPeer || !strings.Contains(got.Error, b.error) ||
						!strings.Contains(got.Diagnosis, b.diagnosis) {
						t.Errorf("ping says %+v, want the diagnosis %q", got, b.diagnosis)
					}
					text = got.Error
				} else {
					got := caller.do(t, order{Op: "call", Socket: b.client.socket, Addr: listening.Addr, Altscreds: by == "altscreds"})
					who, code := "this machine's daemon refused: ", reasons[b.code].own
					if b.byPeer {
						who, code = "the peer's daemon refused: ", reasons[b.code].peers
					}
					wantError(t, got, code, who, b.error, "("+b.code.String()+")")
					text = got.Text
				}
				b.wantLines(t, mark, clientMark, caller.uid, answerer.uid, text, by == "altscreds")
			})
		}
	}
}

// wantLines looks for the lines of both daemons. That of a side which refuses holds why; the other's that its peer did,
// or, where a client that relays tells the server nothing, that it hung up.
func (b *blame) wantLines(t *testing.T, mark, clientMark int, caller, answerer uint32, text string, handed bool) {
	t.Helper()
	l := b.client.find(t, clientMark, "the client's daemon", func(l *record) bool {
		return l.Reason == b.code.String() && l.ByPeer == b.byPeer && l.Role == "initiator" && l.UID == caller
	})
	switch {
	case l == nil:
		return
	case l.ID == "" && b.byPeer:
		t.Error("the client's line has no handshake ID")
		return
	case l.ID == "": // refused before anything was said
		return
	case !strings.Contains(text, "handshake "+l.ID):
		t.Errorf("the error does not name the handshake %s: %s", l.ID, text)
	}
	b.server.find(t, mark, "the server's daemon", func(s *record) bool {
		switch {
		case !b.byPeer && handed:
			return s.ID == l.ID && s.Reason == b.code.String() && s.ByPeer && s.UID == answerer
		case !b.byPeer:
			return s.ID == l.ID && s.Reason == "peer_closed" && s.UID == answerer
		}
		return s.ID == l.ID && s.Reason == b.code.String() && !s.ByPeer && s.UID == answerer && strings.Contains(s.Detail, b.says)
	})
}
