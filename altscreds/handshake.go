package altscreds

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"time"

	"github.com/shared-altsd/shared-altsd/internal/altspb"
)

// handshakeBuffer is how many bytes of the peer's are held for the daemon: more than the largest frame of the
// handshake.
const handshakeBuffer = 32 << 10

// A handshaker has the local daemon do one handshake over raw. Received are bytes that were read from raw before. When
// ctx ends it returns at once, and the state of raw is then undefined. It neither closes raw nor keeps it.
type handshaker func(ctx context.Context, raw net.Conn, s *settings, target string, received []byte) (*outcome, error)

var _ handshaker = relay

// outcome is what a handshake gives.
type outcome struct {
	result *altspb.HandshakerResult
	extra  []byte // bytes of the record protocol that arrived with the handshake's end
}

// secure does the handshake, checks its outcome and starts the record protocol. It runs under bounded.
func (s *settings) secure(ctx context.Context, raw net.Conn, target string, received []byte) (*record, AuthInfo,
	error) {
	if s.serverName != "" {
		target = s.serverName
	}
	o, err := handOver(ctx, raw, s, target, received)
	if err == errRelay {
		o, err = relay(ctx, raw, s, target, received)
	}
	if err != nil {
		return nil, nil, err
	}
	if err := s.check(o.result); err != nil {
		return nil, nil, err
	}
	info, err := newAuthInfo(o.result, target)
	if err != nil {
		return nil, nil, err
	}
	rec, err := newRecord(raw, s.client, o.result.GetKeyData(), o.result.GetMaxFrameSize(), o.extra)
	if err != nil {
		return nil, nil, err
	}
	return rec, info, nil
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

// endedError tells that ctx ended the handshake.
func endedError(ctx context.Context, started time.Time, err error) error {
	cause := context.Cause(ctx)
	if !isTimeout(cause) { // context.DeadlineExceeded and os.ErrDeadlineExceeded are
		return &HandshakeError{Text: "given up: " + cause.Error(), Err: cause}
	}
	waiting := "the peer"
	if noDaemon, ok := errors.AsType[*NoDaemonError](err); ok {
		waiting = "the local daemon: " + noDaemon.Error()
	}
	return timeoutError(time.Since(started), waiting)
}

func isTimeout(err error) bool {
	ne, ok := errors.AsType[net.Error](err)
	return ok && ne.Timeout()
}

// check makes sure that the daemon did what it was asked for, so that a faulty one cannot open a connection to anybody.
func (s *settings) check(r *altspb.HandshakerResult) error {
	peer := r.GetPeerIdentity().GetServiceAccount()
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
		!slices.Contains(s.machines, newPeer(peer, nil).Machine):
		return &HandshakeError{Reason: ReasonTargetMismatch,
			Text: fmt.Sprintf("the peer is %s, which is not among the targets", peer)}
	}
	return nil
}

func daemonFault(format string, args ...any) error {
	return &HandshakeError{Reason: ReasonInternal, Text: "the local daemon is faulty: " + fmt.Sprintf(format, args...)}
}

