package altscreds

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/shared-altsd/shared-altsd/internal/altspb"
	"github.com/shared-altsd/shared-altsd/internal/localsock"
)

// handshakeBuffer is how many bytes of the peer's are held for the daemon: more than the largest frame of the
// handshake.
const handshakeBuffer = 32 << 10

// relay works with every ALTS handshaker service: it carries the bytes between raw and a stream to the daemon. Received
// are bytes that were read from raw before.
func (d *daemonConn) relay(ctx context.Context, raw net.Conn, start *altspb.HandshakerReq, received []byte) (*outcome,
	error) {
	handle := getBuffer(handshakeBuffer)
	defer putBuffer(handle)
	buf := (*handle)[:handshakeBuffer]
	pending := copy(buf, received)
	if server := start.GetServerStart(); server != nil {
		if pending == 0 || partialFrame(buf[:pending]) {
			var err error
			if pending, err = readFrames(raw, buf, pending); err != nil {
				return nil, readError(err)
			}
		}
		server.InBytes = buf[:pending]
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends the stream
	stream, resp, err := d.begin(ctx, start)
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
			return &outcome{result: resp.GetResult(), id: resp.GetHandshakeId(), extra: slices.Clone(buf[:pending]),
				standing: resp.GetStanding()}, nil
		}
		if pending == len(buf) {
			return nil, daemonFault("it takes no more of %d bytes", pending)
		}
		var readErr error
		if pending, readErr = readFrames(raw, buf, pending); readErr != nil && readErr != io.EOF {
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

type handshakeStream = grpc.BidiStreamingClient[altspb.HandshakerReq, altspb.HandshakerResp]

var streamDesc = &grpc.StreamDesc{StreamName: altspb.MethodName, ServerStreams: true, ClientStreams: true}

// begin opens a stream and makes its first exchange. While the daemon is being restarted it tries again for a while:
// nothing has been sent to the peer yet.
func (d *daemonConn) begin(ctx context.Context, start *altspb.HandshakerReq) (handshakeStream, *altspb.HandshakerResp,
	error) {
	giveUp := time.Now().Add(daemonWait)
	for {
		stream, resp, err := d.tryBegin(ctx, start)
		if err == nil || ctx.Err() != nil {
			return stream, resp, err
		}
		var noDaemon *NoDaemonError
		if !errors.As(err, &noDaemon) {
			if !stopping(err) {
				return nil, nil, err
			}
			noDaemon = &NoDaemonError{Socket: d.key.socket, Err: err}
		}
		var untrusted *localsock.UntrustedError
		if dialErr := d.dialErr.Load(); dialErr != nil {
			noDaemon.Err = *dialErr
		}
		if errors.As(noDaemon.Err, &untrusted) || errors.Is(noDaemon.Err, errIdentityChanged) ||
			errors.Is(noDaemon.Err, os.ErrPermission) || time.Now().After(giveUp) {
			return nil, nil, err
		}
		select {
		case <-time.After(daemonRetry):
			d.rpc.ResetConnectBackoff()
		case <-ctx.Done():
			return nil, nil, err
		}
	}
}

func (d *daemonConn) tryBegin(ctx context.Context, start *altspb.HandshakerReq) (handshakeStream,
	*altspb.HandshakerResp, error) {
	s, err := d.rpc.NewStream(ctx, streamDesc, altspb.FullMethod)
	if err != nil {
		return nil, nil, rpcError(d.key.socket, err)
	}
	stream := &grpc.GenericClientStream[altspb.HandshakerReq, altspb.HandshakerResp]{ClientStream: s}
	resp, err := d.exchange(stream, start)
	return stream, resp, err
}

// exchange sends a request and receives its response.
func (d *daemonConn) exchange(stream handshakeStream, req *altspb.HandshakerReq) (*altspb.HandshakerResp, error) {
	// If the stream has ended, Send says only io.EOF and Recv says why.
	_ = stream.Send(req)
	resp, err := stream.Recv()
	if err != nil {
		return nil, rpcError(d.key.socket, err)
	}
	if st := resp.GetStatus(); st.GetCode() != 0 {
		return nil, unexplainedError(d.key.socket, status.Error(codes.Code(st.GetCode()), st.GetDetails()))
	}
	return resp, nil
}

// readFrames reads into buf behind the n bytes that it holds, until the frames of shared-altsd's handshake in it are
// whole, to spare the daemon from seeing parts, or once if the bytes are anything else. It returns how many buf holds.
func readFrames(raw net.Conn, buf []byte, n int) (int, error) {
	for {
		m, err := raw.Read(buf[n:])
		if n += m; m == 0 && err != nil {
			return n, err
		}
		if n == len(buf) || !partialFrame(buf[:n]) {
			return n, nil
		}
	}
}

// partialFrame reports whether b begins with frames of docs/spec/protocol.md, section 3, the last of which is not whole yet.
// What is not such a frame, or may never become one, is for the daemon to judge at once.
func partialFrame(b []byte) bool {
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

// frameEnd returns where the frame that b begins with ends, or its header while that is not whole.
func frameEnd(b []byte) int {
	const header = 8
	if len(b) < header {
		return header
	}
	return header + int(binary.BigEndian.Uint16(b[6:]))
}

// magic begins each frame of the handshake (docs/spec/protocol.md, section 3).
const magic = "salt"

func magicPrefix(b []byte) bool {
	n := min(len(b), len(magic))
	return string(b[:n]) == magic[:n]
}
