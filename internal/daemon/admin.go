package daemon

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/shared-altsd/shared-altsd/certbind"
	"github.com/shared-altsd/shared-altsd/internal/adminpb"
	"github.com/shared-altsd/shared-altsd/internal/altspb"
	"github.com/shared-altsd/shared-altsd/internal/cli"
	"github.com/shared-altsd/shared-altsd/internal/dane"
	"github.com/shared-altsd/shared-altsd/internal/metrics"
	"github.com/shared-altsd/shared-altsd/internal/version"
	"github.com/shared-altsd/shared-altsd/service"
)

// maxUnread bounds what a caller says of credentials that it could not read, bytes.
const maxUnread = 2 << 10

// MaxHandedCredentials bounds a credential handed over by reload, bytes; a request has at most 128 KiB.
const MaxHandedCredentials = 100 << 10

// An admin is what the daemon says of itself on its sockets: the admin service, and gRPC's health service.
type admin struct {
	adminpb.UnimplementedAdminServer
	machine  *certbind.Machine
	dns      *dane.Resolver
	files    Files // where certificate and key are
	reloader *reloader
	policy   *standard
	denied   *deniedStore
	metrics  *metrics.Set
	state    func() metrics.State
	server   *service.Server
	health   *health.Server
	draining atomic.Bool
}

// addAdmin adds the services to server, which does not serve yet.
func addAdmin(server *service.Server, machine *certbind.Machine, dns *dane.Resolver, r *reloader, p *standard, d *deniedStore,
	set *metrics.Set, state func() metrics.State) *admin {
	a := &admin{machine: machine, dns: dns, files: r.files, reloader: r, policy: p, denied: d, metrics: set, state: state, server: server,
		health: health.NewServer()}
	a.health.SetServingStatus(altspb.ServiceName, grpc_health_v1.HealthCheckResponse_SERVING)
	adminpb.RegisterAdminServer(server, a)
	adminpb.RegisterDenialServer(server, &denial{store: d})
	grpc_health_v1.RegisterHealthServer(server, a.health)
	return a
}

// drain tells health checks that the daemon is about to stop.
func (a *admin) drain() {
	a.draining.Store(true)
	a.health.Shutdown()
}

// caller returns who asks, and whether he may see what concerns other accounts: root and the daemon itself may, where no
// socket makes somebody else of them.
func caller(ctx context.Context) (c service.Caller, privileged bool, err error) {
	if c, err = service.CallerFromContext(ctx); err != nil {
		return c, false, err
	}
	return c, c.Himself() && (c.UID == 0 || int(c.UID) == os.Geteuid()), nil
}

// statusCost is what Status costs, in microseconds: a check of the certificate. Any user may ask.
const statusCost = 1000

