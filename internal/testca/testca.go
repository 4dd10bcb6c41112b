// Package testca is a certificate authority for tests. Every option that makes a certificate unacceptable is there
// because a test needs that defect. Nothing that ships imports it: its RSA keys are everybody's.
package testca

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"embed"
	"encoding/asn1"
	"fmt"
	"math/big"
	"net"
	"time"

	"github.com/shared-altsd/shared-altsd/internal/devca"
)

// Key types for Options and Leaf. The empty string means P256.
const (
	P224    = "p224"
	P256    = "p256"
	P384    = "p384"
	P521    = "p521"
	Ed25519 = "ed25519"
	RSA2048 = "rsa2048"
	RSA3072 = "rsa3072"
	RSA4096 = "rsa4096"
	RSA8192 = "rsa8192"
)

// Options describe a CA certificate. The zero value gives a P-256 CA, valid from an hour ago for ten years.
type Options struct {
	Name      string // common name; "test CA N" if empty
	KeyType   string
	Key       crypto.Signer // used instead of a new key of KeyType, if set
	NotBefore time.Time
	NotAfter  time.Time
	// PermittedDNS and ExcludedDNS are critical name constraints.
	PermittedDNS, ExcludedDNS []string
	EKUs                      []x509.ExtKeyUsage
	UnknownEKUs               []asn1.ObjectIdentifier
	// KeyUsage replaces certSign and cRLSign.
	KeyUsage   x509.KeyUsage
	NoKeyUsage bool // leaves the key usage extension out
	// NotCA leaves basic constraints out.
	NotCA bool
	// MaxPathLen limits the intermediates below; 0 sets no limit, -1 allows none.
	MaxPathLen int
	// SignatureAlgorithm is by the signer's key if zero.
	SignatureAlgorithm x509.SignatureAlgorithm
	ExtraExtensions    []pkix.Extension
}

// Leaf describes a machine certificate. The zero value, with a host, gives a good one: P-256, digitalSignature,
// serverAuth and clientAuth, valid from an hour ago for 90 days.
type Leaf struct {
	Hosts       []string // DNS SANs as they are, wildcards too; none gives no SAN extension
	IPs         []net.IP
	Subject     pkix.Name
	KeyType     string
	Key         crypto.Signer // used instead of a new key of KeyType, if set
	NotBefore   time.Time
	NotAfter    time.Time
	KeyUsage    x509.KeyUsage // digitalSignature if zero
	NoKeyUsage  bool          // leaves the key usage extension out
	EKUs        []x509.ExtKeyUsage
	UnknownEKUs []asn1.ObjectIdentifier
	NoEKU       bool // leaves extended key usage out, where EKUs and UnknownEKUs are empty
	IsCA        bool
	SelfSigned  bool // signed by its own key, not by the CA's
	// PublicKey is certified in the place of the key's own: for keys that nobody can sign with.
	PublicKey          crypto.PublicKey
	SignatureAlgorithm x509.SignatureAlgorithm
	ExtraExtensions    []pkix.Extension
}

// A CA signs certificates and revocation lists.
type CA struct {
	Cert   *x509.Certificate
	Key    crypto.Signer
	parent *CA
}

// Issued is a certificate with its key.
type Issued = devca.Issued

// NewCA makes a self-signed CA.
func NewCA(o Options) (*CA, error) { return newCA(o, nil) }

// Intermediate makes a CA that ca signs.
func (ca *CA) Intermediate(o Options) (*CA, error) { return newCA(o, ca) }

// CrossSign returns a certificate of ca over the name and key of other: another path to the same CA.
func (ca *CA) CrossSign(other *CA) (*CA, error) {
	return newCA(Options{Name: other.Cert.Subject.CommonName, Key: other.Key}, ca)
}

func newCA(o Options, parent *CA) (*CA, error) {
	key, err := pickKey(o.Key, o.KeyType)
	if err != nil {
		return nil, err
	}
	t := template(o.NotBefore, o.NotAfter, devca.CALife)
	if o.Name == "" {
		o.Name = fmt.Sprintf("test CA %x", t.SerialNumber.Bytes()[:4])
	}
	t.Subject = pkix.Name{CommonName: o.Name}
	t.KeyUsage = o.KeyUsage
	if t.KeyUsage == 0 && !o.NoKeyUsage {
		t.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	}
	t.BasicConstraintsValid, t.IsCA = !o.NotCA, !o.NotCA
	switch {
	case o.MaxPathLen > 0:
		t.MaxPathLen = o.MaxPathLen
	case o.MaxPathLen < 0:
		t.MaxPathLenZero = true
	}
	t.PermittedDNSDomains, t.ExcludedDNSDomains = o.PermittedDNS, o.ExcludedDNS
	t.PermittedDNSDomainsCritical = len(o.PermittedDNS)+len(o.ExcludedDNS) > 0
	t.ExtKeyUsage, t.UnknownExtKeyUsage = o.EKUs, o.UnknownEKUs
	t.SignatureAlgorithm = o.SignatureAlgorithm
	t.ExtraExtensions = o.ExtraExtensions
	signerCert, signer := t, key
	if parent != nil {
		signerCert, signer = parent.Cert, parent.Key
	}
	cert, err := devca.Sign(t, signerCert, key.Public(), signer)
	if err != nil {
		return nil, err
	}
	return &CA{Cert: cert, Key: key, parent: parent}, nil
}

