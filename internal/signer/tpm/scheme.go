package tpm

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/sha256"
	"errors"

	"github.com/google/go-tpm/tpm2"

	"github.com/shared-altsd/shared-altsd/internal/signer/device"
)

// A scheme makes a signature over a digest.
type scheme func(digest []byte) ([]byte, error)

// publicKey returns the key of a public area, if a statement can be signed by it.
func publicKey(public *tpm2.TPMTPublic) (crypto.PublicKey, error) {
	switch {
	case !public.ObjectAttributes.SignEncrypt:
		return nil, device.Unfit("the key is not one for signatures (it has no attribute sign); " + anew)
	case public.ObjectAttributes.Restricted:
		return nil, device.Unfit("the key is restricted to what the TPM makes itself, as keys of attestation are; " + anew)
	case !public.ObjectAttributes.UserWithAuth:
		return nil, device.Unfit("the key's use is bound to a policy, which is not supported; " + anew)
	}
	found, err := tpm2.Pub(*public)
	if err != nil {
		return nil, device.Unfit("the key is not one that peers accept (%v); %s", err, anew)
	}
	if k, ok := found.(*ecdsa.PublicKey); ok {
		bits := k.Curve.Params().BitSize
		if bits != 256 && bits != 384 {
			return nil, device.Unfit("the key is on a curve other than P-256 and P-384; %s", anew)
		}
		if _, err := k.ECDH(); err != nil {
			return nil, device.Unfit("the key is no point of its curve: see whether the TPM is sound")
		}
	}
	return found, nil
}

// chooseScheme sets how the key signs, as docs/spec/protocol.md, section 5.1, has it for its kind.
func (k *key) chooseScheme() error {
	switch public := k.key.(type) {
	case *ecdsa.PublicKey:
		hash := tpm2.TPMAlgSHA256
		if public.Curve.Params().BitSize == 384 {
			hash = tpm2.TPMAlgSHA384
		}
		detail, err := k.public.Parameters.ECCDetail()
		if err != nil {
			return err
		}
		if s := detail.Scheme.Scheme; s != 0 && s != tpm2.TPMAlgNull {
			if fixed, err := detail.Scheme.Details.ECDSA(); s != tpm2.TPMAlgECDSA || err != nil || fixed.HashAlg != hash {
				return device.Unfit("the key is fixed to another scheme than ECDSA with the hash of its curve, which is SHA-%d; %s",
					public.Curve.Params().BitSize, anew)
			}
		}
		k.sign = func(digest []byte) ([]byte, error) { return k.signECDSA(digest, hash) }
		return nil
	case *rsa.PublicKey:
		return k.chooseRSA(public)
	}
	return device.Unfit("the key is neither one of ECDSA nor of RSA; " + anew)
}

// saltProbe is what a signature with RSA is tried on, to see its salt: it is no statement, nor anything else.
var saltProbe = sha256.Sum256([]byte("shared-altsd-signer: how long is this TPM's salt?"))

// chooseRSA takes PSS of the TPM, if its salt has 32 bytes, and else its raw RSA with our padding.
func (k *key) chooseRSA(public *rsa.PublicKey) error {
	detail, err := k.public.Parameters.RSADetail()
	if err != nil {
		return err
	}
	fixed := detail.Scheme.Scheme
	if fixed != 0 && fixed != tpm2.TPMAlgNull {
		if s, err := detail.Scheme.Details.RSAPSS(); fixed != tpm2.TPMAlgRSAPSS || err != nil || s.HashAlg != tpm2.TPMAlgSHA256 {
			return device.Unfit("the key is fixed to another scheme than RSAPSS with SHA-256; " + anew)
		}
	}
	signature, err := k.signPSS(saltProbe[:])
	// What a key cannot do may come as an error as well; but without its passphrase it can do nothing.
	if err == nil && device.VerifyPSS(public, saltProbe[:], signature) {
		k.sign = k.signPSS
		return nil
	}
	if err != nil && !errors.Is(err, tpm2.TPMRCScheme) && !errors.Is(err, tpm2.TPMRCValue) {
		return err
	}
	if (fixed == 0 || fixed == tpm2.TPMAlgNull) && k.public.ObjectAttributes.Decrypt {
		k.sign = func(digest []byte) ([]byte, error) { return k.signRaw(public, digest) }
		if _, err := k.sign(saltProbe[:]); err != nil {
			return device.Unfit("the TPM makes RSA signatures with a longer salt than 32 bytes, and raw ones not at all: %v; %s", err, anew)
		}
		return nil
	}
	return device.Unfit("the TPM makes RSA signatures with a longer salt than the 32 bytes that peers accept, and this key is not one that " +
		"it could use for others: make a key on P-256, or one of RSA with the attribute decrypt beside sign and no scheme of its own, " +
		"as 'openssl genpkey -provider tpm2 -algorithm RSA' does")
}

