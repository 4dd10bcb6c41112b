package altscreds

import (
	"context"
	"fmt"
	"net"
	"slices"
	"time"

	"github.com/shared-altsd/shared-altsd/internal/altspb"
	"github.com/shared-altsd/shared-altsd/internal/names"
)

// outcome is what comes of a handshake that succeeded.
type outcome struct {
	result *altspb.HandshakerResult
	id     string // of the handshake, "" if the handshaker does not say
	extra  []byte // bytes of the record protocol that arrived with the handshake's end

	daemon   *daemonConn
	standing *altspb.Standing // by which the connection can be watched, nil if it cannot
}

// secure does the handshake, checks its outcome and starts the record protocol. Received are bytes that were read from
// raw before. It runs under bounded.
func (s *settings) secure(ctx context.Context, raw net.Conn, target string, received []byte) (rec *record, info AuthInfo,
	o *outcome, err error) {
	if s.serverName != "" {
		target = s.serverName
	}
	if o, err = s.askDaemon(ctx, raw, target, received); err != nil {
		return nil, nil, nil, err
	}
	if err := s.check(o.result); err != nil {
		return nil, nil, nil, err
	}
	if info, err = newAuthInfo(o.result, target); err != nil {
		return nil, nil, nil, err
	}
	if rec, err = newRecord(raw, s.client, o.result.GetKeyData(), o.result.GetMaxFrameSize(), o.extra); err != nil {
		return nil, nil, nil, err
	}
	if IsServiceProtocol(o.result.GetApplicationProtocol()) {
		rec.speakChunks(o.result.GetMaxFrameSize())
	}
	return rec, info, o, nil
}

// askDaemon has the local daemon do the handshake over raw. When ctx ends it returns at once, and the state of raw is
// then undefined. It neither closes raw nor keeps it.
func (s *settings) askDaemon(ctx context.Context, raw net.Conn, target string, received []byte) (*outcome, error) {
	if !s.client {
		// A peer that stays silent, or stops in the middle of it, holds no place, and nothing of the daemon's.
		var err error
		if received, err = awaitPeer(raw, received); err != nil {
			return nil, err
		}
	}
	d, p, err := s.placeAtDaemon(ctx, raw.RemoteAddr())
	if err != nil {
		return nil, err
	}
	defer d.release()
	defer p.leave()
	// As at the end of ctx, reads and writes of raw end when the place has to be given up.
	stop := context.AfterFunc(p.ctx, func() { raw.SetDeadline(time.Unix(1, 0)) })
	o, err := d.handOver(p.ctx, raw, s.start(target, nil, nil, received))
	if err == errRelay {
		p.prolong()
		// Without the socket, the daemon does not see its addresses.
		o, err = d.relay(p.ctx, raw, s.start(target, endpoint(raw.LocalAddr()), endpoint(raw.RemoteAddr()), received), received)
	}
	if !stop() {
		if err == nil {
			err = p.ctx.Err()
		}
		return nil, placeError(p.ctx, err)
	}
	if err == nil {
		o.daemon = d
	}
	return o, err
}

// placeAtDaemon waits for a place at the daemon, under the identity that the process has when it gets one.
func (s *settings) placeAtDaemon(ctx context.Context, peer net.Addr) (d *daemonConn, p *place, err error) {
	for {
		d, err := acquireDaemonConn(daemonKey{s.socket, s.daemonUID, currentIdentity()})
		if err != nil {
			return nil, nil, err
		}
		p, err := d.takePlace(ctx, s.client, peer)
		if err == nil && currentIdentity() == d.key.who {
			return d, p, nil
		}
		if err == nil {
			p.leave()
		}
		d.release()
		if err != nil {
			return nil, nil, err
		}
	}
}

// bounded runs do, which uses raw, until ctx ends, or for s.timeout if ctx has no deadline.
func (s *settings) bounded(ctx context.Context, raw net.Conn, do func(context.Context) error) error {
	started := time.Now()
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, s.timeout)
		defer cancel()
	}
	// A read or write of raw that is under way when the context ends is ended by a deadline in the past.
	stop := context.AfterFunc(ctx, func() { raw.SetDeadline(time.Unix(1, 0)) })
	err := do(ctx)
	if !stop() || err != nil && ctx.Err() != nil {
		return endedError(ctx, started, err)
	}
	return err
}