// relay is the handshaker that works with every ALTS handshaker service: it carries the bytes between raw and a stream
// to the daemon.
func relay(ctx context.Context, raw net.Conn, s *settings, target string, received []byte) (*outcome, error) {
	d, err := acquireDaemonConn(daemonKey{s.socket, s.daemonUID})
	if err != nil {
		return nil, err
	}
	defer d.release()
	handle := getBuffer(handshakeBuffer)
	defer putBuffer(handle)
	buf := (*handle)[:handshakeBuffer]
	pending := copy(buf, received)
	first := s.clientStart(target, endpoint(raw.RemoteAddr()))
	place := d.places[0]
	if !s.client {
		// A peer that stays silent holds neither a place nor a stream.
		if pending == 0 || partial(buf[:pending]) {
			if pending, err = readFrame(raw, buf, pending); err != nil {
				return nil, readError(err)
			}
		}
		first = s.serverStart(buf[:pending], endpoint(raw.RemoteAddr()))
		place = d.places[1]
	}
	select {
	case place <- struct{}{}:
		defer func() { <-place }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends the stream
	stream, resp, err := d.begin(ctx, first)
	for {
		if err != nil {
			return nil, err
		}
		consumed := resp.GetBytesConsumed()
		if uint64(consumed) > uint64(pending) {
			return nil, daemonFault("it claims %d bytes of %d", consumed, pending)
		}
		pending = copy(buf, buf[consumed:pending])
		if out := resp.GetOutFrames(); len(out) > 0 {
			if _, err := raw.Write(out); err != nil {
				return nil, &HandshakeError{Text: "writing to the peer: " + err.Error(), Err: err}
			}
		}
		if resp.GetResult() != nil {
			return &outcome{result: resp.GetResult(), extra: slices.Clone(buf[:pending])}, nil
		}
		if pending == len(buf) {
			return nil, daemonFault("it takes no more of %d bytes", pending)
		}
		var readErr error
		if pending, readErr = readFrame(raw, buf, pending); readErr != nil && readErr != io.EOF {
			return nil, readError(readErr)
		}
		resp, err = d.exchange(stream, &altspb.HandshakerReq{ReqOneof: &altspb.HandshakerReq_Next{
			Next: &altspb.NextHandshakeMessageReq{InBytes: buf[:pending]},
		}})
		// The daemon was asked, with no bytes, why it ended (if it did): it may have refused the peer, which then hung up.
		if readErr == io.EOF && !explained(err) {
			return nil, readError(io.EOF)
		}
	}
}

// explained reports whether err is what our daemon says of the handshake.
func explained(err error) bool {
	e, ok := errors.AsType[*HandshakeError](err)
	return ok && (e.Reason != "" || e.ByPeer || e.HandshakeID != "")
}

func readError(err error) *HandshakeError {
	if err == io.EOF {
		return &HandshakeError{
			Text: "the peer closed the connection during the handshake: it does not speak ALTS, it refused (the log of " +
				"its daemon says why), or it stopped",
			Err: io.ErrUnexpectedEOF,
		}
	}
	return &HandshakeError{Text: "reading from the peer: " + err.Error(), Err: err}
}

// readFrame reads into buf behind the n bytes that it holds, until the frames of shared-altsd's handshake in it are
// whole, to spare the daemon from seeing parts, or once if the bytes are anything else. It returns how many buf holds.
func readFrame(raw net.Conn, buf []byte, n int) (int, error) {
	for {
		m, err := raw.Read(buf[n:])
		if n += m; m == 0 && err != nil {
			return n, err
		}
		if n == len(buf) || !partial(buf[:n]) {
			return n, nil
		}
	}
}

// partial tells whether b begins with frames of docs/protocol.md, section 3, the last of which is not whole yet. What
// is not such a frame, or may never become one, is for the daemon to judge at once.
func partial(b []byte) bool {
	const header, maxBody = 8, 24576
	for len(b) >= header {
		size := header + int(binary.BigEndian.Uint16(b[6:]))
		if string(b[:4]) != magic || b[4] != 1 || b[5] < 1 || b[5] > 4 || size > header+maxBody {
			return false
		}
		if len(b) < size {
			return true
		}
		b = b[size:]
	}
	return len(b) > 0 && len(b) < header && magicPrefix(b)
}

// magic begins each frame of the handshake (docs/protocol.md, section 3).
const magic = "salt"

func magicPrefix(b []byte) bool {
	n := min(len(b), len(magic))
	return string(b[:n]) == magic[:n]
}

var rpcVersions = &altspb.RpcProtocolVersions{
	MaxRpcVersion: &altspb.RpcProtocolVersions_Version{Major: 2, Minor: 1},
	MinRpcVersion: &altspb.RpcProtocolVersions_Version{Major: 2, Minor: 1},
}

func (s *settings) clientStart(target string, remote *altspb.Endpoint) *altspb.HandshakerReq {
	var targets []*altspb.Identity
	for _, a := range s.accounts {
		targets = append(targets, &altspb.Identity{IdentityOneof: &altspb.Identity_ServiceAccount{ServiceAccount: a}})
	}
	for _, m := range s.machines {
		targets = append(targets, &altspb.Identity{IdentityOneof: &altspb.Identity_Hostname{Hostname: m}})
	}
	return &altspb.HandshakerReq{ReqOneof: &altspb.HandshakerReq_ClientStart{ClientStart: &altspb.StartClientHandshakeReq{
		HandshakeSecurityProtocol: altspb.HandshakeProtocol_ALTS,
		ApplicationProtocols:      s.protocols,
		RecordProtocols:           []string{recordProtocol},
		TargetIdentities:          targets,
		TargetName:                target,
		RemoteEndpoint:            remote,
		RpcVersions:               rpcVersions,
		MaxFrameSize:              advertisedFrame,
	}}}
}

func (s *settings) serverStart(in []byte, remote *altspb.Endpoint) *altspb.HandshakerReq {
	return &altspb.HandshakerReq{ReqOneof: &altspb.HandshakerReq_ServerStart{ServerStart: &altspb.StartServerHandshakeReq{
		ApplicationProtocols: s.protocols,
		HandshakeParameters: map[int32]*altspb.ServerHandshakeParameters{
			int32(altspb.HandshakeProtocol_ALTS): {RecordProtocols: []string{recordProtocol}},
		},
		InBytes:        in,
		RemoteEndpoint: remote,
		RpcVersions:    rpcVersions,
		MaxFrameSize:   advertisedFrame,
	}}}
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
