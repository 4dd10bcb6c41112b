package matrix

import (
	"bytes"
	"context"
	"io"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	pb "github.com/shared-altsd/shared-altsd/internal/altspb"
	"github.com/shared-altsd/shared-altsd/internal/testprog"
)

// The libraries of this file are downloaded for make interop-all alone. Without them, these tests send a daemon the very
// requests that the libraries' sources make, in their order and with the peer's bytes in any segments, and judge the
// answers as those sources do.

const recordProtocol = "ALTSRP_GCM_AES128_REKEY"

var rpcVersions = &pb.RpcProtocolVersions{
	MaxRpcVersion: &pb.RpcProtocolVersions_Version{Major: 2, Minor: 1},
	MinRpcVersion: &pb.RpcProtocolVersions_Version{Major: 2, Minor: 1},
}

// A library is what is peculiar to one.
type library struct {
	userAgent string
	maxFrame  uint32
	// startsEmpty: a server sends its start request at accept, before the peer has said anything.
	startsEmpty bool
	// keeps: bytes that were not consumed are kept for the next request; else they are lost until there is a result.
	keeps bool
	// atResult is what the library does to the stream when it has a result.
	atResult func(*driver)
}

// A driver is one end of a connection, in the place of such a library.
type driver struct {
	t       *testing.T
	lib     library
	client  bool
	targets []string
	name    string // target_name
	stream  grpc.BidiStreamingClient[pb.HandshakerReq, pb.HandshakerResp]
	cancel  context.CancelFunc
	started bool
	held    []byte // bytes of the peer's that no request has consumed
	result  *pb.HandshakerResult
	err     error // what the library would tell
}

func newDriver(t *testing.T, d *daemon, lib library, client bool) *driver {
	t.Helper()
	conn, err := grpc.NewClient("unix://"+d.socket, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithUserAgent(lib.userAgent))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	ctx, cancel := context.WithTimeout(context.Background(), testprog.Patience)
	t.Cleanup(cancel)
	s, err := conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, pb.FullMethod)
	if err != nil {
		t.Fatal(err)
	}
	return &driver{t: t, lib: lib, client: client, cancel: cancel,
		stream: &grpc.GenericClientStream[pb.HandshakerReq, pb.HandshakerResp]{ClientStream: s}}
}

// send makes one request and gives the one answer to it.
func (d *driver) send(req *pb.HandshakerReq, in int) *pb.HandshakerResp {
	d.t.Helper()
	if err := d.stream.Send(req); err != nil && err != io.EOF {
		d.t.Fatal(err)
	}
	resp, err := d.stream.Recv()
	if err != nil {
		d.err = err
		return nil
	}
	if resp.Status == nil {
		d.t.Errorf("a response without a status")
	}
	if c := resp.GetStatus().GetCode(); c != 0 {
		d.err = &inBand{c, resp.Status.Details}
		return nil
	}
	if int(resp.BytesConsumed) > in {
		d.t.Errorf("%d bytes consumed of %d", resp.BytesConsumed, in)
	}
	if resp.Result != nil {
		d.result = resp.Result
		if d.lib.atResult != nil {
			d.lib.atResult(d)
		}
	}
	return resp
}

// inBand is an error in a response's status.
type inBand struct {
	code uint32
	text string
}

func (e *inBand) Error() string { return e.text }

// begin makes the start request of a client, or of a server that has in.
func (d *driver) begin(in []byte) []byte {
	d.t.Helper()
	d.started = true
	req := new(pb.HandshakerReq)
	if d.client {
		start := &pb.StartClientHandshakeReq{HandshakeSecurityProtocol: pb.HandshakeProtocol_ALTS,
			ApplicationProtocols: []string{"grpc"}, RecordProtocols: []string{recordProtocol}, RpcVersions: rpcVersions,
			TargetName: d.name, MaxFrameSize: d.lib.maxFrame}
		for _, a := range d.targets {
			id := &pb.Identity{IdentityOneof: &pb.Identity_ServiceAccount{ServiceAccount: a}}
			start.TargetIdentities = append(start.TargetIdentities, id)
		}
		req.ReqOneof = &pb.HandshakerReq_ClientStart{ClientStart: start}
	} else {
		req.ReqOneof = &pb.HandshakerReq_ServerStart{ServerStart: &pb.StartServerHandshakeReq{
			ApplicationProtocols: []string{"grpc"}, InBytes: in, RpcVersions: rpcVersions, MaxFrameSize: d.lib.maxFrame,
			HandshakeParameters: map[int32]*pb.ServerHandshakeParameters{
				int32(pb.HandshakeProtocol_ALTS): {RecordProtocols: []string{recordProtocol}}}}}
	}
	return d.took(in, d.send(req, len(in)))
}

