package daemon

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/shared-altsd/shared-altsd/internal/adminpb"
	"github.com/shared-altsd/shared-altsd/internal/names"
	"github.com/shared-altsd/shared-altsd/internal/policy"
	"github.com/shared-altsd/shared-altsd/service"
)

// A rulesTest answers what the policy in force would say.
type rulesTest struct {
	adminpb.UnimplementedRulesServer
	policy   *standard
	server   *service.Server
	accounts service.AccountOptions
}

// Bounds of a test.
const (
	maxTestGroups   = 256
	maxConditions   = 32
	testCost        = 500 // µs, and one more for each of testCostRules
	testCostRules   = 20
	maxTestServices = 64 // bytes of a service's name
)

// Test says what would be said of a connection, to everybody of his own account, to root and the daemon's own of all.
func (r *rulesTest) Test(ctx context.Context, req *adminpb.TestRulesRequest) (*adminpb.TestRulesResponse, error) {
	c, privileged, err := caller(ctx)
	if err != nil {
		return nil, err
	}
	conn, directions, err := connectionOf(req)
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	p := r.policy.inForce()
	switch {
	case privileged && req.GetLocalGroups() != nil:
		conn.Groups, err = groupsWritten(req.GetLocalGroups().GetNames())
	case privileged:
		conn.Groups, err = localGroups(ctx, p, conn.Account, r.accounts)
	case req.GetLocalGroups() != nil:
		err = status.Error(codes.PermissionDenied, "only root and the daemon's own account may say in which groups an account is: "+
			"leave --local-group out")
	default:
		conn.Groups, err = r.own(ctx, c, conn.Account, p)
	}
	if err != nil {
		return nil, err
	}
	rules, denied := p.Count()
	resp := new(adminpb.TestRulesResponse)
	err = r.server.Work(ctx, c, testCost+(rules+denied)/testCostRules, func() { resp = tryEach(p, conn, directions, privileged) })
	if err != nil {
		return nil, status.FromContextError(err).Err()
	}
	return resp, nil
}

// own returns the groups of a caller who may ask of himself alone.
func (r *rulesTest) own(ctx context.Context, c service.Caller, account string, p *policy.Policy) ([]string, error) {
	me, err := r.server.AccountOf(ctx, c)
	if err != nil {
		return nil, status.Error(codes.FailedPrecondition, withFlag(err).Error())
	}
	if me.Name != account {
		return nil, status.Errorf(codes.PermissionDenied, "you are %s, and may ask of your own account alone: name it as the local "+
			"account, or use sudo", me.Name)
	}
	return me.MemberOf(p.LocalGroups()), nil
}

// localGroups returns those of the groups that a policy names which an account is in.
func localGroups(ctx context.Context, p *policy.Policy, account string, o service.AccountOptions) ([]string, error) {
	named := p.LocalGroups()
	if len(named) == 0 {
		return nil, nil
	}
	o.Groups = named
	acct, err := service.AccountNamed(ctx, account, o)
	if errors.Is(err, service.ErrNoAccount) {
		err = fmt.Errorf("%w; the rules name groups of local accounts: say with --local-group in which it is, empty for none", err)
	}
	return acct.Groups, err
}

// connectionOf reads what is asked, for in and out if it does not say.
func connectionOf(req *adminpb.TestRulesRequest) (c *policy.Connection, directions []policy.Direction, err error) {
	if c, err = policy.Between(req.GetPeer(), req.GetLocal()); err != nil {
		return nil, nil, err
	}
	if c.Service = req.GetService(); c.Service == "" {
		c.Service = "grpc"
	}
	if len(c.Service) > maxTestServices {
		return nil, nil, fmt.Errorf("the service has %d bytes; it may have %d", len(c.Service), maxTestServices)
	}
	if n := len(req.GetConditions()); n > maxConditions {
		return nil, nil, fmt.Errorf("there are %d conditions; at most %d are taken", n, maxConditions)
	}
	for _, condition := range req.GetConditions() {
		if err := c.Assume(condition); err != nil {
			return nil, nil, err
		}
	}
	if c.Peer.Groups, err = groupsWritten(req.GetGroups()); err != nil {
		return nil, nil, err
	}
	for _, d := range req.GetDirections() {
		switch {
		case d == policy.In.String():
			directions = append(directions, policy.In)
		case d == policy.Out.String():
			directions = append(directions, policy.Out)
		default:
			return nil, nil, fmt.Errorf("the direction is %.20q: it must be in or out", d)
		}
	}
	if len(directions) > 2 {
		return nil, nil, errors.New("a direction stands there twice")
	}
	if directions == nil {
		directions = []policy.Direction{policy.In, policy.Out}
	}
	return c, directions, nil
}

func groupsWritten(written []string) (groups []string, err error) {
	if len(written) > maxTestGroups {
		return nil, fmt.Errorf("there are %d groups; at most %d are taken", len(written), maxTestGroups)
	}
	for _, w := range written {
		g, err := policy.Group(w)
		if err != nil {
			return nil, fmt.Errorf("the group %.100q: %w", w, err)
		}
		groups = append(groups, g)
	}
	return groups, nil
}

// tryEach judges a connection in each direction.
func tryEach(p *policy.Policy, c *policy.Connection, directions []policy.Direction, remarks bool) *adminpb.TestRulesResponse {
	resp := &adminpb.TestRulesResponse{Mode: p.Mode()}
	text := func(l policy.Line) string {
		if remarks {
			return l.Text
		}
		return l.Form
	}
	for _, c.Direction = range directions {
		t := p.Try(c)
		o := &adminpb.RuleOutcome{Direction: c.Direction.String(), Allowed: t.Verdict.Allowed, Would: t.Verdict.Would,
			Denied: t.Verdict.Denied, Rule: t.Verdict.Rule, Text: text(t.Line)}
		for _, l := range t.Unless {
			o.Unless = append(o.Unless, &adminpb.RuleLine{Rule: l.Name, Text: text(l)})
		}
		o.More = uint32(t.More)
		resp.Outcomes = append(resp.Outcomes, o)
	}
	for _, g := range c.Groups {
		if slices.Contains(p.LocalGroups(), g) {
			resp.LocalGroups = append(resp.LocalGroups, "%"+names.EncodeGroups([]string{g}))
		}
	}
	return resp
}

// TestRules says what the rules in a directory, and what is denied below another ("" for nothing), would say of a connection
// here. The local account's groups are those of the user database, where they are not given.
func TestRules(dir, denied string, domains bool, req *adminpb.TestRulesRequest) (*adminpb.TestRulesResponse, error) {
	conn, directions, err := connectionOf(req)
	if err != nil {
		return nil, err
	}
	p, err := readPolicy(dir, denied)
	if err != nil {
		return nil, err
	}
	if req.GetLocalGroups() != nil {
		conn.Groups, err = groupsWritten(req.GetLocalGroups().GetNames())
	} else {
		conn.Groups, err = localGroups(context.Background(), p, conn.Account,
			service.AccountOptions{AllowDomainAccounts: domains})
	}
	if err != nil {
		return nil, err
	}
	return tryEach(p, conn, directions, true), nil
}