// Issue makes a machine certificate.
func (ca *CA) Issue(l Leaf) (*Issued, error) {
	key, err := pickKey(l.Key, l.KeyType)
	if err != nil {
		return nil, err
	}
	t := template(l.NotBefore, l.NotAfter, devca.LeafLife)
	t.Subject = l.Subject
	t.DNSNames, t.IPAddresses = l.Hosts, l.IPs
	t.KeyUsage = l.KeyUsage
	if t.KeyUsage == 0 && !l.NoKeyUsage {
		t.KeyUsage = x509.KeyUsageDigitalSignature
	}
	t.ExtKeyUsage, t.UnknownExtKeyUsage = l.EKUs, l.UnknownEKUs
	if len(l.EKUs)+len(l.UnknownEKUs) == 0 && !l.NoEKU {
		t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	}
	t.BasicConstraintsValid, t.IsCA = true, l.IsCA
	t.SignatureAlgorithm = l.SignatureAlgorithm
	t.ExtraExtensions = l.ExtraExtensions
	public := l.PublicKey
	if public == nil {
		public = key.Public()
	}
	signerCert, signer := ca.Cert, ca.Key
	if l.SelfSigned {
		signerCert, signer = t, key
	}
	cert, err := devca.Sign(t, signerCert, public, signer)
	if err != nil {
		return nil, err
	}
	if l.SelfSigned {
		return devca.NewIssued(cert, key, nil)
	}
	return devca.NewIssued(cert, key, ca.chainPEM())
}

// PEM returns the CA's own certificate.
func (ca *CA) PEM() []byte { return devca.CertPEM(ca.Cert) }

// chainPEM returns the CA's certificate and those above it, without the root.
func (ca *CA) chainPEM() []byte {
	var out []byte
	for ; ca.parent != nil; ca = ca.parent {
		out = append(out, ca.PEM()...)
	}
	return out
}

func template(notBefore, notAfter time.Time, life time.Duration) *x509.Certificate {
	t := devca.Template(life)
	if !notBefore.IsZero() {
		t.NotBefore = notBefore
	}
	if !notAfter.IsZero() {
		t.NotAfter = notAfter
	}
	return t
}

// rsaKeys holds one RSA key of each size (PKCS #1, DER), since making them is slow. Everybody has these keys.
//
//go:embed keys/*.der
var rsaKeys embed.FS

func pickKey(given crypto.Signer, keyType string) (crypto.Signer, error) {
	if given != nil {
		return given, nil
	}
	return NewKey(keyType)
}

// NewKey makes a key of the type. An RSA key is not made but the one of its size that is embedded here, which everybody
// has.
func NewKey(keyType string) (crypto.Signer, error) {
	switch keyType {
	case P224:
		return ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	case "", P256:
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case P384:
		return ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case P521:
		return ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	case Ed25519:
		_, key, err := ed25519.GenerateKey(rand.Reader)
		return key, err
	case RSA2048:
		return rsaKey(2048)
	case RSA3072:
		return rsaKey(3072)
	case RSA4096:
		return rsaKey(4096)
	case RSA8192:
		return rsaKey(8192)
	}
	return nil, fmt.Errorf("testca knows no key type %q", keyType)
}

func rsaKey(bits int) (*rsa.PrivateKey, error) {
	der, err := rsaKeys.ReadFile(fmt.Sprintf("keys/rsa%d.der", bits))
	if err != nil {
		return nil, fmt.Errorf("testca has no RSA key of %d bits: %w", bits, err)
	}
	key, err := x509.ParsePKCS1PrivateKey(der)
	if err != nil {
		return nil, fmt.Errorf("cannot read an embedded RSA key: %w", err)
	}
	return key, nil
}

// HugeRSA returns an RSA public key of that many bits, with the exponent given, that nobody has the private key of. What
// it costs to check a signature with it does not depend on that.
func HugeRSA(bits, exponent int) *rsa.PublicKey {
	n := new(big.Int).Lsh(big.NewInt(1), uint(bits))
	n.Sub(n, big.NewInt(1)) // all ones: odd and of the full size
	return &rsa.PublicKey{N: n, E: exponent}
}
