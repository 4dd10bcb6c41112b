package altscreds_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/shared-altsd/shared-altsd/altscreds"
)

// A gRPC client that talks only to the account "backup" on one machine.
func ExampleNewClientCredentials() {
	creds, err := altscreds.NewClientCredentials(altscreds.ClientOptions{
		TargetAccounts: []string{"backup@store.example.com"},
	})
	if err != nil {
		log.Fatal(err)
	}
	conn, err := grpc.NewClient("store.example.com:7000", grpc.WithTransportCredentials(creds))
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	if _, err := healthpb.NewHealthClient(conn).Check(context.Background(), &healthpb.HealthCheckRequest{}); err != nil {
		log.Fatal(err)
	}
}

// A gRPC server that lets alice, from any machine of the cluster, call everything, and everybody ask for its health.
func ExampleNewServerCredentials() {
	creds, err := altscreds.NewServerCredentials(altscreds.ServerOptions{})
	if err != nil {
		log.Fatal(err)
	}
	authorizer, err := altscreds.NewAuthorizer(
		altscreds.Rule{Accounts: []string{"alice@*.cluster.example.com"}},
		altscreds.Rule{AnyAccount: true, Methods: []string{"/grpc.health.v1.Health/*"}},
	)
	if err != nil {
		log.Fatal(err)
	}
	server := grpc.NewServer(
		grpc.Creds(creds),
		grpc.ChainUnaryInterceptor(authorizer.UnaryInterceptor),
		grpc.ChainStreamInterceptor(authorizer.StreamInterceptor),
	)
	healthpb.RegisterHealthServer(server, health.NewServer())
	listener, err := net.Listen("tcp", ":7000")
	if err != nil {
		log.Fatal(err)
	}
	log.Fatal(server.Serve(listener))
}

// In a handler, to decide by more than a rule can say.
func ExamplePeerFromContext() {
	handler := func(ctx context.Context) error {
		peer, ok := altscreds.PeerFromContext(ctx)
		if !ok {
			return errors.New("not authenticated")
		}
		if uid, ok := peer.UID(); ok {
			log.Printf("%s on %s, uid %d, groups %v", peer.User, peer.Machine, uid, peer.Groups())
		}
		return nil
	}
	_ = handler
}

// Rules are conditions that must all be met; a mistake in one is an error at the start.
func ExampleNewAuthorizer() {
	_, err := altscreds.NewAuthorizer(altscreds.Rule{Groups: []string{"operators"}})
	fmt.Println(err)
	_, err = altscreds.NewAuthorizer(altscreds.Rule{Groups: []string{"operators"}, Machines: []string{"*.example.com"}})
	fmt.Println(err)
	// Output:
	// altscreds: rule 1: Groups needs Accounts or Machines: any machine can claim any group
	// <nil>
}

// An HTTP server whose handlers know the account that calls.
func ExampleListen() {
	listener, err := altscreds.Listen("tcp", ":8080", altscreds.ServerOptions{ApplicationProtocols: []string{"http/1.1"}})
	if err != nil {
		log.Fatal(err)
	}
	server := &http.Server{
		ReadHeaderTimeout: 10 * time.Second,
		ConnContext:       altscreds.ConnContext,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			peer, ok := altscreds.PeerFromContext(r.Context())
			if !ok || peer.User != "alice" {
				http.Error(w, "not for you", http.StatusForbidden)
				return
			}
			fmt.Fprintln(w, "hello,", peer.Account)
		}),
	}
	log.Fatal(server.Serve(listener))
}

// The client of that server; database drivers take such a function as well.
func ExampleDialer() {
	dialer := &altscreds.Dialer{Options: altscreds.ClientOptions{
		TargetAccounts:       []string{"web@store.example.com"},
		ApplicationProtocols: []string{"http/1.1"},
	}}
	client := &http.Client{Transport: &http.Transport{DialContext: dialer.DialContext}}
	resp, err := client.Get("http://store.example.com:8080/")
	if err != nil {
		log.Fatal(err)
	}
	resp.Body.Close()
}

// A connection whose end is authenticated.
func ExampleDial() {
	protocol, err := altscreds.ServiceProtocol("notes")
	if err != nil {
		log.Fatal(err)
	}
	conn, err := altscreds.Dial("tcp", "store.example.com:9000", altscreds.ClientOptions{
		TargetAccounts:       []string{"backup@store.example.com"},
		ApplicationProtocols: []string{protocol},
	})
	switch {
	case errors.Is(err, altscreds.ErrNoDaemon):
		log.Fatal("is shared-altsd running? ", err)
	case errors.Is(err, altscreds.ErrPeerRejected):
		log.Fatal("they do not want us: ", err)
	case err != nil:
		log.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintln(conn, "hello,", conn.Peer().User)
	if err := conn.CloseWrite(); err != nil {
		log.Fatal(err)
	}
	answer, err := io.ReadAll(conn) // no error: the peer has ended, nobody has cut it
	fmt.Printf("%s %v\n", answer, err)
}

// A connection that exists already, as after a proxy's greeting.
func ExampleClient() {
	raw, err := net.Dial("tcp", "proxy.example.com:1080")
	if err != nil {
		log.Fatal(err)
	}
	conn := altscreds.Client(raw, altscreds.ClientOptions{
		TargetAccounts:       []string{"backup@store.example.com"},
		ApplicationProtocols: []string{"notes/1"},
	})
	defer conn.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := conn.HandshakeContext(ctx); errors.Is(err, altscreds.ErrTimeout) {
		log.Fatal("the peer does not answer: ", err)
	} else if err != nil {
		log.Fatal(err)
	}
	fmt.Println("talking to", conn.Peer())
}

// A server that takes plaintext beside ALTS while its clients move in.
func ExampleMixed() {
	mixed := &altscreds.Mixed{
		Plaintext: true, // or TLS: the configuration that the server had; Strict: true when all have moved
		OnUnauthenticated: func(kind string, remote net.Addr, accepted bool) {
			log.Printf("%s still speaks %s", remote, kind)
		},
	}
	creds, err := altscreds.NewServerCredentials(altscreds.ServerOptions{Mixed: mixed})
	if err != nil {
		log.Fatal(err)
	}
	authorizer, err := altscreds.NewAuthorizer(
		altscreds.Rule{AnyAccount: true},
		altscreds.Rule{Unauthenticated: []string{altscreds.KindPlaintext}, Methods: []string{"/grpc.health.v1.Health/*"}},
	)
	if err != nil {
		log.Fatal(err)
	}
	var _ credentials.TransportCredentials = creds
	grpc.NewServer(grpc.Creds(creds), grpc.ChainUnaryInterceptor(authorizer.UnaryInterceptor))
	fmt.Printf("%+v\n", mixed.Counts())
	// Output: {ALTS:0 TLS:0 Plaintext:0 Refused:0}
}
