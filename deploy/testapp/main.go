// Testapp is the application of the deployment tests: a gRPC server that tells each caller who both are, and a client
// that makes channels to it and counts what comes out. Its identity is that of the account that runs it.
//
//	testapp serve [flags]     answers until SIGTERM
//	testapp call [flags]      makes channels, prints a Report as JSON; exit status 1 if one failed
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/alts"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/shared-altsd/shared-altsd/altscreds"
)

const method = "/shared_altsd.test.Introduction/Meet"

// A Report is what call prints.
type Report struct {
	Channels int            `json:"channels"` // made, each with its first RPC, or --keep: RPCs on one channel
	Failed   int            `json:"failed"`
	Errors   map[string]int `json:"errors,omitempty"`
	Peer     string         `json:"peer,omitempty"`    // whom this side saw
	SeenAs   string         `json:"seen_as,omitempty"` // whom the server saw
	SlowestM float64        `json:"slowest_ms"`
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "testapp:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) == 0 {
		return errors.New("give serve or call")
	}
	flags := flag.NewFlagSet(args[0], flag.ContinueOnError)
	socket := flags.String("socket", "", "socket of the daemon; the default is altscreds'")
	uid := flags.Uint("daemon-uid", 0, "uid of the daemon, besides root")
	address := flags.String("address", ":7500", "to listen on, or to call")
	target := flags.String("target", "", "account that the server has to be")
	duration := flags.Duration("for", 0, "how long to go on; 0: one channel")
	workers := flags.Int("workers", 1, "channels at a time")
	pause := flags.Duration("pause", 0, "between two channels of a worker")
	timeout := flags.Duration("timeout", 20*time.Second, "of a channel with its RPC")
	keep := flags.Bool("keep", false, "make all RPCs on one channel")
	stock := flags.Bool("stock", false, "use grpc-go's own ALTS credentials, as under shared-altsd exec")
	if err := flags.Parse(args[1:]); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	switch args[0] {
	case "serve":
		creds, err := serverCredentials(*stock, altscreds.ServerOptions{Socket: *socket, DaemonUID: uint32(*uid)})
		if err != nil {
			return err
		}
		return serve(ctx, *address, creds)
	case "call":
		c := &caller{address: *address, duration: *duration, pause: *pause, timeout: *timeout, keep: *keep, stock: *stock,
			options: altscreds.ClientOptions{Socket: *socket, DaemonUID: uint32(*uid), TargetAccounts: targets(*target)}}
		return c.run(ctx, *workers)
	}
	return fmt.Errorf("unknown command %q", args[0])
}

func targets(s string) []string {
	if s == "" {
		return nil
	}
	return strings.Split(s, ",")
}

func serverCredentials(stock bool, o altscreds.ServerOptions) (credentials.TransportCredentials, error) {
	if stock {
		return alts.NewServerCreds(alts.DefaultServerOptions()), nil
	}
	return altscreds.NewServerCredentials(o)
}

func clientCredentials(stock bool, o altscreds.ClientOptions) (credentials.TransportCredentials, error) {
	if stock {
		return alts.NewClientCreds(&alts.ClientOptions{TargetServiceAccounts: o.TargetAccounts}), nil
	}
	return altscreds.NewClientCredentials(o)
}

// account returns who is at the other end, whichever credentials said so.
func account(info credentials.AuthInfo) (string, error) {
	if p, ok := altscreds.PeerFromAuthInfo(info); ok {
		return p.Account, nil
	}
	if a, ok := info.(alts.AuthInfo); ok {
		return a.PeerServiceAccount(), nil
	}
	return "", errors.New("the peer is not authenticated")
}

func serve(ctx context.Context, address string, creds credentials.TransportCredentials) error {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	s := grpc.NewServer(grpc.Creds(creds))
	s.RegisterService(&grpc.ServiceDesc{
		ServiceName: "shared_altsd.test.Introduction", HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{{MethodName: "Meet", Handler: meet}},
	}, nil)
	defer context.AfterFunc(ctx, s.Stop)()
	fmt.Println("listening on", l.Addr())
	return s.Serve(l)
}

// meet answers with the caller's account.
func meet(_ any, ctx context.Context, dec func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
	if err := dec(new(emptypb.Empty)); err != nil {
		return nil, err
	}
	p, ok := peer.FromContext(ctx)
	if !ok {
		return nil, errors.New("no peer")
	}
	caller, err := account(p.AuthInfo)
	return wrapperspb.String(caller), err
}

type caller struct {
	address                  string
	options                  altscreds.ClientOptions
	duration, pause, timeout time.Duration
	keep, stock              bool

	mu     sync.Mutex
	report Report
}

func (c *caller) run(ctx context.Context, workers int) error {
	c.report.Errors = make(map[string]int)
	end := time.Now().Add(c.duration)
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			var kept *grpc.ClientConn
			defer func() {
				if kept != nil {
					kept.Close()
				}
			}()
			for {
				c.meet(ctx, &kept)
				if !time.Now().Before(end) || ctx.Err() != nil {
					return
				}
				select {
				case <-time.After(c.pause):
				case <-ctx.Done():
				}
			}
		})
	}
	wg.Wait()
	if err := json.NewEncoder(os.Stdout).Encode(c.report); err != nil {
		return err
	}
	if c.report.Failed > 0 {
		return fmt.Errorf("%d of %d failed", c.report.Failed, c.report.Channels)
	}
	return nil
}

// meet makes a channel, or uses the kept one, and calls the server.
func (c *caller) meet(ctx context.Context, kept **grpc.ClientConn) {
	began := time.Now()
	peer, seenAs, err := func() (peer, seenAs string, err error) {
		conn := *kept
		if conn == nil {
			creds, err := clientCredentials(c.stock, c.options)
			if err != nil {
				return "", "", err
			}
			connect := grpc.ConnectParams{Backoff: backoff.DefaultConfig, MinConnectTimeout: c.timeout}
			conn, err = grpc.NewClient(c.address, grpc.WithTransportCredentials(creds), grpc.WithConnectParams(connect),
				grpc.WithDisableServiceConfig()) // which would be asked of a DNS server outside
			if err != nil {
				return "", "", err
			}
			if c.keep {
				*kept = conn
			} else {
				defer conn.Close()
			}
		}
		return introduce(ctx, conn, c.timeout+time.Second) // the reason of a connection that timed out comes first
	}()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.report.Channels++
	c.report.SlowestM = max(c.report.SlowestM, float64(time.Since(began).Microseconds())/1000)
	if err != nil {
		c.report.Failed++
		c.report.Errors[status.Convert(err).Message()]++
		return
	}
	c.report.Peer, c.report.SeenAs = peer, seenAs
}

// introduce makes one RPC: whom did we meet, and as whom were we seen.
func introduce(ctx context.Context, conn *grpc.ClientConn, timeout time.Duration) (met, seenAs string, err error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	answer := new(wrapperspb.StringValue)
	var p peer.Peer
	if err := conn.Invoke(ctx, method, new(emptypb.Empty), answer, grpc.Peer(&p)); err != nil {
		return "", "", err
	}
	met, err = account(p.AuthInfo)
	return met, answer.Value, err
}
