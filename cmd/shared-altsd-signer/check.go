package main

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/shared-altsd/shared-altsd/internal/cli"
	"github.com/shared-altsd/shared-altsd/internal/nodumps"
	"github.com/shared-altsd/shared-altsd/internal/signer"
)

// checkPatience is how long a device may take for opening and one signature.
const checkPatience = time.Minute

var checkCommand = &cli.Command{
	Name:    "check",
	Summary: "see whether the key can be used and the certificate is its own",
	About: `
Opens the key as serve would, sees that it is the one of the certificate, and has it sign an empty statement, which says
nothing. Exit status 1, with the reason and its cure, if it cannot be used. A PIN that is wrong counts as a wrong one.

  shared-altsd-signer check --key handle:0x81000100 --certificates /etc/shared-altsd/machine.pem`,
	Config: configFile,
	Setup: func() ([]cli.Option, func([]string) error) {
		c := new(serveFlags)
		return c.options(), func([]string) error {
			if err := c.check(); err != nil {
				return err
			}
			return c.withKey(c.prove)
		}
	},
}

// withKey has work done with the key, opened as serve opens it.
func (c *serveFlags) withKey(work func(context.Context, signer.Key) error) error {
	if err := nodumps.Set(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), checkPatience)
	defer cancel()
	key, err := c.opener()(ctx)
	if err != nil {
		return err
	}
	defer key.Close() // the end of the process closes what is left
	return work(ctx, key)
}

// prove says whether the key signs, for a certificate of its own.
func (c *serveFlags) prove(ctx context.Context, key signer.Key) error {
	s, err := signer.New(signer.Config{Key: key, Certificates: c.certificates, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	began := time.Now()
	if err := s.Prove(ctx); err != nil {
		return fmt.Errorf("the key does not sign: %w", err)
	}
	leaf := s.Leaf()
	fmt.Fprintf(os.Stdout, "key          %s in %s\ncertificate  %s, good until %s\nsignature    good, made in %v\n", kind(key.Public()), c.where(),
		strings.Join(leaf.DNSNames, ", "), leaf.NotAfter.UTC().Format(time.RFC3339), time.Since(began).Round(time.Millisecond))
	return nil
}

// kind names a key's kind.
func kind(public crypto.PublicKey) string {
	switch k := public.(type) {
	case *ecdsa.PublicKey:
		return k.Curve.Params().Name
	case ed25519.PublicKey:
		return "Ed25519"
	case *rsa.PublicKey:
		return fmt.Sprintf("RSA of %d bits", k.N.BitLen())
	}
	return "unknown"
}