// next gives the handshaker bytes that came from the peer.
func (d *driver) next(in []byte) []byte {
	d.t.Helper()
	req := &pb.HandshakerReq{ReqOneof: &pb.HandshakerReq_Next{Next: &pb.NextHandshakeMessageReq{InBytes: in}}}
	return d.took(in, d.send(req, len(in)))
}

// took notes what was consumed of in and gives what is to be sent to the peer.
func (d *driver) took(in []byte, resp *pb.HandshakerResp) []byte {
	d.t.Helper()
	if resp == nil {
		return nil
	}
	rest := in[min(int(resp.BytesConsumed), len(in)):]
	if len(rest) > 0 && d.result == nil && !d.lib.keeps {
		d.t.Errorf("%d bytes left unconsumed before the end, which this library loses", len(rest))
	}
	d.held = bytes.Clone(rest)
	return resp.OutFrames
}

// receive has bytes of the peer's come in, as the library handles them, and gives what it sends in answer.
func (d *driver) receive(in []byte) (out []byte) {
	d.t.Helper()
	if d.result != nil {
		d.held = append(d.held, in...) // records, for the record protocol
		return nil
	}
	in = append(d.held, in...)
	for {
		before := len(in)
		if d.started {
			out = append(out, d.next(in)...)
		} else {
			out = append(out, d.begin(in)...)
		}
		if d.err != nil || d.result != nil || len(out) > 0 || len(d.held) == 0 {
			return out
		}
		if in = d.held; len(in) >= before {
			d.t.Fatal("the handshaker did not consume any bytes, which this library takes for an error")
		}
	}
}

// shake carries bytes between the two ends, at most segment at a time, until both have a result or one has failed. The
// server's first record, extra, follows its last handshake bytes at once.
func shake(t *testing.T, client, server *driver, segment int, extra []byte) {
	t.Helper()
	var toServer, toClient []byte
	if server.lib.startsEmpty {
		toClient = server.begin(nil)
	}
	toServer = client.begin(nil)
	sent := false
	for deadline := time.Now().Add(testprog.Patience); len(toServer)+len(toClient) > 0; {
		if time.Now().After(deadline) {
			t.Fatal("the handshake does not end")
		}
		if n := min(segment, len(toServer)); n > 0 && server.err == nil {
			in := toServer[:n:n]
			toServer = toServer[n:]
			toClient = append(toClient, server.receive(in)...)
			if server.result != nil && !sent {
				toClient, sent = append(toClient, extra...), true
			}
		}
		if n := min(segment, len(toClient)); n > 0 && client.err == nil {
			in := toClient[:n:n]
			toClient = toClient[n:]
			toServer = append(toServer, client.receive(in)...)
		}
		if client.err != nil || server.err != nil {
			return
		}
	}
}

// checkResult judges a result as strictly as the strictest library, and the end of the stream.
func (d *driver) checkResult(account, own string, peerFrame uint32, held []byte) {
	d.t.Helper()
	r := d.result
	if r == nil {
		d.t.Errorf("no result: %v", d.err)
		return
	}
	if r.ApplicationProtocol != "grpc" || r.RecordProtocol != recordProtocol || len(r.KeyData) < 44 ||
		r.PeerIdentity.GetServiceAccount() != account || r.LocalIdentity.GetServiceAccount() != own ||
		r.PeerRpcVersions.GetMaxRpcVersion().GetMajor() != 2 || r.MaxFrameSize != peerFrame {
		d.t.Errorf("result %v", r)
	}
	if !bytes.Equal(d.held, held) {
		d.t.Errorf("%q is left for the record protocol, not %q", d.held, held)
	}
}

// checkError judges the error that the library's user sees.
func (d *driver) checkError(texts ...string) {
	d.t.Helper()
	if d.err == nil {
		d.t.Error("no error")
		return
	}
	for _, text := range texts {
		if !strings.Contains(d.err.Error(), text) {
			d.t.Errorf("%q does not say %q", d.err, text)
		}
	}
}
