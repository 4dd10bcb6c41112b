package certbind

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"sync"
)

// A StatementSigner signs statements with the machine's private key, wherever that is: P-256, P-384, Ed25519, or RSA of
// 2048 to 4096 bits. It is told fields and not bytes, so that one outside of this process need not sign whatever this
// process says. It may be slow, signs several at a time, and ends soon after the context. What it returns is verified
// before it is used.
type StatementSigner interface {
	// Public returns the public key, which never changes.
	Public() crypto.PublicKey
	// SignStatement returns the signature over a statement (docs/spec/protocol.md, section 5.1).
	SignStatement(ctx context.Context, s *Statement) ([]byte, error)
	// Prove returns one over the empty statement, which says nothing, to show that the key signs.
	Prove(ctx context.Context) ([]byte, error)
}

// A keySigner is a key that signs what this process says: most often one of this process's own memory.
type keySigner struct {
	mu  sync.RWMutex // held to sign, and to wipe what signs
	key crypto.Signer
}

// SignerOf returns a StatementSigner of a key. Whatever hangs in the key's Sign does not end with the context.
func SignerOf(key crypto.Signer) StatementSigner { return &keySigner{key: key} }

func (s *keySigner) Public() crypto.PublicKey { return s.key.Public() }

func (s *keySigner) SignStatement(_ context.Context, st *Statement) ([]byte, error) {
	statement, err := st.Marshal()
	if err != nil {
		return nil, err
	}
	return s.sign(statement)
}

func (s *keySigner) Prove(context.Context) ([]byte, error) { return s.sign(nil) }

func (s *keySigner) sign(statement []byte) ([]byte, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.key == nil {
		return nil, errWiped
	}
	return SignBy(s.key.Public(), statement, func(digest []byte, opts crypto.SignerOpts) ([]byte, error) {
		return s.key.Sign(rand.Reader, digest, opts)
	})
}

// wipe zeroes the key. A signature that is being made is not waited for: the key is wiped right after it.
func (s *keySigner) wipe() {
	do := func() {
		defer s.mu.Unlock()
		wipeKey(s.key)
		s.key = nil
	}
	if s.mu.TryLock() {
		do()
		return
	}
	go func() {
		s.mu.Lock()
		do()
	}()
}

// inMemory reports whether signing takes this process's processor, and not a device's time.
func inMemory(s StatementSigner) bool {
	k, ok := s.(*keySigner)
	if !ok {
		return false
	}
	k.mu.RLock()
	defer k.mu.RUnlock()
	switch k.key.(type) {
	case *ecdsa.PrivateKey, ed25519.PrivateKey, *rsa.PrivateKey:
		return true
	}
	return false
}

// AcceptableKey reports why no peer accepts a machine's public key (docs/spec/protocol.md, section 5.1).
func AcceptableKey(key crypto.PublicKey) error { return acceptableKey(key, maxLeafRSABits) }

// ValidSignature reports whether a signature over a statement is that of the key.
func ValidSignature(key crypto.PublicKey, statement, signature []byte) bool {
	return validSignature(key, statement, signature)
}

// MachineNames returns the names under which a machine can go by a certificate: its DNS names that can name one; or, where it has
// no alternative name of any kind, its only common name, which counts where DNS vouches for the machine.
func MachineNames(cert *x509.Certificate) []string {
	if cn := commonName(cert); cn != "" {
		return []string{cn}
	}
	return machineNames(cert)
}

// ValidNames reports why no peer accepts machine, account and attributes of a statement. Of account and group names that hold
// '@' or '\' some peers do.
func (s *Statement) ValidNames() error {
	if err := ValidMachineName(s.Machine); err != nil {
		return err
	}
	if err := ValidAccount(s.Account, true); err != nil {
		return err
	}
	return validAttributes(s.Attributes, true)
}
