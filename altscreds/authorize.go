package altscreds

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	"github.com/shared-altsd/shared-altsd/internal/ascii"
	"github.com/shared-altsd/shared-altsd/internal/names"
)

// A Rule lets some peers call some methods. A list that is not empty is a condition, met by any of its entries; all
// conditions must be met. At least one of Accounts, Machines, AnyAccount and Unauthenticated must be there. In the
// patterns "*" stands for any text, also none and also with dots. In names, capitals count as lower case.
type Rule struct {
	// Methods are full method names, as "/pkg.Service/Method", or patterns of them; none: every method.
	Methods []string
	// Accounts are patterns of accounts, as "alice@login.example.com" or "backup@*.example.com". The parts before and
	// after the last "@" are matched apart.
	Accounts []string
	// Machines are patterns of machine names; any account on such a machine meets it.
	Machines []string
	// AnyAccount lets in every peer that ALTS has authenticated, where no other condition is wanted.
	AnyAccount bool
	// Groups are names of groups, as the peer's machine states them: it needs Accounts or Machines that say which machines
	// are believed.
	Groups []string
	// Unauthenticated lets in peers of these kinds, KindTLS or KindPlaintext (see Mixed). It goes with Methods only.
	Unauthenticated []string
}

func (r *Rule) check() error {
	principals := len(r.Accounts) + len(r.Machines) + len(r.Groups)
	switch {
	case len(r.Unauthenticated) > 0 && (principals > 0 || r.AnyAccount):
		return errors.New("Unauthenticated goes with Methods only: such a peer has no account")
	case len(r.Groups) > 0 && len(r.Accounts)+len(r.Machines) == 0:
		return errors.New("Groups needs Accounts or Machines: any machine can claim any group")
	case r.AnyAccount && principals > 0:
		return errors.New("AnyAccount excludes Accounts, Machines and Groups")
	case principals == 0 && !r.AnyAccount && len(r.Unauthenticated) == 0:
		return errors.New("it says for nobody; set Accounts, Machines, AnyAccount or Unauthenticated")
	}
	for _, m := range r.Methods {
		if m != "*" && !strings.HasPrefix(m, "/") {
			return fmt.Errorf("method %q does not begin with /", m)
		}
	}
	for _, a := range r.Accounts {
		if _, _, _, err := names.Account(a); err != nil {
			return fmt.Errorf("account %q is not of the form user@machine: %w", a, err)
		}
	}
	if slices.Contains(slices.Concat(r.Machines, r.Groups), "") {
		return errors.New("an empty name never matches")
	}
	for _, k := range r.Unauthenticated {
		if k != KindTLS && k != KindPlaintext {
			return fmt.Errorf("kind %q is neither %q nor %q", k, KindTLS, KindPlaintext)
		}
	}
	return nil
}

// covers reports whether the rule is about the method.
func (r *Rule) covers(method string) bool { return len(r.Methods) == 0 || matchAny(r.Methods, method) }

// allows reports whether the rule lets the peer in.
func (r *Rule) allows(p *Peer) bool {
	if len(r.Unauthenticated) > 0 {
		return false
	}
	byAccount := func(pattern string) bool {
		user, machine := names.SplitAccount(pattern)
		return match(user, p.User) && match(machine, p.Machine)
	}
	return p.User != "" && p.Machine != "" &&
		(len(r.Accounts) == 0 || slices.ContainsFunc(r.Accounts, byAccount)) &&
		(len(r.Machines) == 0 || matchAny(r.Machines, p.Machine)) &&
		(len(r.Groups) == 0 || slices.ContainsFunc(r.Groups, p.InGroup))
}

// An Authorizer decides which peers may call which methods of a gRPC server: those that some rule lets, nobody else.
type Authorizer struct{ rules []Rule }

// NewAuthorizer returns an Authorizer of the rules; without any it denies everything. An error is a mistake in a rule.
func NewAuthorizer(rules ...Rule) (*Authorizer, error) {
	a := new(Authorizer)
	for i, r := range rules {
		if err := r.check(); err != nil {
			return nil, fmt.Errorf("altscreds: rule %d: %w", i+1, err)
		}
		for _, list := range []*[]string{&r.Methods, &r.Accounts, &r.Machines, &r.Groups, &r.Unauthenticated} {
			*list = slices.Clone(*list) // the caller's slices may change
		}
		for _, list := range [][]string{r.Accounts, r.Machines, r.Groups} {
			for i := range list {
				list[i] = ascii.Lower(list[i])
			}
		}
		a.rules = append(a.rules, r)
	}
	return a, nil
}

// Authorize returns nil if the peer of the context may call the method, else a gRPC status PermissionDenied that names
// both.
func (a *Authorizer) Authorize(ctx context.Context, method string) error {
	info := authInfoFromContext(ctx)
	who, allows := caller(info)
	for i := range a.rules {
		if r := &a.rules[i]; r.covers(method) && allows(r) {
			return nil
		}
	}
	return status.Errorf(codes.PermissionDenied, "altscreds: %s may not call %s: no rule of this server allows it", who,
		method)
}

// caller returns the name of a peer for a text, and how a rule is asked about it.
func caller(info credentials.AuthInfo) (who string, allows func(*Rule) bool) {
	if p, ok := PeerFromAuthInfo(info); ok {
		return p.Account, func(r *Rule) bool { return r.allows(p) }
	}
	if u, ok := info.(Unauthenticated); ok {
		return fmt.Sprintf("an unauthenticated caller (%s)", u.Kind),
			func(r *Rule) bool { return slices.Contains(r.Unauthenticated, u.Kind) }
	}
	return "a caller that is not authenticated by ALTS", func(*Rule) bool { return false }
}

// UnaryInterceptor authorizes unary calls, in grpc.ChainUnaryInterceptor.
func (a *Authorizer) UnaryInterceptor(ctx context.Context, req any, info *grpc.UnaryServerInfo,
	handler grpc.UnaryHandler) (any, error) {
	if err := a.Authorize(ctx, info.FullMethod); err != nil {
		return nil, err
	}
	return handler(ctx, req)
}

// StreamInterceptor authorizes streams, in grpc.ChainStreamInterceptor.
func (a *Authorizer) StreamInterceptor(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo,
	handler grpc.StreamHandler) error {
	if err := a.Authorize(stream.Context(), info.FullMethod); err != nil {
		return err
	}
	return handler(srv, stream)
}

func matchAny(patterns []string, s string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return match(p, s) })
}

// match reports whether s is pattern, in which each "*" stands for any text. It takes the earliest place for each piece
// between two stars, which is enough and needs no going back.
func match(pattern, s string) bool {
	pieces := strings.Split(pattern, "*")
	if len(pieces) == 1 {
		return pattern == s
	}
	first, last := pieces[0], pieces[len(pieces)-1]
	if len(s) < len(first)+len(last) || !strings.HasPrefix(s, first) || !strings.HasSuffix(s, last) {
		return false
	}
	s = s[len(first) : len(s)-len(last)]
	for _, piece := range pieces[1 : len(pieces)-1] {
		i := strings.Index(s, piece)
		if i < 0 {
			return false
		}
		s = s[i+len(piece):]
	}
	return true
}
