package certbind

import (
	"crypto"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"strings"
)

// newKey is the cure for a key that no peer accepts.
const newKey = `make a new key ("openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out NEW"), and have a ` +
	"certificate issued for it"

// ParseKey reads a private key that stands alone in PEM, as ParseCredential reads it beside certificates.
func ParseKey(keyPEM []byte) (crypto.Signer, error) {
	blocks, err := pemBlocks(keyPEM)
	if err != nil {
		return nil, err
	}
	defer wipeKeyBlocks(blocks)
	var found []*pem.Block
	for _, b := range blocks {
		if b.Type != "EC PARAMETERS" {
			found = append(found, b)
		}
	}
	if len(found) != 1 {
		return nil, fmt.Errorf("the file holds %d PEM blocks; leave the private key alone in it", len(found))
	}
	return parseKey(found[0])
}

func parseKey(b *pem.Block) (crypto.Signer, error) {
	if b.Type == "ENCRYPTED PRIVATE KEY" || strings.Contains(b.Headers["Proc-Type"], "ENCRYPTED") {
		return nil, errors.New(`it is encrypted, and a daemon has nobody to ask for the passphrase; decrypt it with ` +
			`"openssl pkey -in FILE -out NEW" and protect the file by its permissions`)
	}
	var key any
	var err error
	switch b.Type {
	case "PRIVATE KEY":
		key, err = x509.ParsePKCS8PrivateKey(b.Bytes)
	case "RSA PRIVATE KEY":
		key, err = x509.ParsePKCS1PrivateKey(b.Bytes)
	case "EC PRIVATE KEY":
		key, err = x509.ParseECPrivateKey(b.Bytes)
	case "OPENSSH PRIVATE KEY":
		return nil, errors.New("it is in OpenSSH's own format; copy it and convert the copy to PKCS #8 with " +
			`"ssh-keygen -p -N '' -m PKCS8 -f COPY"`)
	case "DSA PRIVATE KEY":
		return nil, fmt.Errorf("it is a DSA key, which no peer accepts; %s", newKey)
	case "TSS2 PRIVATE KEY":
		return nil, errors.New("it is wrapped for a TPM, which is the signer's to use: give it to shared-altsd-signer, and the " +
			"daemon the signer's socket (docs/hardware.md)")
	default:
		return nil, fmt.Errorf(`its PEM type is %q; convert it to PKCS #8 with "openssl pkey -in FILE -out NEW"`, b.Type)
	}
	if err != nil {
		if kind := privateKeyKind(b); kind != "" {
			return nil, fmt.Errorf("it is %s, which no peer accepts; %s", kind, newKey)
		}
		// What the parser says could quote from the key.
		return nil, fmt.Errorf(`its %s block does not parse; copy the file anew, or convert it with `+
			`"openssl pkey -in FILE -out NEW"`, b.Type)
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("it is a key that cannot sign (X25519 or the like); %s", newKey)
	}
	if err := acceptableKey(signer.Public(), maxLeafRSABits); err != nil {
		return nil, fmt.Errorf("peers do not accept it: %w; %s", err, newKey)
	}
	return signer, nil
}

// privateKeyKind names the kind of a key that does not parse, "" if it is one that should, so that it is damaged.
func privateKeyKind(b *pem.Block) string {
	switch b.Type {
	case "RSA PRIVATE KEY":
		return rsaKind(b.Bytes, 1)
	case "EC PRIVATE KEY":
		if all, err := elements(b.Bytes); err == nil {
			for _, e := range all {
				if e.Class == asn1.ClassContextSpecific && e.Tag == 0 {
					return curveKind(e.Bytes)
				}
			}
		}
	default:
		all, err := elements(b.Bytes)
		if err != nil || len(all) < 3 {
			return ""
		}
		var alg pkix.AlgorithmIdentifier
		if rest, err := asn1.Unmarshal(all[1].FullBytes, &alg); err != nil || len(rest) > 0 {
			return ""
		}
		if alg.Algorithm.Equal(oidRSA) {
			return rsaKind(all[2].Bytes, 1)
		}
		return keyKind(alg)
	}
	return ""
}

// certificateKeyKind names the kind of the key in a certificate, or in its SubjectPublicKeyInfo, where it is none that
// could be accepted; "" where it is or cannot be told.
func certificateKeyKind(der []byte) string {
	var cert struct {
		TBS struct {
			Version                                       asn1.RawValue `asn1:"optional,explicit,tag:0"`
			Serial                                        *big.Int
			Algorithm, Issuer, Validity, Subject, KeyInfo asn1.RawValue
		}
	}
	if _, err := asn1.Unmarshal(der, &cert); err != nil {
		return ""
	}
	return publicKeyKind(cert.TBS.KeyInfo.FullBytes)
}

