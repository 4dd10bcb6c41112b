package certbind

import (
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/shared-altsd/shared-altsd/internal/ascii"
)

// ParsePublished reads from PEM what DNS is to vouch for: the certificate of the private key that stands there too, or the leaf
// of a chain without a key, or a public or private key alone, in a certificate that has nothing but its key. Of a private key
// nothing is kept.
func ParsePublished(data []byte) (*x509.Certificate, error) {
	blocks, err := pemBlocks(data)
	if err != nil {
		return nil, err
	}
	defer wipeKeyBlocks(blocks)
	var certs []*x509.Certificate
	var keys []crypto.PublicKey
	for _, b := range blocks {
		switch {
		case b.Type == "EC PARAMETERS":
		case b.Type == "CERTIFICATE":
			cert, err := x509.ParseCertificate(b.Bytes)
			if err != nil {
				return nil, fmt.Errorf("certificate %d %w", len(certs)+1, unusable(b.Bytes, "have it issued anew", err))
			}
			if !slices.ContainsFunc(certs, cert.Equal) {
				certs = append(certs, cert)
			}
		case b.Type == "PUBLIC KEY":
			key, err := x509.ParsePKIXPublicKey(b.Bytes)
			if err != nil {
				return nil, errors.New("the public key does not parse; copy the file anew")
			}
			keys = append(keys, key)
		case strings.HasSuffix(b.Type, "PRIVATE KEY"):
			key, err := parseKey(b)
			if err != nil {
				return nil, fmt.Errorf("cannot use the private key: %w", err)
			}
			keys = append(keys, key.Public())
			wipeKey(key)
		default:
			return nil, wrongBlock(b.Type)
		}
	}
	switch {
	case len(keys) > 1:
		return nil, fmt.Errorf("there are %d keys in it; leave only the one of the certificate", len(keys))
	case len(keys) == 0 && len(certs) == 0:
		return nil, errors.New("there is neither a certificate nor a key in it")
	case len(keys) == 0:
		return leafOf(certs), nil
	case len(certs) > 0:
		chain, _, err := orderChain(certs, keys[0])
		if err != nil {
			return nil, err
		}
		return chain[0], nil
	}
	spki, err := x509.MarshalPKIXPublicKey(keys[0])
	if err != nil {
		return nil, err
	}
	return &x509.Certificate{PublicKey: keys[0], RawSubjectPublicKeyInfo: spki}, nil
}

// leafOf returns the certificate that issued none of the others, or the first one if there are several such.
func leafOf(certs []*x509.Certificate) *x509.Certificate {
	var leaves []*x509.Certificate
	for _, c := range certs {
		if !slices.ContainsFunc(certs, func(other *x509.Certificate) bool { return other != c && issued(c, other) }) {
			leaves = append(leaves, c)
		}
	}
	if len(leaves) == 1 {
		return leaves[0]
	}
	return certs[0]
}

// PublishedName returns the name under which DNS can vouch for a certificate's machine: as Credential.MachineName has it, or
// where it has no alternative name at all the only common name of its subject.
func PublishedName(cert *x509.Certificate, override, fqdn string) (string, error) {
	if cert.Raw == nil {
		if override == "" {
			return "", curedBy(SettingMachineName, "a key alone does not say of which machine it is; name the machine")
		}
		return override, ValidMachineName(override)
	}
	if name := ascii.Lower(commonName(cert)); ValidMachineName(name) == nil && (override == "" || override == name) {
		return name, nil
	}
	return (&Credential{Leaf: cert}).MachineName(nil, override, fqdn)
}