// Status returns what the daemon is doing.
func (a *admin) Status(ctx context.Context, _ *adminpb.StatusRequest) (*adminpb.StatusResponse, error) {
	c, privileged, err := caller(ctx)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	credential, trust := a.machine.Credential(), a.machine.Trust()
	leaf := credential.Leaf
	var faults, soon []certbind.Fault
	if err := a.server.Work(ctx, c, statusCost, func() {
		faults, soon = ownFaults(credential, a.machine.Name(), trust, now)
	}); err != nil {
		return nil, status.FromContextError(err).Err()
	}
	fingerprint := sha256.Sum256(leaf.Raw)
	resp := &adminpb.StatusResponse{
		Version: version.Number(), State: "serving", StartedUnix: a.metrics.Started().Unix(), NowUnix: now.Unix(),
		Machine: a.machine.Name(),
		Certificate: &adminpb.Certificate{
			Subject: leaf.Subject.String(), Issuer: leaf.Issuer.String(), Serial: fmt.Sprintf("%x", leaf.SerialNumber),
			Key: leaf.PublicKeyAlgorithm.String(), DnsNames: leaf.DNSNames, NotBeforeUnix: leaf.NotBefore.Unix(),
			NotAfterUnix: leaf.NotAfter.Unix(), Fingerprint: hex.EncodeToString(fingerprint[:]),
		},
		AccountSource: service.AccountSource, Privileged: privileged,
	}
	if f := signerFault(credential, privileged); f != nil {
		faults = append(faults, *f)
	}
	resp.Certificate.KeyPlace = a.files.keyPlace()
	for _, f := range append(faults, soon...) {
		resp.Faults = append(resp.Faults, &adminpb.Fault{What: f.What, Cure: f.Cure, Warning: f.Warning})
	}
	if account, err := a.server.AccountOf(ctx, c); err != nil {
		resp.CallerRefused = withFlag(err).Error()
	} else {
		resp.CallerAccount = account.Name
	}
	for _, i := range expiryItems(credential, trust) {
		resp.Expiries = append(resp.Expiries, &adminpb.Expiry{
			Kind: i.Kind, Name: i.Name, NotBeforeUnix: i.NotBefore.Unix(), NotAfterUnix: i.NotAfter.Unix(),
		})
	}
	if a.draining.Load() {
		resp.State = "draining"
	}
	reloads := a.metrics.Reloads()
	resp.Reloads = &adminpb.Reloads{Succeeded: reloads.Succeeded, Failed: reloads.Failed,
		LastSuccessUnix: reloads.LastSuccess.Unix(), LastOk: true}
	if refused := a.reloader.Refused(); refused != nil {
		resp.Reloads.LastOk, resp.Reloads.Refused = false, refused.what
		resp.Reloads.RefusedSinceUnix = refused.since.Unix()
		if privileged {
			resp.Reloads.LastError = refused.err.Error()
		}
	}
	resp.Revocation = revocation(trust, a.reloader.Passed())
	a.addPolicy(resp)
	resp.Dns = dnsStatus(a.dns, trust)
	stats := a.server.Snapshot()
	resp.Connections = uint32(stats.Connections)
	resp.Standing = &adminpb.Standing{Watched: uint32(stats.Standing.Watched), Ended: sum(stats.Standing.Ended),
		Kept: sum(stats.Standing.Kept), Unwatched: stats.Standing.Unwatched, Keep: stats.Standing.Keep}
	a.addFigures(resp, stats.Streams)
	resp.Initiator, resp.Responder = a.counters(service.Initiator, stats), a.counters(service.Responder, stats)
	if privileged {
		for _, r := range stats.Last {
			resp.LastFailures = append(resp.LastFailures, &adminpb.Failure{
				Unix: r.Time.Unix(), HandshakeId: r.ID, Initiator: r.Role == service.Initiator, Account: r.Local, Peer: r.Peer,
				Reason: r.Reason, Text: r.Detail,
			})
		}
	}
	return resp, nil
}

func sum(counts map[string]uint64) (all uint64) {
	for _, n := range counts {
		all += n
	}
	return all
}

// counters returns the handshakes of one role, those that have ended and those of now.
func (a *admin) counters(role service.Role, now service.Stats) *adminpb.Counters {
	accepted, refused := a.metrics.Handshakes(role == service.Initiator)
	return &adminpb.Counters{Accepted: accepted, Refused: refused,
		InFlight: uint32(now.InFlight[role]), Waiting: uint32(now.Waiting[role])}
}

// Reload brings the files, or a credential handed over, into force and returns the outcome. One that could not be read
// counts as refused.
func (a *admin) Reload(ctx context.Context, req *adminpb.ReloadRequest) (*adminpb.ReloadResponse, error) {
	defer clear(req.GetCredentials())
	_, privileged, err := caller(ctx)
	switch {
	case err != nil:
		return nil, err
	case !privileged:
		return nil, status.Error(codes.PermissionDenied, "only root and the daemon's own account may reload: use sudo")
	case len(req.GetCredentials()) > MaxHandedCredentials:
		return nil, status.Errorf(codes.InvalidArgument,
			"the credentials have more than %d bytes: this is not the file that was meant",
			MaxHandedCredentials)
	}
	if why := req.GetUnread(); why != "" {
		a.reloader.Refuse(errors.New(why[:min(len(why), maxUnread)]))
		return &adminpb.ReloadResponse{Machine: a.machine.Name()}, nil
	}
	var credential []byte
	if len(req.GetCredentials()) > 0 {
		// A copy, since the reloader keeps it for later reloads; it wipes it.
		credential = append(credential, req.GetCredentials()...)
	}
	changed, err := a.reloader.Reload(reloadRequest{credential: credential, acceptOlder: req.GetAcceptOlderLists(),
		forget: req.GetForgetLists()})
	if err != nil {
		return nil, status.Error(codes.FailedPrecondition,
			"reload refused, the old certificates stay in force: "+cli.OneLine(err.Error()))
	}
	leaf := a.machine.Credential().Leaf
	resp := &adminpb.ReloadResponse{Machine: a.machine.Name(), NotAfterUnix: leaf.NotAfter.Unix(),
		Serial: fmt.Sprintf("%x", leaf.SerialNumber), Changed: changed}
	resp.Note = a.reloader.settings.note()
	if credential == nil && a.files.copied() {
		resp.Note = strings.TrimPrefix(resp.Note+"; the daemon's certificate is systemd's copy, which stays as it was at the start: 'systemctl reload "+
			"shared-altsd' hands the renewed one over", "; ")
	}
	return resp, nil
}
