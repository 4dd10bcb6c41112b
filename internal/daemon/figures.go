package daemon

import (
	"context"
	"strings"

	"google.golang.org/grpc/status"

	"github.com/shared-altsd/shared-altsd/internal/adminpb"
	"github.com/shared-altsd/shared-altsd/internal/metrics"
	"github.com/shared-altsd/shared-altsd/service"
)

// maxAccounts is how many local accounts status tells apart.
const maxAccounts = 20

// addFigures adds to a status what the metrics have no room for. What concerns others is for the privileged.
func (a *admin) addFigures(resp *adminpb.StatusResponse, streams int) {
	f, m := a.metrics.Figures(maxAccounts), a.machine.Stats()
	resp.ByCa = figures(f.ByCA)
	resp.Work = &adminpb.Work{Signatures: m.Signatures, Verified: m.Verified, Cached: m.Cached, Failed: m.Failed,
		CacheEntries: uint32(m.CacheSize), Streams: uint32(streams)}
	if !resp.Privileged {
		return
	}
	resp.Reasons = &adminpb.Reasons{RefusedHere: figures(f.RefusedHere), RefusedByPeer: figures(f.RefusedByPeer),
		GivenUp: figures(f.GivenUp)}
	for _, account := range f.Accounts {
		resp.Accounts = append(resp.Accounts, accountFigures(account))
	}
	resp.OtherAccounts = accountFigures(f.OtherAccounts)
}

func figures(of []metrics.Figure) (out []*adminpb.Figure) {
	for _, f := range of {
		out = append(out, &adminpb.Figure{Name: f.Name, Count: f.Count})
	}
	return out
}

func accountFigures(f metrics.AccountFigures) *adminpb.AccountFigures {
	return &adminpb.AccountFigures{Uid: f.UID, Account: f.Account, Accepted: f.Accepted, Failed: f.Failed}
}

// Metrics returns what a scrape would read. Any user may ask, as any may read a port of loopback.
func (a *admin) Metrics(ctx context.Context, _ *adminpb.MetricsRequest) (*adminpb.MetricsResponse, error) {
	c, err := service.CallerFromContext(ctx)
	if err != nil {
		return nil, err
	}
	var text strings.Builder
	if err := a.server.Work(ctx, c, statusCost, func() {
		err = a.metrics.WriteTextfile(&text, a.state())
	}); err != nil {
		return nil, status.FromContextError(err).Err()
	}
	return &adminpb.MetricsResponse{Text: text.String()}, err
}
