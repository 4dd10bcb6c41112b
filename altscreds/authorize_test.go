package altscreds_test

import (
	"context"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/alts"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/shared-altsd/shared-altsd/altscreds"
)

// someone is an alts.AuthInfo as stock libraries have it; only the methods used are there.
type someone struct {
	alts.AuthInfo
	account    string
	attributes map[string]string
}

func (s someone) AuthType() string                  { return "alts" }
func (s someone) PeerServiceAccount() string        { return s.account }
func (s someone) PeerAttributes() map[string]string { return s.attributes }

func TestAuthorizer(t *testing.T) {
	const method = "/pkg.Service/Method"
	for _, test := range []struct {
		rule    altscreds.Rule
		allowed []string
		denied  []string
	}{
		{altscreds.Rule{Accounts: []string{"alice@a.example.com"}}, []string{"alice@a.example.com"}, []string{"alice@b.example.com", "bob@a.example.com", "alice@a.example.com.evil.org", "malice@a.example.com", "alice", ""}},
		{altscreds.Rule{Accounts: []string{"*@*.example.com"}}, []string{"alice@a.example.com", "x@y@b.c.example.com"}, []string{"alice@example.com", "alice@a.example.org", "@a.example.com", "a.example.com"}},
		{altscreds.Rule{Accounts: []string{"alice@*"}}, []string{"alice@a"}, []string{"alice@corp@a", "alice"}},
		{altscreds.Rule{Accounts: []string{"Alice@*.Example.COM"}}, []string{"alice@a.example.com"}, []string{"Alice@a.example.com", "bob@a.example.com"}},
		{altscreds.Rule{Machines: []string{"A"}, Groups: []string{"Domain Users"}}, []string{"x@a"}, []string{"x@b"}},
		{altscreds.Rule{Machines: []string{"a"}, Groups: []string{"domain", "users", "domain%20users", "wheel", "x"}}, nil, []string{"x@a"}},
		{altscreds.Rule{Machines: []string{"a"}, Groups: []string{"x,wheel"}}, []string{"x@a"}, nil},
		{altscreds.Rule{Machines: []string{"a.example.com", "*.hpc.example.com"}}, []string{"x@a.example.com", "y@n1.hpc.example.com"}, []string{"x@b.example.com", "y@hpc.example.com", "a.example.com"}},
		{altscreds.Rule{Accounts: []string{"alice@*"}, Machines: []string{"a"}}, []string{"alice@a"}, []string{"alice@b", "bob@a"}},
		{altscreds.Rule{Machines: []string{"a"}, Groups: []string{"ops", "dev"}}, []string{"x@a"}, []string{"x@b"}},
		{altscreds.Rule{Machines: []string{"a"}, Groups: []string{"o"}}, nil, []string{"x@a"}},
		{altscreds.Rule{AnyAccount: true}, []string{"x@a"}, []string{"", "x", "@"}},
		{altscreds.Rule{AnyAccount: true, Methods: []string{"/pkg.Service/*"}}, []string{"x@a"}, nil},
		{altscreds.Rule{AnyAccount: true, Methods: []string{"/pkg.Other/*", "/pkg.Service/Meth"}}, nil, []string{"x@a"}},
		{altscreds.Rule{Unauthenticated: []string{"tls"}}, nil, []string{"x@a", "tls", ""}},
	} {
		a := must(altscreds.NewAuthorizer(test.rule))
		for i, account := range append(test.allowed, test.denied...) {
			ctx := peer.NewContext(context.Background(), &peer.Peer{AuthInfo: someone{account: account,
				attributes: map[string]string{"groups": "dev,domain%20users,staff,x%2Cwheel"}}})
			err := a.Authorize(ctx, method)
			want := codes.OK
			if i >= len(test.allowed) {
				want = codes.PermissionDenied
			}
			if status.Code(err) != want {
				t.Errorf("%+v, %q: %v", test.rule, account, err)
			}
			if err != nil && (!strings.Contains(err.Error(), account) || !strings.Contains(err.Error(), method)) {
				t.Errorf("%v names not both", err)
			}
		}
	}
	none := must(altscreds.NewAuthorizer())
	if err := none.Authorize(peer.NewContext(context.Background(), &peer.Peer{AuthInfo: someone{account: "x@a"}}),
		method); status.Code(err) != codes.PermissionDenied {
		t.Errorf("without rules: %v", err)
	}
	all := must(altscreds.NewAuthorizer(altscreds.Rule{AnyAccount: true}, altscreds.Rule{Unauthenticated: []string{"tls",
		"plaintext"}}))
	for _, ctx := range []context.Context{context.Background(), peer.NewContext(context.Background(), &peer.Peer{})} {
		if err := all.Authorize(ctx, method); status.Code(err) != codes.PermissionDenied {
			t.Errorf("no AuthInfo: %v", err)
		}
	}
}

func TestRuleMistakes(t *testing.T) {
	for _, r := range []altscreds.Rule{
		{}, {Methods: []string{"/a/b"}}, {AnyAccount: true, Methods: []string{"a/b"}}, {Accounts: []string{"alice"}},
		{Accounts: []string{"@a"}},
		{Accounts: []string{"a@"}}, {Machines: []string{""}}, {Groups: []string{"ops"}},
		{AnyAccount: true, Machines: []string{"a"}}, {Unauthenticated: []string{"tls"}, AnyAccount: true},
		{Unauthenticated: []string{"ssh"}},
		{Unauthenticated: []string{"tls"}, Accounts: []string{"a@b"}},
	} {
		if _, err := altscreds.NewAuthorizer(altscreds.Rule{AnyAccount: true}, r); err == nil ||
			!strings.Contains(err.Error(), "rule 2") {
			t.Errorf("%+v: %v", r, err)
		}
	}
}

func TestMatch(t *testing.T) {
	for _, test := range []struct {
		pattern, s string
		want       bool
	}{
		{"", "", true}, {"", "a", false}, {"*", "", true}, {"*", "abc", true}, {"a*a", "a", false}, {"a*a", "aa", true},
		{"a*b*c", "abc", true},
		{"a*b*c", "axxbxxc", true}, {"a*b*c", "axxc", false}, {"a*bc*bc", "abcbc", true}, {"a*bc*bc", "abc", false}, {"**", "x", true}, {"a.b", "axb", false},
	} {
		if got := altscreds.Match(test.pattern, test.s); got != test.want {
			t.Errorf("%q, %q: %v", test.pattern, test.s, got)
		}
	}
}

func TestPeerUID(t *testing.T) {
	for uid, ok := range map[string]bool{"0": true, "4294967295": true, "4294967296": false, "-1": false, "": false,
		"x": false} {
		p, _ := altscreds.PeerFromAuthInfo(someone{account: "a@b", attributes: map[string]string{"uid": uid}})
		if _, got := p.UID(); got != ok {
			t.Errorf("%q: %v", uid, got)
		}
	}
}

// A list that is not of the daemon's form has no groups, rather than those that can be made out.
func TestPeerGroups(t *testing.T) {
	for list, want := range map[string][]string{"": nil, "a": {"a"}, "a,domain%20users": {"a", "domain users"},
		"b,a": nil, "a,": nil, "a, b": nil, "a,b%2": nil, "a,b%61": nil, "Adm": nil} {
		p, _ := altscreds.PeerFromAuthInfo(someone{account: "a@b", attributes: map[string]string{"groups": list}})
		if got := p.Groups(); !slices.Equal(got, want) {
			t.Errorf("%q: %q", list, got)
		}
	}
}
