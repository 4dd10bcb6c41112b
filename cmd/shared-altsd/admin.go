package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/shared-altsd/shared-altsd/certbind"
	"github.com/shared-altsd/shared-altsd/internal/adminpb"
	"github.com/shared-altsd/shared-altsd/internal/cli"
	"github.com/shared-altsd/shared-altsd/internal/expiry"
	"github.com/shared-altsd/shared-altsd/internal/metrics"
	"github.com/shared-altsd/shared-altsd/internal/version"
	"github.com/shared-altsd/shared-altsd/service"
)

// maxHandedCredentials bounds a credential handed over by reload, bytes; a request has at most 128 KiB.
const maxHandedCredentials = 100 << 10

// announceInterval is how often expiry and the clock are looked at.
const announceInterval = time.Minute

// An admin is what the daemon says of itself: the admin service and gRPC's health service on the socket, the metrics,
// and the announcements of expiry.
type admin struct {
	adminpb.UnimplementedAdminServer
	machine  *certbind.Machine
	accounts service.AccountDatabase
	reloader *reloader
	metrics  *metrics.Set
	health   *health.Server
	expiry   *expiry.Announcer
	built    time.Time
	started  time.Time

	mu         sync.Mutex
	server     *service.Server // nil until start
	reloadFail string          // why the last reload failed, empty if it did not
	draining   bool
}

func newAdmin(machine *certbind.Machine, accounts service.AccountDatabase, r *reloader, log *slog.Logger) *admin {
	built := version.Built()
	a := &admin{
		machine: machine, accounts: accounts, reloader: r, health: health.NewServer(), built: built, started: time.Now(),
		expiry: expiry.NewAnnouncer(log, built, judgeExpiry),
	}
	a.metrics = metrics.New(version.Number(), a.state)
	a.health.SetServingStatus("grpc.gcp.HandshakerService", grpc_health_v1.HealthCheckResponse_SERVING)
	return a
}

// register adds the services to a server of the local socket.
func (a *admin) register(r grpc.ServiceRegistrar) {
	adminpb.RegisterAdminServer(r, a)
	grpc_health_v1.RegisterHealthServer(r, a.health)
}

// finish counts a handshake that has ended.
func (a *admin) finish(r service.Record) {
	a.metrics.Handshake(metrics.Handshake{
		Initiator: r.Role == service.Initiator, UID: r.UID, Reason: r.Reason, ByPeer: r.ByPeer, Duration: r.Duration,
	})
}

// reloaded counts a reload that has ended.
func (a *admin) reloaded(err error) {
	a.metrics.Reload(err)
	a.mu.Lock()
	a.reloadFail = ""
	if err != nil {
		a.reloadFail = err.Error()
	}
	a.mu.Unlock()
	a.announce()
}

func (a *admin) announce() { a.expiry.Announce(a.items(), time.Now()) }

// run announces expiry and serves the metrics on l, if that is not nil, until ctx ends.
func (a *admin) run(ctx context.Context, server *service.Server, l net.Listener) error {
	a.mu.Lock()
	a.server = server
	a.mu.Unlock()
	var served chan error
	if l != nil {
		served = make(chan error, 1)
		go func() { served <- a.metrics.Serve(ctx, l) }()
	}
	a.announce()
	tick := time.NewTicker(announceInterval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			a.announce()
		case err := <-served:
			return err
		case <-ctx.Done():
			if served != nil {
				return <-served
			}
			return nil
		}
	}
}

// drain tells health checks that the daemon is about to stop.
func (a *admin) drain() {
	a.mu.Lock()
	a.draining = true
	a.mu.Unlock()
	a.health.Shutdown()
}

// items are what handshakes depend on for a time.
func (a *admin) items() []expiry.Item { return expiryItems(a.machine.Credential(), a.machine.Trust()) }

