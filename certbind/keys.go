package certbind

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"errors"
	"fmt"
)

// Sizes of RSA moduli in bits. The work for one signature grows with the square of the modulus, and with the exponent.
const (
	minRSABits     = 2048
	maxLeafRSABits = 4096
	maxCARSABits   = 8192
	rsaExponent    = 65537
)

// acceptableKey reports why a public key is not one of docs/spec/protocol.md, section 5.1: P-256, P-384, Ed25519, or RSA of
// 2048 to maxRSA bits with the exponent 65537.
func acceptableKey(key crypto.PublicKey, maxRSA int) error {
	switch k := key.(type) {
	case *ecdsa.PublicKey:
		if k.Curve != elliptic.P256() && k.Curve != elliptic.P384() {
			return errors.New("it has an ECDSA key on a curve other than P-256 and P-384")
		}
	case ed25519.PublicKey:
	case *rsa.PublicKey:
		if n := k.N.BitLen(); n < minRSABits || n > maxRSA {
			return fmt.Errorf("it has an RSA key of %d bits, outside %d to %d", n, minRSABits, maxRSA)
		}
		if k.E != rsaExponent {
			return fmt.Errorf("it has an RSA key with an exponent other than %d", rsaExponent)
		}
	default:
		return errors.New("it has a key that is neither ECDSA (P-256, P-384), nor Ed25519, nor RSA")
	}
	return nil
}

// unusable returns why a certificate that does not parse cannot be used: by the kind of its key if that is why, else by what
// the parser says, with its cure.
func unusable(der []byte, cure string, err error) error {
	if kind := certificateKeyKind(der); kind != "" {
		return fmt.Errorf("has %s, which no peer accepts; it needs a key on P-256, P-384, Ed25519, or RSA", kind)
	}
	return fmt.Errorf("does not parse; %s: %w", cure, err)
}

// acceptableCertKey is acceptableKey for a certificate, and names keys of which crypto/x509 knows nothing.
func acceptableCertKey(cert *x509.Certificate, maxRSA int) error {
	err := acceptableKey(cert.PublicKey, maxRSA)
	if err != nil && cert.PublicKey == nil {
		if kind := publicKeyKind(cert.RawSubjectPublicKeyInfo); kind != "" {
			return fmt.Errorf("it has %s", kind)
		}
	}
	return err
}

// acceptableSignature reports why an X.509 signature algorithm is not one of section 5.5, step 2.
func acceptableSignature(alg x509.SignatureAlgorithm) error {
	switch alg {
	case x509.SHA256WithRSA, x509.SHA384WithRSA, x509.SHA512WithRSA,
		x509.SHA256WithRSAPSS, x509.SHA384WithRSAPSS, x509.SHA512WithRSAPSS,
		x509.ECDSAWithSHA256, x509.ECDSAWithSHA384, x509.ECDSAWithSHA512, x509.PureEd25519:
		return nil
	}
	return errors.New("it is not signed with SHA-256, SHA-384 or SHA-512 by RSA or ECDSA, nor with Ed25519")
}

// pssOptions fixes the salt at 32 bytes: Go's default for verification would take any length.
var pssOptions = &rsa.PSSOptions{SaltLength: 32, Hash: crypto.SHA256}

// SignBy returns the signature of section 5.1 over a statement, made by sign with the scheme that the public key fixes. sign
// is that of a crypto.Signer, without its source of randomness.
func SignBy(key crypto.PublicKey, statement []byte, sign func(digest []byte, opts crypto.SignerOpts) ([]byte, error)) ([]byte, error) {
	in := SignatureInput(statement)
	switch k := key.(type) {
	case *ecdsa.PublicKey:
		if k.Curve == elliptic.P384() {
			digest := sha512.Sum384(in)
			return sign(digest[:], crypto.SHA384)
		}
		digest := sha256.Sum256(in)
		return sign(digest[:], crypto.SHA256)
	case ed25519.PublicKey:
		return sign(in, crypto.Hash(0))
	case *rsa.PublicKey:
		digest := sha256.Sum256(in)
		return sign(digest[:], pssOptions)
	}
	return nil, errors.New("no signature scheme for this kind of key")
}

// validSignature reports whether the signature over the statement is that of the key. It is false for
// keys that acceptableKey refuses.
func validSignature(key crypto.PublicKey, statement, signature []byte) bool {
	in := SignatureInput(statement)
	switch k := key.(type) {
	case *ecdsa.PublicKey:
		switch k.Curve {
		case elliptic.P256():
			digest := sha256.Sum256(in)
			return ecdsa.VerifyASN1(k, digest[:], signature)
		case elliptic.P384():
			digest := sha512.Sum384(in)
			return ecdsa.VerifyASN1(k, digest[:], signature)
		}
	case ed25519.PublicKey:
		return ed25519.Verify(k, in, signature)
	case *rsa.PublicKey:
		digest := sha256.Sum256(in)
		return rsa.VerifyPSS(k, crypto.SHA256, digest[:], signature, pssOptions) == nil
	}
	return false
}
