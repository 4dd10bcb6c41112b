package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"

	"github.com/shared-altsd/shared-altsd/internal/rawcodec"
)

const (
	// appArgument is the first argument of this program as client or server; the second is an app as JSON.
	appArgument = "app"
	// patience bounds a channel, so that one that hangs is an error.
	patience = 30 * time.Second
	// messageSize is that of a message of the bulk measure, in bytes; warmUp come before the clock starts.
	messageSize = 1 << 20
	warmUp      = 16
	method      = "/bench.Bench/Take"
)

// An app is a client or a server, which does what its standard input says, and ends with that.
type app struct {
	Variant      string
	Machine      string // whose certificate it has, if it needs one itself
	Certificates string // directory
	Socket       string // of the machine's daemon
	Addr         string // of the server, for the client
	Target       string // account that the server must be
	held         []*grpc.ClientConn
}

// A request has an app do something.
type request struct {
	Do      string        // channels, connections, bulk, up, down, hold, drop or heap
	Dialers int           // at once
	For     time.Duration // and not longer than it takes to end what was begun
	N       int           // channels or connections to hold
}

// An answer says what came of a request.
type answer struct {
	Addr string        // the server's first word
	N    int           // channels, MiB or bytes of memory
	Took time.Duration // for all of them
	Err  string
}

// An end is the client or the server of a variant.
type end interface {
	server() bool
	serve() (addr string, err error)
	do(request) (n int, took time.Duration, err error)
}

// runEnd has e, which the text describes, do what is asked.
func runEnd(e end, text string) {
	in, out := json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout)
	err := json.Unmarshal([]byte(text), e)
	if err == nil && e.server() {
		var addr string
		addr, err = e.serve()
		out.Encode(answer{Addr: addr})
	}
	for err == nil {
		var r request
		if err = in.Decode(&r); err != nil {
			break
		}
		n, took, err := e.do(r)
		reply := answer{N: n, Took: took}
		if err != nil {
			reply.Err = err.Error()
		}
		out.Encode(reply)
	}
	if err != io.EOF {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func (a *app) server() bool { return a.Addr == "" }

func (a *app) do(r request) (n int, took time.Duration, err error) {
	switch r.Do {
	case "channels":
		return a.channels(r.Dialers, r.For)
	case "bulk":
		return a.bulk(r.For)
	case "hold":
		return a.hold(r.N)
	case "drop":
		for _, cc := range a.held {
			cc.Close()
		}
		a.held = nil
		return 0, 0, nil
	case "heap":
		for range 3 { // pools keep what they hold over one collection
			runtime.GC()
		}
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int(m.HeapAlloc + m.StackInuse), 0, nil
	}
	return 0, 0, fmt.Errorf("no request %q", r.Do)
}

// serve takes messages, and answers a stream with one byte when it has them all.
func (a *app) serve() (addr string, err error) {
	creds, err := a.credentials()
	if err != nil {
		return "", err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	server := grpc.NewServer(grpc.Creds(creds), grpc.MaxRecvMsgSize(2*messageSize), grpc.ForceServerCodecV2(rawcodec.Codec{}),
		grpc.UnknownServiceHandler(func(_ any, s grpc.ServerStream) error {
			for n := 0; ; {
				if err := s.RecvMsg(&n); err == io.EOF {
					return s.SendMsg(&[]byte{1})
				} else if err != nil {
					return err
				}
			}
		}))
	go server.Serve(l) // until the process ends
	return l.Addr().String(), nil
}

// channel opens one and has its first answer.
func (a *app) channel(dial func() (*grpc.ClientConn, error)) (*grpc.ClientConn, error) {
	cc, err := dial()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var n int
	if err := cc.Invoke(ctx, method, &[]byte{1}, &n); err != nil {
		cc.Close()
		return nil, err
	}
	return cc, nil
}

// dialer makes the credentials, and returns what makes channels with them.
func (a *app) dialer() (func() (*grpc.ClientConn, error), error) {
	creds, err := a.credentials()
	return func() (*grpc.ClientConn, error) {
		return grpc.NewClient(a.Addr, grpc.WithTransportCredentials(creds),
			grpc.WithDefaultCallOptions(grpc.ForceCodecV2(rawcodec.Codec{})))
	}, err
}

// channels opens and closes channels, by that many dialers at once of which each does so at least once. The first
// error ends it.
func (a *app) channels(dialers int, d time.Duration) (n int, took time.Duration, err error) {
	began := time.Now()
	dial, err := a.dialer()
	if err != nil {
		return 0, 0, err
	}
	n, err = again(dialers, began, d, func() error {
		cc, err := a.channel(dial)
		if err != nil {
			return fmt.Errorf("channel: %w", err)
		}
		return cc.Close()
	})
	return n, time.Since(began), err
}

// again has so many at once do one after the other, at least once each, for d since began or until the first error.
func again(atOnce int, began time.Time, d time.Duration, one func() error) (n int, err error) {
	var done atomic.Int64
	var failed atomic.Pointer[error]
	var wg sync.WaitGroup
	for range atOnce {
		wg.Go(func() {
			for more := true; more; more = failed.Load() == nil && time.Since(began) < d {
				if err := one(); err != nil {
					failed.CompareAndSwap(nil, &err)
					return
				}
				done.Add(1)
			}
		})
	}
	wg.Wait()
	if err := failed.Load(); err != nil {
		return 0, *err
	}
	return int(done.Load()), nil
}

// hold opens n channels and keeps them.
func (a *app) hold(n int) (int, time.Duration, error) {
	began := time.Now()
	dial, err := a.dialer()
	if err != nil {
		return 0, 0, err
	}
	for range n {
		cc, err := a.channel(dial)
		if err != nil {
			return 0, 0, fmt.Errorf("channel %d: %w", len(a.held)+1, err)
		}
		a.held = append(a.held, cc)
	}
	return n, time.Since(began), nil
}

// bulk sends messages on one stream.
func (a *app) bulk(d time.Duration) (messages int, took time.Duration, err error) {
	dial, err := a.dialer()
	if err != nil {
		return 0, 0, err
	}
	cc, err := a.channel(dial)
	if err != nil {
		return 0, 0, err
	}
	defer cc.Close()
	message := make([]byte, messageSize)
	// send has one stream be sent and answered.
	send := func(more func(sent int) bool) (sent int, err error) {
		ctx, cancel := context.WithTimeout(context.Background(), d+patience)
		defer cancel()
		s, err := cc.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true}, method)
		for ; err == nil && more(sent); sent++ {
			err = s.SendMsg(&message)
		}
		if err == nil {
			err = s.CloseSend()
		}
		if err == nil || err == io.EOF { // then the server has an error for us
			err = s.RecvMsg(new(int))
		}
		return sent, err
	}
	if _, err := send(func(sent int) bool { return sent < warmUp }); err != nil {
		return 0, 0, err
	}
	began := time.Now()
	messages, err = send(func(sent int) bool { return sent == 0 || time.Since(began) < d })
	return messages, time.Since(began), err
}
