package altscreds_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/shared-altsd/shared-altsd/altscreds"
	"github.com/shared-altsd/shared-altsd/internal/testca"
	"github.com/shared-altsd/shared-altsd/internal/testmachine"
)

// serverTLS returns an ordinary TLS server and a client that trusts it.
func serverTLS() (client, server *tls.Config) {
	pool := x509.NewCertPool()
	pool.AddCert(testmachine.CA().Cert)
	issued := must(testmachine.CA().Issue(testca.Leaf{Hosts: []string{"node2.example.com"}, IPs: loopback}))
	return &tls.Config{RootCAs: pool},
		&tls.Config{Certificates: []tls.Certificate{must(tls.X509KeyPair(issued.CertPEM, issued.KeyPEM))}}
}

func TestMixedGRPC(t *testing.T) {
	cs, ss := twoMachines(t)
	clientTLS, server := serverTLS()
	clients := map[string]credentials.TransportCredentials{
		"alts": ourClient(cs, alice2), altscreds.KindTLS: credentials.NewTLS(clientTLS),
		altscreds.KindPlaintext: insecure.NewCredentials(),
	}
	for _, test := range []struct {
		name  string
		mixed *altscreds.Mixed
		rules []altscreds.Rule
		want  map[string]codes.Code
		count altscreds.MixedCounts
	}{
		{"all, none allowed by name", &altscreds.Mixed{TLS: server, Plaintext: true}, []altscreds.Rule{{AnyAccount: true}}, map[string]codes.Code{"alts": codes.OK, "tls": codes.PermissionDenied, "plaintext": codes.PermissionDenied}, altscreds.MixedCounts{ALTS: 1, TLS: 1, Plaintext: 1}},
		{"all, TLS allowed by name", &altscreds.Mixed{TLS: server, Plaintext: true}, []altscreds.Rule{{AnyAccount: true}, {Unauthenticated: []string{"tls"}}}, map[string]codes.Code{"alts": codes.OK, "tls": codes.OK, "plaintext": codes.PermissionDenied}, altscreds.MixedCounts{ALTS: 1, TLS: 1, Plaintext: 1}},
		{"strict", &altscreds.Mixed{TLS: server, Plaintext: true, Strict: true}, []altscreds.Rule{{AnyAccount: true}, {Unauthenticated: []string{"tls", "plaintext"}}}, map[string]codes.Code{"alts": codes.OK, "tls": codes.Unavailable, "plaintext": codes.Unavailable}, altscreds.MixedCounts{ALTS: 1, Refused: 2}},
		{"neither", &altscreds.Mixed{}, []altscreds.Rule{{Unauthenticated: []string{"tls", "plaintext"}}}, map[string]codes.Code{"alts": codes.PermissionDenied, "tls": codes.Unavailable, "plaintext": codes.Unavailable}, altscreds.MixedCounts{ALTS: 1, Refused: 2}},
	} {
		t.Run(test.name, func(t *testing.T) {
			var mu sync.Mutex
			seen := map[string]bool{}
			test.mixed.OnUnauthenticated = func(kind string, remote net.Addr, accepted bool) {
				mu.Lock()
				defer mu.Unlock()
				seen[kind] = accepted
			}
			a := must(altscreds.NewAuthorizer(test.rules...))
			creds := must(altscreds.NewServerCredentials(altscreds.ServerOptions{Socket: ss, Mixed: test.mixed}))
			addr := echoServer(t, creds, func(ctx context.Context) error {
				p, _ := peer.FromContext(ctx)
				if u, ok := p.AuthInfo.(altscreds.Unauthenticated); ok && u.Kind == altscreds.KindTLS {
					if _, ok := u.Inner.(credentials.TLSInfo); !ok || u.AuthType() != "unauthenticated-tls" {
						return errors.New("TLS is not told")
					}
				}
				return nil
			}, grpc.ChainUnaryInterceptor(a.UnaryInterceptor), grpc.ChainStreamInterceptor(a.StreamInterceptor))
			for kind, creds := range clients {
				cc := must(grpc.NewClient(addr, grpc.WithTransportCredentials(creds)))
				err := call(cc, 100)
				if status.Code(err) != test.want[kind] {
					t.Errorf("%s: %v", kind, err)
				}
				if text := status.Convert(err).Message(); status.Code(err) == codes.PermissionDenied &&
					(!strings.Contains(text, echoMethod) || kind != "alts" && !strings.Contains(text,
						"unauthenticated caller ("+kind+")")) {
					t.Errorf("%s: the text is %q", kind, text)
				}
				s, err := cc.NewStream(context.Background(), &grpc.StreamDesc{ServerStreams: true, ClientStreams: true},
					streamMethod)
				if err == nil {
					s.CloseSend()
					err = s.RecvMsg(nil)
				}
				if want := test.want[kind]; want == codes.OK && err != io.EOF || want != codes.OK && status.Code(err) != want {
					t.Errorf("%s: stream: %v", kind, err)
				}
				cc.Close()
			}
			got := test.mixed.Counts()
			if test.count.Refused > 0 { // refused clients try again
				if got.Refused < test.count.Refused {
					t.Errorf("%+v", got)
				}
				got.Refused = test.count.Refused
			}
			if got != test.count {
				t.Errorf("%+v, not %+v", got, test.count)
			}
			mu.Lock()
			defer mu.Unlock()
			for _, kind := range []string{"tls", "plaintext"} {
				if accepted, ok := seen[kind]; !ok || accepted != (test.count.Refused == 0) {
					t.Errorf("%s: told %v, %v", kind, accepted, ok)
				}
			}
		})
	}
}