// check makes sure that the daemon did what it was asked for, so that a faulty one cannot open a connection to anybody.
func (s *settings) check(r *altspb.HandshakerResult) error {
	peer := r.GetPeerIdentity().GetServiceAccount()
	_, machine := names.SplitAccount(peer)
	switch {
	case r.GetRecordProtocol() != recordProtocol:
		return daemonFault("it chose the record protocol %q", r.GetRecordProtocol())
	case len(r.GetKeyData()) < keySize:
		return daemonFault("it gave %d bytes of key data, not %d", len(r.GetKeyData()), keySize)
	case !slices.Contains(s.protocols, r.GetApplicationProtocol()):
		return daemonFault("it chose the application protocol %q, which was not offered", r.GetApplicationProtocol())
	case peer == "":
		return daemonFault("it named no peer")
	case len(s.accounts)+len(s.machines) > 0 && !slices.Contains(s.accounts, peer) &&
		!slices.Contains(s.machines, machine):
		return &HandshakeError{Reason: ReasonTargetMismatch,
			Text: fmt.Sprintf("the peer is %s, which is not among the targets", peer)}
	}
	return nil
}

var rpcVersions = &altspb.RpcProtocolVersions{
	MaxRpcVersion: &altspb.RpcProtocolVersions_Version{Major: 2, Minor: 1},
	MinRpcVersion: &altspb.RpcProtocolVersions_Version{Major: 2, Minor: 1},
}

// start returns the request that begins a handshake: as the client of target, or as the server of a peer from whom in
// has come.
func (s *settings) start(target string, local, remote *altspb.Endpoint, in []byte) *altspb.HandshakerReq {
	if s.client {
		return s.clientStart(target, local, remote)
	}
	return s.serverStart(local, remote, in)
}

func (s *settings) clientStart(target string, local, remote *altspb.Endpoint) *altspb.HandshakerReq {
	var targets []*altspb.Identity
	for _, a := range s.accounts {
		targets = append(targets, &altspb.Identity{IdentityOneof: &altspb.Identity_ServiceAccount{ServiceAccount: a}})
	}
	for _, m := range s.machines {
		targets = append(targets, &altspb.Identity{IdentityOneof: &altspb.Identity_Hostname{Hostname: m}})
	}
	start := &altspb.StartClientHandshakeReq{
		HandshakeSecurityProtocol: altspb.HandshakeProtocol_ALTS,
		ApplicationProtocols:      s.protocols,
		RecordProtocols:           []string{recordProtocol},
		TargetIdentities:          targets,
		TargetName:                target,
		LocalEndpoint:             local,
		RemoteEndpoint:            remote,
		RpcVersions:               rpcVersions,
		MaxFrameSize:              advertisedFrame,
	}
	return &altspb.HandshakerReq{ReqOneof: &altspb.HandshakerReq_ClientStart{ClientStart: start}}
}

func (s *settings) serverStart(local, remote *altspb.Endpoint, in []byte) *altspb.HandshakerReq {
	start := &altspb.StartServerHandshakeReq{
		ApplicationProtocols: s.protocols,
		HandshakeParameters: map[int32]*altspb.ServerHandshakeParameters{
			int32(altspb.HandshakeProtocol_ALTS): {RecordProtocols: []string{recordProtocol}},
		},
		InBytes:        in,
		LocalEndpoint:  local,
		RemoteEndpoint: remote,
		RpcVersions:    rpcVersions,
		MaxFrameSize:   advertisedFrame,
	}
	return &altspb.HandshakerReq{ReqOneof: &altspb.HandshakerReq_ServerStart{ServerStart: start}}
}

// endpoint describes an address for the daemon's log; nil if it is not TCP.
func endpoint(addr net.Addr) *altspb.Endpoint {
	tcp, ok := addr.(*net.TCPAddr)
	if !ok {
		return nil
	}
	return &altspb.Endpoint{IpAddress: tcp.AddrPort().Addr().Unmap().WithZone("").String(), Port: int32(tcp.Port),
		Protocol: altspb.NetworkProtocol_TCP}
}