// publicKeyKind is certificateKeyKind for a SubjectPublicKeyInfo.
func publicKeyKind(spki []byte) string {
	var info struct {
		Algorithm pkix.AlgorithmIdentifier
		Key       asn1.BitString
	}
	if rest, err := asn1.Unmarshal(spki, &info); err != nil || len(rest) > 0 {
		return ""
	}
	if info.Algorithm.Algorithm.Equal(oidRSA) {
		return rsaKind(info.Key.Bytes, 0)
	}
	return keyKind(info.Algorithm)
}

var (
	oidRSA = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 1}
	oidEC  = asn1.ObjectIdentifier{1, 2, 840, 10045, 2, 1}
)

// otherKeys are algorithms of keys that are met in practice and that no peer accepts.
var otherKeys = map[string]string{
	"1.2.840.113549.1.1.10": "an RSA key for RSASSA-PSS alone",
	"1.2.840.10040.4.1":     "a DSA key",
	"1.2.840.113549.1.3.1":  "a Diffie-Hellman key",
	"1.3.101.110":           "an X25519 key, which cannot sign",
	"1.3.101.111":           "an X448 key, which cannot sign",
	"1.3.101.113":           "an Ed448 key",
}

// curves are curves beside P-256 and P-384.
var curves = map[string]string{
	"1.2.840.10045.3.1.1": "P-192", "1.3.132.0.33": "P-224", "1.3.132.0.35": "P-521", "1.3.132.0.10": "secp256k1",
	"1.3.36.3.3.2.8.1.1.7": "brainpoolP256r1", "1.3.36.3.3.2.8.1.1.11": "brainpoolP384r1",
	"1.3.36.3.3.2.8.1.1.13": "brainpoolP512r1", "1.2.156.10197.1.301": "SM2",
}

// keyKind names the kind of a key by its algorithm, "" for P-256, P-384, Ed25519.
func keyKind(alg pkix.AlgorithmIdentifier) string {
	oid := alg.Algorithm.String()
	switch {
	case alg.Algorithm.Equal(oidEC):
		return curveKind(alg.Parameters.FullBytes)
	case oid == "1.3.101.112": // Ed25519
		return ""
	case otherKeys[oid] != "":
		return otherKeys[oid]
	case len(oid) <= maxOID:
		return "a key of the algorithm " + oid
	}
	return "a key of an unknown algorithm"
}

// curveKind names the kind of an EC key by its parameters, "" for P-256 and P-384.
func curveKind(parameters []byte) string {
	var oid asn1.ObjectIdentifier
	if _, err := asn1.Unmarshal(parameters, &oid); err != nil {
		if len(parameters) > 0 && parameters[0] == 0x30 {
			return "an EC key with explicit parameters in the place of a curve's name"
		}
		return ""
	}
	switch s := oid.String(); {
	case s == "1.2.840.10045.3.1.7" || s == "1.3.132.0.34": // P-256, P-384
		return ""
	case curves[s] != "":
		return "an EC key on the curve " + curves[s]
	case len(s) <= maxOID:
		return "an EC key on the curve " + s
	}
	return "an EC key on an unknown curve"
}

// rsaKind names an RSA key whose size or exponent is not accepted; modulus and exponent stand at the place at.
func rsaKind(der []byte, at int) string {
	all, err := elements(der)
	if err != nil || len(all) < at+2 {
		return ""
	}
	n, e := new(big.Int).SetBytes(all[at].Bytes), new(big.Int).SetBytes(all[at+1].Bytes)
	switch {
	case n.BitLen() < minRSABits || n.BitLen() > maxCARSABits:
		return fmt.Sprintf("an RSA key of %d bits", n.BitLen())
	case e.Cmp(big.NewInt(rsaExponent)) != 0:
		return fmt.Sprintf("an RSA key with an exponent other than %d", rsaExponent)
	}
	return ""
}

// elements returns the elements of a SEQUENCE in DER, which alias it.
func elements(der []byte) ([]asn1.RawValue, error) {
	var outer asn1.RawValue
	rest, err := asn1.Unmarshal(der, &outer)
	if err == nil && (len(rest) > 0 || outer.Class != asn1.ClassUniversal || outer.Tag != asn1.TagSequence) {
		err = errors.New("it is not one SEQUENCE")
	}
	if err != nil {
		return nil, err
	}
	return rawValues(outer.Bytes)
}

// rawValues splits elements that stand one behind another.
func rawValues(b []byte) (all []asn1.RawValue, err error) {
	for len(b) > 0 {
		var e asn1.RawValue
		if b, err = asn1.Unmarshal(b, &e); err != nil {
			return nil, err
		}
		all = append(all, e)
	}
	return all, nil
}
