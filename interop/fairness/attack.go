package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/shared-altsd/shared-altsd/altscreds"
	"github.com/shared-altsd/shared-altsd/certbind"
	"github.com/shared-altsd/shared-altsd/noiseproto"
)

var allModes = []string{"own", "connect", "reset", "emptydata", "ping", "settings", "winupdate", "status", "bighdr", "cont", "m1",
	"limited", "uids"}

var describe = map[string]string{
	"quiet": "none", "spin": "burns its own processor (control)", "own": "connects and closes, at a socket of its own",
	"connect": "connects and closes", "reset": "rapid reset",
	"emptydata": "empty DATA", "ping": "PING", "settings": "SETTINGS", "winupdate": "WINDOW_UPDATE", "status": "asks for the status",
	"bighdr": "headers of 14 KB", "cont": "endless CONTINUATION", "m1": "replays message 1 to a server of its own",
	"limited": "empty DATA at a limited socket", "uids": "connects as 65536 nameless uids",
}

// attack does one thing as fast as can be until d is over.
func attack(mode, dir string, d time.Duration) error {
	end := time.Now().Add(d)
	socket := filepath.Join(dir, "run", "socket")
	var once func(until time.Time) error
	switch mode {
	case "spin":
		once = func(time.Time) error {
			for x := 1; x < 1_000_000; x++ {
				spun.Store(int64(x))
			}
			return nil
		}
	case "own": // what of "connect" is the kernel's, and no daemon's
		var err error
		if socket, err = ownSocket(); err != nil {
			return err
		}
		once = func(time.Time) error { return connectAndClose(socket) }
	case "uids":
		return asManyUIDs(socket, end)
	case "m1":
		return replays(socket, end)
	case "connect":
		once = func(time.Time) error { return connectAndClose(socket) }
	case "limited":
		mode, socket = "emptydata", filepath.Join(dir, "run", "limited")
		fallthrough
	default:
		once = func(until time.Time) error { return flood(mode, socket, until) }
	}
	var wg sync.WaitGroup
	for range *threads {
		wg.Go(func() {
			for time.Now().Before(end) {
				if once(end) != nil {
					time.Sleep(time.Millisecond)
				}
			}
		})
	}
	wg.Wait()
	return nil
}

var spun atomic.Int64

func connectAndClose(socket string) error {
	c, err := net.Dial("unix", socket)
	if err == nil {
		c.Close()
	}
	return err
}

// ownSocket returns a socket that accepts and closes, and does nothing else.
func ownSocket() (string, error) {
	name := fmt.Sprintf("@altsd-fairness-%d", syscall.Getpid())
	l, err := net.Listen("unix", name)
	if err != nil {
		return "", err
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	}()
	return name, nil
}

