package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"os"
	"path/filepath"
	_ "unsafe" // for go:linkname

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/alts"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/shared-altsd/shared-altsd/altscreds"
	"github.com/shared-altsd/shared-altsd/internal/testca"
)

// A variant is a way to secure a channel.
type variant struct {
	Name  string
	over  string // its credentials
	key   string // of the machines' certificates
	base  string // the variant that it is compared with
	title string
}

const (
	insecureName, tlsName, oursName, stockName = "insecure", "tls", "altscreds", "stock"
	tlsRSA                                     = "tls-rsa"
)

var allVariants = []*variant{
	{insecureName, insecureName, testca.P256, tlsName, "insecure"},
	{tlsName, tlsName, testca.P256, tlsName, "mutual TLS"},
	{oursName, oursName, testca.P256, tlsName, "altscreds"},
	{stockName, stockName, testca.P256, tlsName, "stock grpc-go"},
	{tlsRSA, tlsName, testca.RSA2048, tlsRSA, "mutual TLS, RSA-2048"},
	{"altscreds-rsa", oursName, testca.RSA2048, tlsRSA, "altscreds, RSA-2048"},
	{"stock-rsa", stockName, testca.RSA2048, tlsRSA, "stock grpc-go, RSA-2048"},
}

func (v *variant) name() string { return v.Name }

// daemons reports whether the channel needs them.
func (v *variant) daemons() bool { return v.over == oursName || v.over == stockName }

//go:linkname vmOnGCP google.golang.org/grpc/credentials/alts.vmOnGCP
var vmOnGCP bool

// credentials returns those of an application, whose machine's certificate and CA are files of its directory.
func (a *app) credentials() (credentials.TransportCredentials, error) {
	var accounts []string
	if a.Target != "" {
		accounts = []string{a.Target}
	}
	client := a.Addr != ""
	switch v := find(allVariants, a.Variant); {
	case v.over == insecureName:
		return insecure.NewCredentials(), nil
	case v.over == tlsName:
		return mutualTLS(a.Certificates, a.Machine)
	case v.over == oursName && client:
		return altscreds.NewClientCredentials(altscreds.ClientOptions{Socket: a.Socket, TargetAccounts: accounts})
	case v.over == oursName:
		return altscreds.NewServerCredentials(altscreds.ServerOptions{Socket: a.Socket})
	}
	// Outside of Google's cloud these refuse to work; what asks for it has looked when the credentials are made.
	defer func() { vmOnGCP = true }()
	if client {
		return alts.NewClientCreds(&alts.ClientOptions{HandshakerServiceAddress: "unix:" + a.Socket,
			TargetServiceAccounts: accounts}), nil
	}
	return alts.NewServerCreds(&alts.ServerOptions{HandshakerServiceAddress: "unix:" + a.Socket}), nil
}

func mutualTLS(dir, machine string) (credentials.TransportCredentials, error) {
	c, err := tlsConfig(dir, machine)
	if err != nil {
		return nil, err
	}
	return credentials.NewTLS(c), nil
}

// tlsConfig is TLS 1.3 with certificates verified at both ends and Go's default, hybrid key exchange. No session is
// resumed.
func tlsConfig(dir, machine string) (*tls.Config, error) {
	own := filepath.Join(dir, machine+".pem")
	cert, err := tls.LoadX509KeyPair(own, own)
	if err != nil {
		return nil, err
	}
	ca, err := os.ReadFile(filepath.Join(dir, "ca.pem"))
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(ca) {
		return nil, errors.New("ca.pem has no certificate")
	}
	return &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{cert},
		RootCAs: pool, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert, SessionTicketsDisabled: true}, nil
}
