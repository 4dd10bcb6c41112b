package daemon

import (
	"context"
	"fmt"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/shared-altsd/shared-altsd/internal/adminpb"
	"github.com/shared-altsd/shared-altsd/internal/cli"
	"github.com/shared-altsd/shared-altsd/service"
)

// addPolicy adds to a status what policy is in force, and to that for the privileged what it would refuse.
func (a *admin) addPolicy(resp *adminpb.StatusResponse) {
	p := a.policy.inForce()
	rules, denied := p.Count()
	resp.Policy = &adminpb.Policy{Mode: p.Mode(), Rules: uint32(rules), Denied: uint32(denied), DeniedDir: a.denied.dir}
	if r := a.denied.standing.Load(); r != nil {
		resp.Policy.DeniedRefusedSinceUnix = r.since.Unix()
		fault := &adminpb.Fault{What: "what is denied was not read, and what was denied before stays so",
			Cure: "the reason is in the log"}
		if resp.Privileged {
			resp.Policy.DeniedRefused = r.err.Error()
			fault.Cure = r.err.Error()
		}
		resp.Faults = append(resp.Faults, fault)
	}
	if !resp.Privileged {
		return
	}
	list, more := a.server.WouldRefuse()
	resp.WouldRefuseMore = more
	for _, w := range list {
		resp.WouldRefuse = append(resp.WouldRefuse, &adminpb.WouldRefuse{Rule: w.Rule, Initiator: w.Role == service.Initiator,
			Local: w.Local, Peer: w.Peer, Count: w.Count, LastUnix: w.Last.Unix()})
	}
}

// A denial is what `shared-altsd deny` asks.
type denial struct {
	adminpb.UnimplementedDenialServer
	store *deniedStore
}

// maxWho bounds what a caller says of whom he asks for, bytes.
const maxWho = 128

// Read has the store read its files, for root and the daemon's own account.
func (d *denial) Read(ctx context.Context, req *adminpb.ReadDeniedRequest) (*adminpb.ReadDeniedResponse, error) {
	c, privileged, err := caller(ctx)
	switch {
	case err != nil:
		return nil, err
	case !privileged:
		return nil, status.Error(codes.PermissionDenied, "only root and the daemon's own account may deny: use sudo")
	}
	by := fmt.Sprintf("uid %d", c.UID)
	if who := cli.OneLine(req.GetWho()); who != "" {
		by += ", who says for " + strings.ToValidUTF8(who[:min(len(who), maxWho)], "")
	}
	sum, entries, err := d.store.Read(by)
	if err != nil {
		return nil, status.Error(codes.FailedPrecondition,
			"what was denied before stays denied, and nothing is added: "+cli.OneLine(err.Error()))
	}
	return &adminpb.ReadDeniedResponse{Dir: d.store.dir, Sha256: sum[:], Entries: uint32(entries)}, nil
}
