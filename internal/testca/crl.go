package testca

import (
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"math/big"
	"time"
)

// CRLOptions describe a revocation list. The zero value gives one from an hour ago, good for a day.
type CRLOptions struct {
	ThisUpdate, NextUpdate time.Time
	Number                 *big.Int // ThisUpdate in nanoseconds if nil
	// Extensions are added to the list, EntryExtensions to each entry.
	Extensions, EntryExtensions []pkix.Extension
	// IgnoreKeyUsage signs even if the CA's certificate does not have cRLSign.
	IgnoreKeyUsage bool
}

// Extensions that make a list one that must be refused (RFC 5280, sections 5.2.4, 5.2.5 and 5.3.3).
var (
	DeltaIndicator           = critical([]byte{0x02, 0x01, 0x01}, 2, 5, 29, 27)
	IssuingDistributionPoint = critical([]byte{0x30, 0x00}, 2, 5, 29, 28)
	CertificateIssuer        = critical([]byte{0x30, 0x00}, 2, 5, 29, 29)
	UnknownCritical          = critical([]byte{0x05, 0x00}, 1, 3, 6, 1, 4, 1, 32473, 1)
)

// ListFor makes the issuing distribution point of a list that is for "user" or "CA" certificates only, or both (""),
// and has URIs as its place (RFC 5280, section 5.2.5).
func ListFor(only string, uris ...string) pkix.Extension {
	var fields []byte
	if len(uris) > 0 {
		fields = append(fields, pointName(uris)...)
	}
	if tag := map[string]byte{"user": 0x81, "CA": 0x82}[only]; tag != 0 {
		fields = append(fields, tag, 1, 0xff)
	}
	return critical(tlv(0x30, fields), 2, 5, 29, 28)
}

// Places makes the extension by which a certificate names the URIs at which its list is (section 4.2.1.13). more are
// fields of the distribution point that stand behind them.
func Places(uris []string, more ...byte) pkix.Extension {
	point := tlv(0x30, append(pointName(uris), more...))
	return pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 31}, Value: tlv(0x30, point)}
}

func pointName(uris []string) []byte {
	var names []byte
	for _, u := range uris {
		names = append(names, tlv(0x86, []byte(u))...)
	}
	return tlv(0xa0, tlv(0xa0, names))
}

// EmptyEKU is an extended key usage that names no purpose at all, which RFC 5280 does not know.
var EmptyEKU = pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 37}, Value: []byte{0x30, 0x00}}

// DirectoryNames makes name constraints on directory names (RFC 5280, section 4.2.1.10): permitted if not excluded.
func DirectoryNames(critical, excluded bool, names ...pkix.Name) (pkix.Extension, error) {
	var trees []byte
	for _, n := range names {
		der, err := asn1.Marshal(n.ToRDNSequence())
		if err != nil {
			return pkix.Extension{}, fmt.Errorf("cannot encode the name %v: %w", n, err)
		}
		trees = append(trees, tlv(0x30, tlv(0xa4, der))...)
	}
	tag := byte(0xa0)
	if excluded {
		tag = 0xa1
	}
	return pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 30}, Critical: critical,
		Value: tlv(0x30, tlv(tag, trees))}, nil
}

// tlv is one element of DER with up to 255 bytes.
func tlv(tag byte, content []byte) []byte {
	if len(content) < 128 {
		return append([]byte{tag, byte(len(content))}, content...)
	}
	return append([]byte{tag, 0x81, byte(len(content))}, content...)
}

func critical(value []byte, oid ...int) pkix.Extension {
	return pkix.Extension{Id: asn1.ObjectIdentifier(oid), Critical: true, Value: value}
}

// CRL signs a revocation list with the serial numbers, in DER.
func (ca *CA) CRL(serials []*big.Int, o CRLOptions) ([]byte, error) {
	if o.ThisUpdate.IsZero() {
		o.ThisUpdate = time.Now().Add(-time.Hour)
	}
	if o.NextUpdate.IsZero() {
		o.NextUpdate = o.ThisUpdate.Add(24 * time.Hour)
	}
	if o.Number == nil {
		o.Number = big.NewInt(o.ThisUpdate.UnixNano())
	}
	t := &x509.RevocationList{
		Number: o.Number, ThisUpdate: o.ThisUpdate, NextUpdate: o.NextUpdate,
		ExtraExtensions: o.Extensions,
	}
	for _, s := range serials {
		t.RevokedCertificateEntries = append(t.RevokedCertificateEntries, x509.RevocationListEntry{
			SerialNumber: s, RevocationTime: o.ThisUpdate, ExtraExtensions: o.EntryExtensions,
		})
	}
	issuer := *ca.Cert
	if o.IgnoreKeyUsage {
		issuer.KeyUsage |= x509.KeyUsageCRLSign
	}
	der, err := x509.CreateRevocationList(rand.Reader, t, &issuer, ca.Key)
	if err != nil {
		return nil, fmt.Errorf("cannot sign a revocation list: %w", err)
	}
	return der, nil
}
