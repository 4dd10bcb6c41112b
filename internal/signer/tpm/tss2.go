package tpm

import (
	"bytes"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"

	"github.com/google/go-tpm/tpm2"
)

// pemType is the PEM type of a key that is wrapped for a TPM.
const pemType = "TSS2 PRIVATE KEY"

// MaxFile is the most bytes of a key's file.
const MaxFile = 64 << 10

// IsKeyFile reports whether a PEM file holds a key that is wrapped for a TPM, by its header.
func IsKeyFile(content []byte) bool {
	return bytes.Contains(content, []byte("-----BEGIN "+pemType+"-----"))
}

// A wrapped is a key that the TPM with its parent alone can load, as OpenSSL's providers and tpm2-tools keep it in PEM.
type wrapped struct {
	emptyAuth bool // it has no passphrase
	rsaParent bool // the parent that is made for it is one of RSA
	parent    tpm2.TPMHandle
	public    tpm2.TPM2BPublic
	private   tpm2.TPM2BPrivate
}

// loadable is the type of a key that its parent loads as it is (2.23.133.10.1.3).
var loadable = asn1.ObjectIdentifier{2, 23, 133, 10, 1, 3}

// anew is the cure for a key that cannot be used.
const anew = "make a new one ('openssl genpkey -provider tpm2 -algorithm EC -pkeyopt group:P-256 -out FILE'), and have a " +
	"certificate issued for it"

// parseFile reads the key of a PEM file.
func parseFile(content []byte) (*wrapped, error) {
	if len(content) > MaxFile {
		return nil, fmt.Errorf("it has more than %d bytes: this is not the file that was meant", MaxFile)
	}
	var found *pem.Block
	for {
		block, rest := pem.Decode(content)
		if block == nil {
			break
		}
		switch {
		case block.Type == "TSS2 KEY BLOB":
			return nil, errors.New("it is in the format of before 2018; " + anew)
		case block.Type != pemType:
		case found != nil:
			return nil, errors.New("it has several keys; leave one")
		default:
			found = block
		}
		content = rest
	}
	if found == nil {
		return nil, fmt.Errorf("it has no %q in PEM, as openssl's provider tpm2 writes it; give the right file", pemType)
	}
	key, err := parseKey(found.Bytes)
	if err != nil {
		return nil, fmt.Errorf("its key cannot be used: %w; %s", err, anew)
	}
	return key, nil
}

// parseKey reads TPMKey, the ASN.1 of draft-bottomley-tpm2-keys, element by element: providers write a BOOLEAN that is true
// otherwise than DER has it.
func parseKey(der []byte) (*wrapped, error) {
	all, err := elements(der)
	if err != nil {
		return nil, err
	}
	key := new(wrapped)
	var kind asn1.ObjectIdentifier
	if len(all) == 0 {
		return nil, errors.New("it is empty")
	}
	if rest, err := asn1.Unmarshal(all[0].FullBytes, &kind); err != nil || len(rest) > 0 {
		return nil, errors.New("it does not begin with a type")
	}
	if !kind.Equal(loadable) {
		return nil, fmt.Errorf("it is of the type %v, and not one that the TPM loads (%v)", kind, loadable)
	}
	all = all[1:]
	for ; len(all) > 0 && all[0].Class == asn1.ClassContextSpecific; all = all[1:] {
		switch tag := all[0].Tag; tag {
		case 0:
			key.emptyAuth, err = boolean(all[0].Bytes)
		case 4: // a description, for people
		case 5:
			key.rsaParent, err = boolean(all[0].Bytes)
		case 1, 3:
			err = errors.New("its use is bound to a policy, such as values of PCRs, which is not supported")
		default:
			err = fmt.Errorf("it has something of the tag %d, which is not known here", tag)
		}
		if err != nil {
			return nil, err
		}
	}
	var parent *big.Int
	var public, private []byte
	for i, into := range []any{&parent, &public, &private} {
		if len(all) != 3 {
			return nil, errors.New("it does not end with parent, public and private part")
		}
		if rest, err := asn1.Unmarshal(all[i].FullBytes, into); err != nil || len(rest) > 0 {
			return nil, errors.New("its parent, public or private part does not parse")
		}
	}
	if key.parent, err = parentHandle(parent); err != nil {
		return nil, err
	}
	if err := parseBlob(public, &key.public); err != nil {
		return nil, errors.New("its public part does not parse")
	}
	private2B, err := tpm2.Unmarshal[tpm2.TPM2BPrivate](private)
	if err != nil || len(private2B.Buffer)+2 != len(private) {
		return nil, errors.New("its private part does not parse")
	}
	key.private = *private2B
	return key, nil
}

// parseBlob reads a public area with its length, and nothing behind it.
func parseBlob(b []byte, into *tpm2.TPM2BPublic) error {
	public, err := tpm2.Unmarshal[tpm2.TPM2BPublic](b)
	if err != nil {
		return err
	}
	if len(public.Bytes())+2 != len(b) {
		return errors.New("its length is wrong")
	}
	*into = *public
	return nil
}

// parentHandle returns the parent to load a key under: a persistent one, or the hierarchy in which it is made.
func parentHandle(n *big.Int) (tpm2.TPMHandle, error) {
	// Some write the handle as a negative number.
	if n.Sign() < 0 && n.IsInt64() && n.Int64() >= -1<<31 {
		n = new(big.Int).Add(n, big.NewInt(1<<32))
	}
	if n.Sign() < 0 || n.BitLen() > 32 {
		return 0, errors.New("its parent is no handle of a TPM")
	}
	h := tpm2.TPMHandle(n.Uint64())
	if h != tpm2.TPMRHOwner && h != tpm2.TPMRHEndorsement && !persistent(h) {
		return 0, fmt.Errorf("its parent is %#x, and neither the owner's hierarchy (%#x), nor the endorsement's (%#x), nor persistent "+
			"(0x81...)", uint32(h), uint32(tpm2.TPMRHOwner), uint32(tpm2.TPMRHEndorsement))
	}
	return h, nil
}

// persistent reports whether a handle stays over a reset.
func persistent(h tpm2.TPMHandle) bool { return h>>24 == 0x81 }

// boolean reads a BOOLEAN inside of an explicit tag: anything but 0 is true.
func boolean(b []byte) (bool, error) {
	if len(b) != 3 || b[0] != asn1.TagBoolean || b[1] != 1 {
		return false, errors.New("a truth value of it does not parse")
	}
	return b[2] != 0, nil
}

// elements returns the elements of a SEQUENCE with nothing behind it.
func elements(der []byte) (all []asn1.RawValue, err error) {
	var outer asn1.RawValue
	rest, err := asn1.Unmarshal(der, &outer)
	if err != nil || len(rest) > 0 || outer.Class != asn1.ClassUniversal || outer.Tag != asn1.TagSequence {
		return nil, errors.New("it is not one SEQUENCE in DER")
	}
	const most = 16
	for b := outer.Bytes; len(b) > 0 && len(all) < most; {
		var e asn1.RawValue
		if b, err = asn1.Unmarshal(b, &e); err != nil {
			return nil, errors.New("an element of it does not parse")
		}
		all = append(all, e)
	}
	return all, nil
}
