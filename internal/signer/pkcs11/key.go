//go:build cgo

package pkcs11

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
	"slices"

	p11 "github.com/miekg/pkcs11"

	"github.com/shared-altsd/shared-altsd/internal/signer/device"
)

// A key is one of a token with which there is a session.
type key struct {
	uri       *URI
	pin       *device.Secret
	ctx       *p11.Ctx
	session   p11.SessionHandle
	inSession bool
	private   p11.ObjectHandle
	public    crypto.PublicKey
	mechanism *p11.Mechanism
	always    bool // it wants the PIN for each signature
}

func (k *key) Public() crypto.PublicKey { return k.public }

func (k *key) Close() error {
	if k.ctx == nil {
		return nil
	}
	if k.inSession {
		k.ctx.CloseSession(k.session) // fails with the token gone
	}
	err := k.ctx.Finalize()
	k.ctx.Destroy()
	k.ctx = nil
	return err
}

// Sign makes a signature.
func (k *key) Sign(digest []byte, _ crypto.SignerOpts) ([]byte, error) {
	signature, err := k.sign(digest)
	return signature, explain(err)
}

func (k *key) sign(digest []byte) ([]byte, error) {
	input := digest
	if k.mechanism.Mechanism == p11.CKM_RSA_X_509 {
		var err error
		if input, err = device.PadPSS(k.public.(*rsa.PublicKey), digest); err != nil {
			return nil, err
		}
	}
	if err := k.ctx.SignInit(k.session, []*p11.Mechanism{k.mechanism}, k.private); err != nil {
		return nil, fmt.Errorf("the token begins no signature: %w", err)
	}
	if k.always {
		if err := k.usePIN(p11.CKU_CONTEXT_SPECIFIC); err != nil {
			return nil, err
		}
	}
	signature, err := k.ctx.Sign(k.session, input)
	if err != nil {
		return nil, fmt.Errorf("the token does not sign: %w", err)
	}
	if _, ok := k.public.(*ecdsa.PublicKey); ok {
		half := len(signature) / 2
		return device.ECDSA(signature[:half], signature[half:])
	}
	return signature, nil
}

// ckmEDDSA is a mechanism of PKCS #11 3.0, which the library does not know yet.
const ckmEDDSA = 0x1057

// chooseScheme takes the mechanism by which the token signs as docs/spec/protocol.md, section 5.1, has it for the key.
func (k *key) chooseScheme(slot uint) error {
	there, err := k.ctx.GetMechanismList(slot)
	if err != nil {
		return fmt.Errorf("the token does not say how it signs: %w", err)
	}
	has := func(mechanism uint) bool {
		return slices.ContainsFunc(there, func(m *p11.Mechanism) bool { return m.Mechanism == mechanism })
	}
	switch k.public.(type) {
	case *ecdsa.PublicKey:
		k.mechanism = p11.NewMechanism(p11.CKM_ECDSA, nil)
	case ed25519.PublicKey:
		k.mechanism = p11.NewMechanism(ckmEDDSA, nil)
	case *rsa.PublicKey:
		k.mechanism = p11.NewMechanism(p11.CKM_RSA_PKCS_PSS,
			p11.NewPSSParams(p11.CKM_SHA256, p11.CKG_MGF1_SHA256, device.SaltLength))
		if !has(p11.CKM_RSA_PKCS_PSS) {
			k.mechanism = p11.NewMechanism(p11.CKM_RSA_X_509, nil)
		}
	}
	if !has(k.mechanism.Mechanism) {
		return device.Unfit("the token has the key but does not sign with it as peers demand it (ECDSA, Ed25519, or RSA by PSS or raw): " +
			"make a key on P-256")
	}
	return nil
}

// findKey finds the one private key that is meant, and its public key.
func (k *key) findKey() error {
	found, err := k.objects(p11.CKO_PRIVATE_KEY, k.uri.ID, k.uri.Object)
	switch {
	case err != nil:
		return err
	case len(found) == 0:
		return errors.New("the token has no such private key: 'pkcs11-tool --login --list-objects --type privkey' lists those that it has")
	case len(found) > 1:
		return errors.New("several private keys of the token are meant: name one by its id")
	}
	k.private = found[0]
	if sign := k.attribute(k.private, p11.CKA_SIGN); len(sign) == 1 && sign[0] == 0 {
		return device.Unfit("the key is not one for signatures: make one with --usage-sign")
	}
	always := k.attribute(k.private, p11.CKA_ALWAYS_AUTHENTICATE)
	k.always = len(always) == 1 && always[0] != 0
	// Of an RSA key the private object says it all; of others there is a public one, or a certificate.
	objects := []p11.ObjectHandle{k.private}
	if id := k.attribute(k.private, p11.CKA_ID); len(id) > 0 {
		for _, class := range []uint{p11.CKO_PUBLIC_KEY, p11.CKO_CERTIFICATE} {
			more, err := k.objects(class, id, "")
			if err != nil {
				return err
			}
			objects = append(objects, more...)
		}
	}
	err = errors.New("the token has no public key or certificate of the same id beside it: put one of them there " +
		"('pkcs11-tool --write-object CERTIFICATE --type cert --id ID')")
	for _, o := range objects {
		public, said := k.publicKey(o)
		if public != nil {
			k.public = public
			return nil
		}
		if said != nil {
			err = said
		}
	}
	return fmt.Errorf("the token has the key, but its public key is not known: %w", err)
}

