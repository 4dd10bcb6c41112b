package signer

import (
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/shared-altsd/shared-altsd/internal/safepath"
)

const (
	maxFile = 1 << 20
	// keptOn is how long a certificate that is in the file no more is signed for: until its successor is in force, the daemon
	// speaks by it.
	keptOn = 10 * time.Minute
	// maxLeaves bounds the certificates of one key.
	maxLeaves = 16
)

// certificates are those of one key, in a file that changes.
type certificates struct {
	path string
	key  interface{ Equal(crypto.PublicKey) bool }
	now  func() time.Time

	mu     sync.Mutex
	sum    [32]byte // of the file when it was read
	leaves []*leafCertificate
}

type leafCertificate struct {
	*x509.Certificate
	hash [32]byte
	gone time.Time // since when it is not in the file; zero if it is
}

// of returns the certificate of a hash, which is that of a leaf.
func (c *certificates) of(hash [32]byte) (*x509.Certificate, error) {
	failure := c.look()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, l := range c.leaves {
		if l.hash == hash && (l.gone.IsZero() || c.now().Sub(l.gone) < keptOn) {
			return l.Certificate, nil
		}
	}
	if failure != nil {
		return nil, fmt.Errorf("the signer's certificates: %w", failure)
	}
	return nil, fmt.Errorf("the statement is for a certificate that is none of this key in %s: give daemon and signer the same "+
		"certificates, those of the signer's key", c.path)
}

// last returns the certificate that ends last.
func (c *certificates) last() *x509.Certificate {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.MaxFunc(c.leaves, func(a, b *leafCertificate) int { return a.NotAfter.Compare(b.NotAfter) }).Certificate
}

// look reads the file. On an error what was read before stays.
func (c *certificates) look() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	data, _, err := safepath.ReadOwn(c.path, maxFile, "could have statements signed for another certificate")
	if err != nil {
		return err
	}
	sum := sha256.Sum256(data)
	if sum == c.sum && c.leaves != nil {
		return nil
	}
	leaves, err := c.parse(data)
	if err != nil {
		return fmt.Errorf("%s: %w", c.path, err)
	}
	for _, old := range c.leaves {
		if slices.ContainsFunc(leaves, func(l *leafCertificate) bool { return l.hash == old.hash }) {
			continue
		}
		if old.gone.IsZero() {
			old.gone = c.now()
		}
		if c.now().Sub(old.gone) < keptOn && len(leaves) < maxLeaves {
			leaves = append(leaves, old)
		}
	}
	c.leaves, c.sum = leaves, sum
	return nil
}

// parse returns the certificates of the key.
func (c *certificates) parse(data []byte) (leaves []*leafCertificate, err error) {
	others := 0
	for {
		var b *pem.Block
		if b, data = pem.Decode(data); b == nil {
			break
		}
		switch {
		case strings.HasSuffix(b.Type, "PRIVATE KEY"):
			return nil, errors.New("it holds a private key, which belongs to no signer's certificates: take it out")
		case b.Type != "CERTIFICATE":
			continue
		}
		cert, err := x509.ParseCertificate(b.Bytes)
		if err != nil {
			return nil, fmt.Errorf("a certificate does not parse: have it issued anew: %w", err)
		}
		if cert.PublicKey == nil || !c.key.Equal(cert.PublicKey) {
			others++
			continue
		}
		if len(leaves) == maxLeaves {
			return nil, fmt.Errorf("it has more than %d certificates of the key: leave those that are in use", maxLeaves)
		}
		leaves = append(leaves, &leafCertificate{Certificate: cert, hash: sha256.Sum256(cert.Raw)})
	}
	if len(leaves) == 0 {
		return nil, fmt.Errorf("none of its %d certificates is of the signer's key: have one issued for that key, or name the key "+
			"that they were issued for", others)
	}
	return leaves, nil
}