// expiryItems names a CA with its serial number, since its successor may have the same subject, and each thing once: no
// two series of a metric may have the same labels.
func expiryItems(credential *certbind.Credential, t *certbind.Trust) []expiry.Item {
	var items []expiry.Item
	seen := make(map[expiry.Item]bool)
	add := func(kind, name string, notBefore, notAfter time.Time) {
		if key := (expiry.Item{Kind: kind, Name: name}); !seen[key] {
			seen[key] = true
			items = append(items, expiry.Item{Kind: kind, Name: name, NotBefore: notBefore, NotAfter: notAfter})
		}
	}
	for i, c := range credential.Certificates {
		if i == 0 {
			add(expiry.Leaf, strings.Join(c.DNSNames, " "), c.NotBefore, c.NotAfter)
		} else {
			add(expiry.Chain, fmt.Sprintf("%s (serial %x)", c.Subject, c.SerialNumber), c.NotBefore, c.NotAfter)
		}
	}
	for _, c := range t.CAs() {
		add(expiry.CA, fmt.Sprintf("%s (serial %x)", c.Subject, c.SerialNumber), c.NotBefore, c.NotAfter)
	}
	for _, l := range t.CRLs() {
		add(expiry.CRL, l.Source+" of "+l.Issuer, l.ThisUpdate, l.NextUpdate)
	}
	return items
}

// state is what a scrape reads.
func (a *admin) state() metrics.State {
	items := a.items()
	m := a.machine.Stats()
	s := metrics.State{
		Expiries: items, ClockWrong: expiry.ClockFault(items, time.Now(), a.built) != "",
		Signatures: m.Signatures, VerifiedFull: m.Verified, VerifiedCached: m.Cached, VerifiedFailed: m.Failed,
		CacheEntries: m.CacheSize,
	}
	if st, ok := a.snapshot(); ok {
		s.InFlightInitiator, s.InFlightResponder = st.InFlight[service.Initiator], st.InFlight[service.Responder]
		s.WaitingInitiator, s.WaitingResponder = st.Waiting[service.Initiator], st.Waiting[service.Responder]
		s.Connections, s.Streams = st.Connections, st.Streams
	}
	return s
}

func (a *admin) snapshot() (service.Stats, bool) {
	a.mu.Lock()
	server := a.server
	a.mu.Unlock()
	if server == nil {
		return service.Stats{}, false
	}
	return server.Snapshot(), true
}

// caller says who asks, and whether he may see what concerns other accounts: root and the daemon itself may.
func caller(ctx context.Context) (c service.Caller, privileged bool, err error) {
	c, ok := service.CallerFromContext(ctx)
	if !ok {
		return c, false, status.Error(codes.Unauthenticated, "shared-altsd: the connection has no peer credentials")
	}
	return c, c.UID == 0 || int(c.UID) == os.Geteuid(), nil
}

// statusCost is what Status costs, in microseconds: a check of the certificate.
const statusCost = 1000

// work does what a caller asked for, at his account's expense: any user may ask.
func (a *admin) work(ctx context.Context, c service.Caller, do func()) error {
	a.mu.Lock()
	server := a.server
	a.mu.Unlock()
	if server == nil {
		do()
		return nil
	}
	return server.Work(ctx, c, statusCost, do)
}

