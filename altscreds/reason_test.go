package altscreds_test

import (
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/shared-altsd/shared-altsd/altscreds"
	"github.com/shared-altsd/shared-altsd/internal/altspb"
	"github.com/shared-altsd/shared-altsd/internal/reason"
)

// TestReasonNames: there is a constant for each code of the protocol, in the same order, and for no other.
func TestReasonNames(t *testing.T) {
	var got, want []string
	ast.Inspect(must(parser.ParseFile(token.NewFileSet(), "reason.go", nil, 0)), func(n ast.Node) bool {
		if spec, ok := n.(*ast.ValueSpec); ok && spec.Type != nil {
			if literal, ok := spec.Values[0].(*ast.BasicLit); ok {
				got = append(got, must(strconv.Unquote(literal.Value)))
			}
		}
		return true
	})
	for c := reason.UnsupportedVersion; c.Known(); c++ {
		want = append(want, c.String())
	}
	if !slices.Equal(got, want) {
		t.Errorf("%q, not %q", got, want)
	}
}

func TestRefusalError(t *testing.T) {
	const id = "0123456789abcdef"
	refused, byPeer := altscreds.ErrRefused, altscreds.ErrPeerRejected
	for _, test := range []struct {
		refusal *altspb.Refusal
		reason  altscreds.Reason
		is      error // nil: none of the sentinels
	}{
		{&altspb.Refusal{Reason: "unknown_ca", HandshakeId: id}, altscreds.ReasonUnknownCA, refused},
		{&altspb.Refusal{Reason: "statement_expired", ByPeer: true}, altscreds.ReasonStatementExpired, byPeer},
		{&altspb.Refusal{Reason: "bad_request"}, altscreds.ReasonBadRequest, refused},
		{&altspb.Refusal{Reason: "timed_out", HandshakeId: id}, altscreds.ReasonTimedOut, altscreds.ErrTimeout},
		{&altspb.Refusal{Reason: "timed_out", ByPeer: true}, altscreds.ReasonTimedOut, byPeer},
		// A newer daemon's, here or there.
		{&altspb.Refusal{Reason: "unknown_77", ByPeer: true}, "unknown_77", byPeer},
		{&altspb.Refusal{Reason: strings.Repeat("z", 64)}, altscreds.Reason(strings.Repeat("z", 64)), refused},
		// No names.
		{&altspb.Refusal{Reason: strings.Repeat("z", 65)}, "", nil},
		{&altspb.Refusal{Reason: "unknown_ca\n", ByPeer: true}, "", byPeer},
		{&altspb.Refusal{Reason: "Unknown_CA"}, "", nil},
		{&altspb.Refusal{}, "", nil},
		// Ends that are no refusals.
		{&altspb.Refusal{Reason: "peer_closed", HandshakeId: id}, "", io.ErrUnexpectedEOF},
		{&altspb.Refusal{Reason: "cancelled", HandshakeId: id}, "", nil},
	} {
		// The text has no bearing on what the error is.
		const text = "shared-altsd: the peer's daemon refused: no (overloaded); handshake fedcba9876543210"
		e := altscreds.RefusalError(test.refusal, text, nil)
		if e.Reason != test.reason || e.ByPeer != test.refusal.ByPeer || e.HandshakeID != test.refusal.HandshakeId {
			t.Errorf("%v: %+v", test.refusal, e)
		}
		for _, sentinel := range []error{altscreds.ErrRefused, altscreds.ErrPeerRejected, altscreds.ErrNoDaemon,
			altscreds.ErrTimeout, io.ErrUnexpectedEOF} {
			if errors.Is(e, sentinel) != (sentinel == test.is) {
				t.Errorf("%v: %v is not %v", test.refusal, e, test.is)
			}
		}
	}
}