// TestMixedHTTP has one net/http server take ALTS, TLS and plaintext.
func TestMixedHTTP(t *testing.T) {
	cs, ss := twoMachines(t)
	clientTLS, server := serverTLS()
	mixed := &altscreds.Mixed{TLS: server, Plaintext: true}
	l := must(altscreds.Listen("tcp", "127.0.0.1:0", altscreds.ServerOptions{ApplicationProtocols: spoken, Socket: ss, Mixed: mixed}))
	srv := &http.Server{ConnContext: altscreds.ConnContext, Handler: http.HandlerFunc(func(w http.ResponseWriter,
		r *http.Request) {
		if p, ok := altscreds.PeerFromContext(r.Context()); ok {
			io.WriteString(w, p.Account)
		} else {
			io.WriteString(w, "nobody")
		}
	})}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	defer func() {
		srv.Close()
		<-served
	}()
	dialer := altscreds.Dialer{Options: altscreds.ClientOptions{ApplicationProtocols: spoken, Socket: cs, TargetAccounts: []string{alice2}}}
	for _, test := range []struct {
		transport *http.Transport
		url, want string
	}{
		{&http.Transport{DialContext: dialer.DialContext}, "http://", bob1},
		{&http.Transport{TLSClientConfig: clientTLS}, "https://", "nobody"},
		{&http.Transport{}, "http://", "nobody"},
	} {
		resp, err := (&http.Client{Transport: test.transport}).Get(test.url + l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || string(body) != test.want {
			t.Errorf("%q, %v; not %q", body, err, test.want)
		}
		test.transport.CloseIdleConnections()
	}
	if got := mixed.Counts(); got != (altscreds.MixedCounts{ALTS: 1, TLS: 1, Plaintext: 1}) {
		t.Errorf("%+v", got)
	}
}

// TestMixedConn: half close, AuthInfo and errors of connections that are not ALTS.
func TestMixedConn(t *testing.T) {
	_, ss := twoMachines(t)
	infos := make(chan credentials.AuthInfo, 1)
	errs := make(chan error, 1)
	mixed := &altscreds.Mixed{Plaintext: true}
	addr := listen(t, altscreds.ServerOptions{ApplicationProtocols: spoken, Socket: ss, Mixed: mixed}, func(c *altscreds.Conn) {
		errs <- c.Handshake()
		infos <- c.AuthInfo()
		echo(c)
	})
	raw := must(net.Dial("tcp", addr))
	defer raw.Close()
	io.WriteString(raw, "hello")
	raw.(*net.TCPConn).CloseWrite()
	if got, err := io.ReadAll(raw); err != nil || string(got) != "hello" {
		t.Errorf("%q, %v", got, err)
	}
	if err := <-errs; err != nil {
		t.Error(err)
	}
	u, ok := (<-infos).(altscreds.Unauthenticated)
	if !ok || u.Kind != altscreds.KindPlaintext || u.GetCommonAuthInfo().SecurityLevel != credentials.NoSecurity {
		t.Errorf("%+v", u)
	}
	raw = must(net.Dial("tcp", addr))
	defer raw.Close()
	raw.Write([]byte{0x16})
	if err := <-errs; !errors.Is(err, altscreds.ErrUnauthenticated) {
		t.Error(err)
	}
	if info := <-infos; info != nil {
		t.Errorf("%+v", info)
	}
}