// Status says what the daemon is doing.
func (a *admin) Status(ctx context.Context, _ *adminpb.StatusRequest) (*adminpb.StatusResponse, error) {
	c, privileged, err := caller(ctx)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	credential, items := a.machine.Credential(), a.items()
	leaf := credential.Leaf
	var faults, soon []certbind.Fault
	if err := a.work(ctx, c, func() {
		faults, soon = ownFaults(credential, a.machine.Name(), a.machine.Trust(), now)
	}); err != nil {
		return nil, status.FromContextError(err).Err()
	}
	fingerprint := sha256.Sum256(leaf.Raw)
	resp := &adminpb.StatusResponse{
		Version: version.Number(), State: "serving", StartedUnix: a.started.Unix(), NowUnix: now.Unix(), Machine: a.machine.Name(),
		Certificate: &adminpb.Certificate{
			Subject: leaf.Subject.String(), Issuer: leaf.Issuer.String(), Serial: fmt.Sprintf("%x", leaf.SerialNumber),
			Key: leaf.PublicKeyAlgorithm.String(), DnsNames: leaf.DNSNames, NotBeforeUnix: leaf.NotBefore.Unix(),
			NotAfterUnix: leaf.NotAfter.Unix(), Fingerprint: hex.EncodeToString(fingerprint[:]),
		},
		AccountSource: service.AccountSource, Privileged: privileged, Initiator: &adminpb.Counters{},
		Responder: &adminpb.Counters{}, Reloads: &adminpb.Reloads{},
	}
	for _, f := range append(faults, soon...) {
		resp.Faults = append(resp.Faults, &adminpb.Fault{What: f.What, Cure: f.Cure, Warning: f.Warning})
	}
	if account, err := a.accounts.Lookup(ctx, c.UID); err != nil {
		resp.CallerRefused = withFlag(err).Error()
	} else {
		resp.CallerAccount = account.Name
	}
	for _, i := range items {
		resp.Expiries = append(resp.Expiries, &adminpb.Expiry{
			Kind: i.Kind, Name: i.Name, NotBeforeUnix: i.NotBefore.Unix(), NotAfterUnix: i.NotAfter.Unix(),
		})
	}
	a.mu.Lock()
	if a.draining {
		resp.State = "draining"
	}
	failure := a.reloadFail
	a.mu.Unlock()
	succeeded, failed, last, ok := a.metrics.Reloads()
	resp.Reloads = &adminpb.Reloads{Succeeded: succeeded, Failed: failed, LastSuccessUnix: last.Unix(), LastOk: ok}
	stats, _ := a.snapshot()
	resp.Connections = uint32(stats.Connections)
	for side, counters := range map[service.Role]*adminpb.Counters{service.Initiator: resp.Initiator,
		service.Responder: resp.Responder} {
		counters.Accepted, counters.Refused = a.metrics.Handshakes(side == service.Initiator)
		counters.InFlight, counters.Waiting = uint32(stats.InFlight[side]), uint32(stats.Waiting[side])
	}
	if privileged {
		resp.Reloads.LastError = failure
		for _, r := range stats.Last {
			resp.LastFailures = append(resp.LastFailures, &adminpb.Failure{
				Unix: r.Time.Unix(), HandshakeId: r.ID, Initiator: r.Role == service.Initiator, Account: r.Local, Peer: r.Peer,
				Reason: r.Reason, Text: r.Detail,
			})
		}
	}
	return resp, nil
}

// Reload brings the files, or a credential handed over, into force and gives the outcome.
func (a *admin) Reload(ctx context.Context, req *adminpb.ReloadRequest) (*adminpb.ReloadResponse, error) {
	defer clear(req.GetCredentials())
	_, privileged, err := caller(ctx)
	switch {
	case err != nil:
		return nil, err
	case !privileged:
		return nil, status.Error(codes.PermissionDenied, "only root and the daemon's own account may reload: use sudo")
	case len(req.GetCredentials()) > maxHandedCredentials:
		return nil, status.Errorf(codes.InvalidArgument,
			"the credentials have more than %d bytes: this is not the file that was meant",
			maxHandedCredentials)
	}
	var credential []byte
	if len(req.GetCredentials()) > 0 {
		// A copy, since the reloader keeps it for later reloads.
		credential = append(credential, req.GetCredentials()...)
	}
	if err := a.reloader.Reload(credential); err != nil {
		return nil, status.Error(codes.FailedPrecondition,
			"reload refused, the old certificates stay in force: "+cli.OneLine(err.Error()))
	}
	leaf := a.machine.Credential().Leaf
	return &adminpb.ReloadResponse{
		Machine: a.machine.Name(), NotAfterUnix: leaf.NotAfter.Unix(), Serial: fmt.Sprintf("%x", leaf.SerialNumber),
	}, nil
}