// objects returns the token's objects of a class, with an id and a label if they are given.
func (k *key) objects(class uint, id []byte, label string) ([]p11.ObjectHandle, error) {
	template := []*p11.Attribute{p11.NewAttribute(p11.CKA_CLASS, class), p11.NewAttribute(p11.CKA_TOKEN, true)}
	if id != nil {
		template = append(template, p11.NewAttribute(p11.CKA_ID, id))
	}
	if label != "" {
		template = append(template, p11.NewAttribute(p11.CKA_LABEL, label))
	}
	if err := k.ctx.FindObjectsInit(k.session, template); err != nil {
		return nil, fmt.Errorf("the token does not search: %w", err)
	}
	const most = 16
	found, _, err := k.ctx.FindObjects(k.session, most)
	if err := errors.Join(err, k.ctx.FindObjectsFinal(k.session)); err != nil {
		return nil, fmt.Errorf("the token does not search: %w", err)
	}
	return found, nil
}

// attribute returns an attribute of an object, nil if it has none.
func (k *key) attribute(o p11.ObjectHandle, kind uint) []byte {
	got, err := k.ctx.GetAttributeValue(k.session, o, []*p11.Attribute{p11.NewAttribute(kind, nil)})
	if err != nil || len(got) != 1 {
		return nil
	}
	return got[0].Value
}

// publicKey returns the public key that an object tells, nil for none.
func (k *key) publicKey(o p11.ObjectHandle) (crypto.PublicKey, error) {
	if n, e := k.attribute(o, p11.CKA_MODULUS), k.attribute(o, p11.CKA_PUBLIC_EXPONENT); len(n) > 0 && len(e) > 0 && len(e) <= 4 {
		return &rsa.PublicKey{N: new(big.Int).SetBytes(n), E: int(new(big.Int).SetBytes(e).Int64())}, nil
	}
	if params, point := k.attribute(o, p11.CKA_EC_PARAMS), k.attribute(o, p11.CKA_EC_POINT); len(params) > 0 && len(point) > 0 {
		return ecKey(params, point)
	}
	if value := k.attribute(o, p11.CKA_VALUE); len(value) > 0 {
		if cert, err := x509.ParseCertificate(value); err == nil {
			return cert.PublicKey, nil
		}
	}
	return nil, nil
}

// Curves as tokens name them: by OID, or Ed25519 by the text of PKCS #11 3.0.
var (
	curveP256   = []byte{0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07}
	curveP384   = []byte{0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22}
	curvesOf255 = [][]byte{{0x06, 0x03, 0x2b, 0x65, 0x70}, append([]byte{0x13, 12}, "edwards25519"...),
		{0x06, 0x09, 0x2b, 0x06, 0x01, 0x04, 0x01, 0xda, 0x47, 0x0f, 0x01}}
)

// ecKey reads a key on a curve: the point in an OCTET STRING, as the standard has it, or as it is.
func ecKey(params, point []byte) (crypto.PublicKey, error) {
	var inner []byte
	if rest, err := asn1.Unmarshal(point, &inner); err == nil && len(rest) == 0 {
		point = inner
	}
	var curve elliptic.Curve
	switch {
	case bytes.Equal(params, curveP256):
		curve = elliptic.P256()
	case bytes.Equal(params, curveP384):
		curve = elliptic.P384()
	case slices.ContainsFunc(curvesOf255, func(c []byte) bool { return bytes.Equal(c, params) }):
		if len(point) != ed25519.PublicKeySize {
			return nil, errors.New("it does not parse: see whether the token is sound")
		}
		return ed25519.PublicKey(bytes.Clone(point)), nil
	default:
		return nil, device.Unfit("it is on a curve other than P-256, P-384 and Ed25519, which no peer accepts: make a key on P-256")
	}
	public, err := ecdsa.ParseUncompressedPublicKey(curve, point)
	if err != nil {
		return nil, errors.New("it is no point of its curve: see whether the token is sound")
	}
	return public, nil
}