// flood sends the frames of a mode on one connection until it ends.
func flood(mode, socket string, end time.Time) error {
	c, err := net.Dial("unix", socket)
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(end)
	f := http2.NewFramer(c, c)
	if _, err := io.WriteString(c, http2.ClientPreface); err != nil {
		return err
	}
	if err := f.WriteSettings(); err != nil {
		return err
	}
	go io.Copy(io.Discard, c)
	var block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	headers := func(path string, more ...hpack.HeaderField) []byte {
		block.Reset()
		for _, h := range append([]hpack.HeaderField{{Name: ":method", Value: "POST"}, {Name: ":scheme", Value: "http"},
			{Name: ":path", Value: path}, {Name: ":authority", Value: "x"}, {Name: "content-type", Value: "application/grpc"},
			{Name: "te", Value: "trailers"}}, more...) {
			enc.WriteField(h)
		}
		return block.Bytes()
	}
	const (
		watch     = "/grpc.health.v1.Health/Watch"
		handshake = "/grpc.gcp.HandshakerService/DoHandshake"
	)
	open := func(id uint32, path string, end bool, more ...hpack.HeaderField) error {
		return f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: headers(path, more...), EndHeaders: true,
			EndStream: end})
	}
	switch mode {
	case "reset":
		for id := uint32(1); ; id += 2 {
			if err := open(id, handshake, false); err != nil {
				return err
			}
			if err := f.WriteRSTStream(id, http2.ErrCodeCancel); err != nil {
				return err
			}
		}
	case "bighdr":
		v := string(bytes.Repeat([]byte("x"), 14000))
		for id := uint32(1); ; id += 2 {
			if err := open(id, watch, true, hpack.HeaderField{Name: "x-a", Value: v, Sensitive: true}); err != nil {
				return err
			}
		}
	case "cont":
		f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: headers(watch)})
		for {
			if err := f.WriteContinuation(1, false, []byte{0x82}); err != nil {
				return err
			}
		}
	case "status":
		for id := uint32(1); ; id += 2 {
			if err := open(id, "/shared_altsd.admin.v1.Admin/Status", false); err != nil {
				return err
			}
			if err := f.WriteData(id, true, make([]byte, 5)); err != nil {
				return err
			}
			if id%400 == 399 { // within the streams that there may be
				time.Sleep(5 * time.Millisecond)
			}
			f.WriteWindowUpdate(0, 4096)
		}
	}
	if err := open(1, watch, false); err != nil {
		return err
	}
	f.WriteData(1, false, make([]byte, 5))
	var many bytes.Buffer
	g := http2.NewFramer(&many, nil)
	for range 500 {
		switch mode {
		case "emptydata":
			g.WriteData(1, false, nil)
		case "ping":
			g.WritePing(true, [8]byte{}) // an acknowledgement, for which grpc sets no bounds
		case "settings":
			g.WriteSettings(http2.Setting{ID: http2.SettingMaxFrameSize, Val: 16384})
		case "winupdate":
			g.WriteWindowUpdate(1, 1)
		default:
			return fmt.Errorf("no mode %q", mode)
		}
	}
	for {
		if _, err := c.Write(many.Bytes()); err != nil {
			return err
		}
	}
}

// asManyUIDs connects as each of 65536 uids in turn, as fast as can be.
func asManyUIDs(socket string, end time.Time) error {
	var mu sync.Mutex
	next := 0
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			runtime.LockOSThread() // a uid is a thread's
			for time.Now().Before(end) {
				mu.Lock()
				uid := nameless + next%65536
				next++
				mu.Unlock()
				syscall.RawSyscall(syscall.SYS_SETRESUID, ^uintptr(0), uintptr(uid), ^uintptr(0))
				fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_NONBLOCK, 0)
				if err == nil {
					err = syscall.Connect(fd, &syscall.SockaddrUnix{Name: socket})
					syscall.Close(fd)
				}
				syscall.RawSyscall(syscall.SYS_SETRESUID, ^uintptr(0), 0, ^uintptr(0))
				if err != nil {
					time.Sleep(time.Millisecond)
				}
			}
		})
	}
	wg.Wait()
	return nil
}

type nobody struct{}

func (nobody) Verify([]byte, [32]byte) (*certbind.Peer, error) { return nil, fmt.Errorf("nobody") }

// replays sends the same message 1 again and again to a server of the attacker's own account.
func replays(socket string, end time.Time) error {
	a := &certbind.Attestation{Identity: []byte{1}}
	a.Private[0], a.Public[0] = 8, 9
	h, err := noiseproto.New(noiseproto.Config{Initiator: true, Static: a, Verifier: nobody{}, Params: noiseproto.Params{
		ApplicationProtocols: []string{"grpc"}, RecordProtocols: []string{noiseproto.RecordProtocol}}})
	if err != nil {
		return err
	}
	m1, err := h.Start()
	if err != nil {
		return err
	}
	if n := binary.BigEndian.Uint16(m1[6:]); int(n)+8 != len(m1) {
		return fmt.Errorf("message 1 has %d bytes", len(m1))
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	go func() {
		for {
			raw, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer raw.Close()
				altscreds.Server(raw, altscreds.ServerOptions{ApplicationProtocols: protocols, Socket: socket, DaemonUID: daemonUID}).Handshake()
			}()
		}
	}()
	var wg sync.WaitGroup
	for range 2 * *threads {
		wg.Go(func() {
			for time.Now().Before(end) {
				c, err := net.Dial("tcp", l.Addr().String())
				if err != nil {
					continue
				}
				c.Write(m1)
				c.SetReadDeadline(end)
				io.ReadFull(c, make([]byte, 8))
				c.Close()
			}
		})
	}
	wg.Wait()
	return nil
}
