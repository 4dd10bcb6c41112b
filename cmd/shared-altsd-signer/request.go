package main

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"fmt"
	"io"
	"os"

	"github.com/shared-altsd/shared-altsd/certbind"
	"github.com/shared-altsd/shared-altsd/internal/ascii"
	"github.com/shared-altsd/shared-altsd/internal/cli"
	"github.com/shared-altsd/shared-altsd/internal/signer"
)

var requestCommand = &cli.Command{
	Name:    "request",
	Args:    cli.Args{Text: "NAME..."},
	Summary: "print a request for the machine's certificate, signed by the key",
	About: `
Prints a certificate request (PKCS #10) in PEM for the DNS names given, the machine's own first, with the key usage that
peers demand. It works on the device itself, as root: a signer that serves signs no such thing. With RSA the request is
signed by RSASSA-PSS.

  shared-altsd-signer request --key handle:0x81000100 alpha.example.com >machine.csr`,
	Config: configFile,
	Setup: func() ([]cli.Option, func([]string) error) {
		c := new(serveFlags)
		return c.options(), func(names []string) error {
			if err := c.checkKey(); err != nil {
				return err
			}
			if len(names) == 0 {
				return cli.Usagef("NAME is missing: give the machine's DNS name, as its peers know it")
			}
			for i, name := range names {
				names[i] = ascii.Lower(name)
				if err := certbind.ValidMachineName(names[i]); err != nil {
					return cli.Usagef("NAME %q: %v", name, err)
				}
			}
			return c.withKey(func(ctx context.Context, key signer.Key) error {
				der, err := newRequest(ctx, key, names)
				if err != nil {
					return err
				}
				return pem.Encode(os.Stdout, &pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
			})
		}
	},
}

// newRequest returns a request for names, signed by the key.
func newRequest(ctx context.Context, key signer.Key, names []string) ([]byte, error) {
	// digitalSignature, critical.
	usage := pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 15}, Critical: true, Value: []byte{asn1.TagBitString, 2, 7, 0x80}}
	template := &x509.CertificateRequest{DNSNames: names, ExtraExtensions: []pkix.Extension{usage}}
	// A subject's name is no longer than this; the alternative names are what counts.
	const longest = 64
	if len(names[0]) <= longest {
		template.Subject.CommonName = names[0]
	}
	if _, ok := key.Public().(*rsa.PublicKey); ok {
		template.SignatureAlgorithm = x509.SHA256WithRSAPSS
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, template, signing{ctx, key})
	if err != nil {
		return nil, fmt.Errorf("the key does not sign the request: %w", err)
	}
	return der, nil
}

// signing is a Key as crypto/x509 uses one.
type signing struct {
	ctx context.Context
	key signer.Key
}

func (s signing) Public() crypto.PublicKey { return s.key.Public() }

func (s signing) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	return s.key.Sign(s.ctx, digest, opts)
}
