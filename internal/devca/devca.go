// Package devca is a throwaway certificate authority, for the dev-ca and demo commands. It is no CA for production: it
// renews and revokes nothing, and its key is in memory alone.
package devca

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"time"

	"github.com/shared-altsd/shared-altsd/internal/purpose"
)

// How long certificates are valid, from Backdate before now on.
const (
	CALife   = 10 * 365 * 24 * time.Hour
	LeafLife = 90 * 24 * time.Hour
	Backdate = time.Hour
)

// A CA signs machine certificates. Its key is P-256.
type CA struct {
	Cert *x509.Certificate
	key  crypto.Signer
}

// Issued is a certificate with its key, both in PEM. CertPEM holds the chain, leaf first, without the root.
type Issued struct {
	CertPEM, KeyPEM []byte
	Cert            *x509.Certificate
	Key             crypto.Signer
}

// PEM returns key and chain in one file, as a daemon takes its credentials.
func (i *Issued) PEM() []byte { return append(append([]byte(nil), i.KeyPEM...), i.CertPEM...) }

// New makes a self-signed CA with the common name.
func New(name string) (*CA, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("cannot make a key: %w", err)
	}
	t := Template(CALife)
	t.Subject = pkix.Name{CommonName: name}
	t.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	t.BasicConstraintsValid, t.IsCA = true, true
	cert, err := Sign(t, t, key.Public(), key)
	if err != nil {
		return nil, err
	}
	return &CA{cert, key}, nil
}

// PEM returns the CA's own certificate.
func (ca *CA) PEM() []byte { return CertPEM(ca.Cert) }

// Issue makes a machine certificate for a host name and, if there are any, IP addresses, with a new P-256 key.
func (ca *CA) Issue(host string, ips ...net.IP) (*Issued, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("cannot make a key: %w", err)
	}
	t := Template(LeafLife)
	t.DNSNames, t.IPAddresses = []string{host}, ips
	t.KeyUsage = x509.KeyUsageDigitalSignature
	t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	t.UnknownExtKeyUsage = []asn1.ObjectIdentifier{purpose.OID()}
	t.BasicConstraintsValid = true
	cert, err := Sign(t, ca.Cert, key.Public(), ca.key)
	if err != nil {
		return nil, err
	}
	return NewIssued(cert, key, nil)
}

// NewIssued returns the PEM of a certificate and its key; chainPEM are the certificates above it, without the root.
func NewIssued(cert *x509.Certificate, key crypto.Signer, chainPEM []byte) (*Issued, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("cannot encode a private key: %w", err)
	}
	return &Issued{
		CertPEM: append(CertPEM(cert), chainPEM...),
		KeyPEM:  pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}),
		Cert:    cert,
		Key:     key,
	}, nil
}

// CertPEM encodes one certificate.
func CertPEM(cert *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})
}

// Template returns what each certificate begins with: a random serial number of 16 bytes, and its time.
func Template(life time.Duration) *x509.Certificate {
	serial := make([]byte, 16)
	rand.Read(serial)                 // never fails
	serial[0] = serial[0]&0x3f | 0x40 // positive, and always of 16 bytes
	now := time.Now()
	return &x509.Certificate{SerialNumber: new(big.Int).SetBytes(serial), NotBefore: now.Add(-Backdate),
		NotAfter: now.Add(life)}
}

// Sign signs the template and returns the certificate as others will read it.
func Sign(template, parent *x509.Certificate, public crypto.PublicKey, signer crypto.Signer) (*x509.Certificate, error) {
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, signer)
	if err != nil {
		return nil, fmt.Errorf("cannot sign a certificate: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("cannot read back a certificate: %w", err)
	}
	return cert, nil
}