func (k *key) signECDSA(digest []byte, hash tpm2.TPMAlgID) (signature []byte, err error) {
	err = k.authorized(func(auth tpm2.AuthHandle) error {
		made, err := tpm2.Sign{
			KeyHandle: auth, Digest: tpm2.TPM2BDigest{Buffer: digest},
			InScheme: tpm2.TPMTSigScheme{Scheme: tpm2.TPMAlgECDSA,
				Details: tpm2.NewTPMUSigScheme(tpm2.TPMAlgECDSA, &tpm2.TPMSSchemeHash{HashAlg: hash})},
			Validation: noTicket,
		}.Execute(k.wire)
		if err != nil {
			return err
		}
		s, err := made.Signature.Signature.ECDSA()
		if err != nil {
			return err
		}
		signature, err = device.ECDSA(s.SignatureR.Buffer, s.SignatureS.Buffer)
		return err
	})
	return signature, err
}

func (k *key) signPSS(digest []byte) (signature []byte, err error) {
	err = k.authorized(func(auth tpm2.AuthHandle) error {
		made, err := tpm2.Sign{
			KeyHandle: auth, Digest: tpm2.TPM2BDigest{Buffer: digest},
			InScheme: tpm2.TPMTSigScheme{Scheme: tpm2.TPMAlgRSAPSS,
				Details: tpm2.NewTPMUSigScheme(tpm2.TPMAlgRSAPSS, &tpm2.TPMSSchemeHash{HashAlg: tpm2.TPMAlgSHA256})},
			Validation: noTicket,
		}.Execute(k.wire)
		if err != nil {
			return err
		}
		s, err := made.Signature.Signature.RSAPSS()
		if err != nil {
			return err
		}
		signature = s.Sig.Buffer
		return nil
	})
	return signature, err
}

// signRaw has the TPM do raw RSA, which is its decryption without a padding, on a number that is padded here.
func (k *key) signRaw(public *rsa.PublicKey, digest []byte) (signature []byte, err error) {
	padded, err := device.PadPSS(public, digest)
	if err != nil {
		return nil, err
	}
	err = k.authorized(func(auth tpm2.AuthHandle) error {
		made, err := tpm2.RSADecrypt{
			KeyHandle: auth, CipherText: tpm2.TPM2BPublicKeyRSA{Buffer: padded},
			InScheme: tpm2.TPMTRSADecrypt{Scheme: tpm2.TPMAlgNull},
		}.Execute(k.wire)
		if err != nil {
			return err
		}
		if len(made.Message.Buffer) > len(padded) {
			return errors.New("the TPM's answer is longer than the key")
		}
		signature = make([]byte, len(padded))
		copy(signature[len(padded)-len(made.Message.Buffer):], made.Message.Buffer)
		return nil
	})
	return signature, err
}

// noTicket says that the digest was not made by the TPM.
var noTicket = tpm2.TPMTTKHashCheck{Tag: tpm2.TPMSTHashCheck, Hierarchy: tpm2.TPMRHNull}
