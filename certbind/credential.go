package certbind

import (
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/shared-altsd/shared-altsd/internal/ascii"
)

// A Credential is the machine's private key with the certificates that speak for it. It does not change once made, but
// by Wipe.
type Credential struct {
	// Chain is what travels: 1 to 4 certificates in DER, leaf first, each other one issued one before it, without roots;
	// 16384 bytes in all.
	Chain [][]byte
	// Leaf is the certificate of the key, Certificates the whole of Chain.
	Leaf         *x509.Certificate
	Certificates []*x509.Certificate
	// Signer signs with the private key.
	Signer StatementSigner
	// Warnings are clauses about certificates that were given and do not travel, mostly none.
	Warnings []string

	wiped atomic.Bool
	// proofs is how many signatures of prove are being made.
	proofs atomic.Int32
	last   atomic.Pointer[attempt]
	turns  *turns
}

// ParseCredential reads the machine's key and certificates from PEM, blocks in any order. keyPEM may be nil: then the
// key stands in certPEM. Keys are PKCS #8, PKCS #1 or SEC 1, not encrypted. The leaf is the certificate of the key;
// behind it stand all that issued one of the chain, as far as peers accept, without roots. Errors name cause and cure and
// hold no key material.
func ParseCredential(certPEM, keyPEM []byte) (*Credential, error) {
	return parseCredential(certPEM, keyPEM, nil)
}

// ParseCertificates is ParseCredential for a key outside of this process: certPEM has certificates alone, the leaf is that of
// the signer's public key.
func ParseCertificates(certPEM []byte, signer StatementSigner) (*Credential, error) {
	return parseCredential(certPEM, nil, signer)
}

func parseCredential(certPEM, keyPEM []byte, signer StatementSigner) (*Credential, error) {
	blocks, err := pemBlocks(certPEM)
	if err != nil {
		return nil, fmt.Errorf("cannot read the machine's certificate: %w", err)
	}
	var signers []crypto.Signer
	kept := false
	defer func() {
		wipeKeyBlocks(blocks)
		if !kept {
			for _, s := range signers {
				wipeKey(s)
			}
		}
	}()
	if keyPEM != nil {
		more, err := pemBlocks(keyPEM)
		if err != nil {
			return nil, fmt.Errorf("cannot read the machine's private key: %w", err)
		}
		blocks = append(blocks, more...)
	}
	var certs []*x509.Certificate
	for _, b := range blocks {
		switch {
		case b.Type == "EC PARAMETERS": // openssl writes it before a key, which names its curve itself
		case b.Type == "CERTIFICATE":
			cert, err := x509.ParseCertificate(b.Bytes)
			if err != nil {
				return nil, fmt.Errorf("certificate %d of the machine %w", len(certs)+1, unusable(b.Bytes, "have it issued anew", err))
			}
			if !slices.ContainsFunc(certs, cert.Equal) {
				certs = append(certs, cert)
			}
		case strings.HasSuffix(b.Type, "PRIVATE KEY") && signer != nil:
			return nil, errors.New("the machine's credentials hold a private key, and its key is with a signer: take it out of " +
				"them, and wipe the file")
		case strings.HasSuffix(b.Type, "PRIVATE KEY"):
			signer, err := parseKey(b)
			if err != nil {
				return nil, fmt.Errorf("cannot use the machine's private key: %w", err)
			}
			signers = append(signers, signer)
		default:
			return nil, fmt.Errorf("cannot use the machine's credentials, where only certificates and one private key belong: %w",
				wrongBlock(b.Type))
		}
	}
	switch {
	case signer != nil:
	case len(signers) == 0:
		return nil, curedBy(SettingKey, "the machine's credentials hold no private key; add it to them, or name its file")
	case len(signers) > 1:
		return nil, fmt.Errorf("the machine's credentials hold %d private keys; leave only the one of the certificate",
			len(signers))
	default:
		signer = SignerOf(signers[0])
	}
	if len(certs) == 0 {
		return nil, errors.New("the machine's credentials hold no certificate; " +
			"add the machine's and those between it and the CA")
	}
	chain, warnings, err := orderChain(certs, signer.Public())
	if err != nil {
		return nil, fmt.Errorf("cannot use the machine's certificates: %w", err)
	}
	c := &Credential{Leaf: chain[0], Certificates: chain, Signer: signer, Warnings: warnings, turns: newTurns()}
	for _, cert := range chain {
		c.Chain = append(c.Chain, cert.Raw)
	}
	kept = true
	return c, nil
}

// MachineName returns the name that this machine goes by: override if it is set, which must be one of the leaf's DNS
// SANs; else the only DNS SAN that can name a machine; else fqdn, the host's own name, if it is one of several. SANs
// have no stable order, so that the first of them is no choice. Where there are no SANs at all, the only common name will
// do if by the trust it is under DNS.
func (c *Credential) MachineName(t *Trust, override, fqdn string) (string, error) {
	names := t.names(c.Leaf)
	if override != "" {
		if err := ValidMachineName(override); err != nil {
			return "", curedBy(SettingMachineName, "cannot use the machine name %q: %w", override, err)
		}
		if !t.proves(c.Leaf, override) {
			return "", curedBy(SettingMachineName, "the machine's certificate does not have the name %q among its DNS names "+
				"(%s); choose one of these, or have it issued anew", override, listNames(names))
		}
		return override, nil
	}
	switch len(names) {
	case 0:
		return "", fmt.Errorf("the machine's certificate %s; have it issued with the machine's own DNS name",
			noMachineName(c.Leaf))
	case 1:
		return names[0], nil
	}
	if host := strings.TrimSuffix(ascii.Lower(fqdn), "."); slices.Contains(names, host) {
		return host, nil
	}
	return "", curedBy(SettingMachineName, "the machine's certificate has several DNS names (%s), and the host's own "+
		"name, %q, is none of them; choose one", listNames(names), fqdn)
}

// Keeps refuses a credential that is not, by the trust, for the name that a machine goes by while it runs.
func (c *Credential) Keeps(t *Trust, name string) error {
	if t.proves(c.Leaf, name) {
		return nil
	}
	return fmt.Errorf("the certificate is not for %q, as which this machine runs, but for %s; have it issued with that "+
		"name, or restart the daemon to go by another one", name, listNames(t.names(c.Leaf)))
}

func listNames(names []string) string {
	if len(names) == 0 {
		return "none that can name a machine"
	}
	const show = 8
	if len(names) > show {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:show], ", "), len(names)-show)
	}
	return strings.Join(names, ", ")
}
