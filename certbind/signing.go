package certbind

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// errWiped says that the key is in use no more.
var errWiped = errors.New("the machine's private key was wiped, since another one has taken its place")

// errForged says that the signer returned what peers would refuse.
var errForged = errors.New("the machine's private key does not sign for the certificate: the signature is not that of its key; " +
	"name the key that the certificate was made for, and see whether what holds it works")

// An attempt is what became of the last signature.
type attempt struct {
	err   error
	since time.Time // of the first that failed, if one failed after the other
}

// Failure returns why the key does not sign and since when, nil where the last signature was made, or none was asked for.
func (c *Credential) Failure() (since time.Time, err error) {
	if a := c.last.Load(); a != nil {
		return a.since, a.err
	}
	return time.Time{}, nil
}

// note keeps what became of a signature for Failure.
func (c *Credential) note(err error) {
	for {
		before := c.last.Load()
		now := &attempt{err: err}
		if err != nil {
			now.since = time.Now()
			if before != nil && before.err != nil {
				now.since = before.since
			}
		}
		if c.last.CompareAndSwap(before, now) {
			return
		}
	}
}

// Outside reports whether the key is outside of this process, so that its signatures take others' time.
func (c *Credential) Outside() bool { return !inMemory(c.Signer) }

// Sign returns a statement as it is signed, and the signature by the scheme that the key fixes (docs/spec/protocol.md, section
// 5.1), at most 512 bytes. What comes from the signer and is none of the certificate's key is an error.
func (c *Credential) Sign(ctx context.Context, s *Statement) (statement, signature []byte, err error) {
	if statement, err = s.Marshal(); err != nil {
		return nil, nil, err
	}
	signature, err = c.signed(statement, func(signer StatementSigner) ([]byte, error) { return signer.SignStatement(ctx, s) })
	return statement, signature, err
}

// Prove sees that the key signs: the empty statement, which says nothing.
func (c *Credential) Prove(ctx context.Context) error {
	_, err := c.signed(nil, func(signer StatementSigner) ([]byte, error) { return signer.Prove(ctx) })
	return err
}

func (c *Credential) signed(statement []byte, sign func(StatementSigner) ([]byte, error)) ([]byte, error) {
	if c.wiped.Load() {
		return nil, errWiped
	}
	signature, err := sign(c.Signer)
	if errors.Is(err, errWiped) {
		return nil, err
	}
	if err != nil {
		err = fmt.Errorf("the machine's private key does not sign: %w", err)
	} else if len(signature) > maxSignature || !validSignature(c.Leaf.PublicKey, statement, signature) {
		err = errForged
	}
	c.note(err)
	if err != nil {
		return nil, err
	}
	return signature, nil
}

// maxProofs bounds the signatures of prove that are waited for no more.
const maxProofs = 4

// prove sees that the key makes a signature within a time.
func (c *Credential) prove(limit time.Duration) error {
	// What hangs is not asked once more at each retry.
	if c.proofs.Add(1) > maxProofs {
		c.proofs.Add(-1)
		return errors.New("the machine's private key does not sign: earlier signatures are not there yet; " +
			"see whether what holds it works")
	}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	done := make(chan error, 1)
	go func() {
		defer cancel()
		err := c.Prove(ctx)
		c.proofs.Add(-1)
		done <- err
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	select {
	case err := <-done: // the context ends with the signature as well
		return err
	default:
		return fmt.Errorf("the machine's private key does not sign: there was no signature within %v; "+
			"see whether what holds it works", limit)
	}
}
