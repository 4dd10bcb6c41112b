package device

import (
	"context"
	"crypto"
	"errors"
	"fmt"
)

// An Opened is a key in a device that is open. It is used by one goroutine at a time, and may block.
type Opened interface {
	Public() crypto.PublicKey
	// Sign is as that of a crypto.Signer. After an error the key is closed, and opened anew.
	Sign(digest []byte, opts crypto.SignerOpts) ([]byte, error)
	Close() error
}

// A Key is a signer.Key in a device that may go away and come back.
type Key struct {
	open   func() (Opened, error)
	public crypto.PublicKey
	turn   chan struct{} // has one element, which who uses the device takes out
	opened Opened        // nil where it has to be opened; with the turn
}

// An UnfitError says why a key can never sign as peers demand it: trying again mends nothing.
type UnfitError struct{ text string }

func (e *UnfitError) Error() string { return e.text }

// Unfit returns an UnfitError.
func Unfit(format string, args ...any) error { return &UnfitError{fmt.Sprintf(format, args...)} }

// errBusy is the end of who waited for a device that does not answer.
var errBusy = errors.New("the device still works on what was asked before: see whether it hangs (its log, the TPM's in dmesg); " +
	"'systemctl restart shared-altsd-signer' gives it up")

// Open opens the key and returns it. It may block, but ends with ctx. Later the key is opened anew by open whenever it was
// lost, and has to be the same one.
func Open(ctx context.Context, open func() (Opened, error)) (*Key, error) {
	k := &Key{open: open, turn: make(chan struct{}, 1)}
	k.turn <- struct{}{}
	err := k.inTurn(ctx, func() (err error) {
		if k.opened, err = open(); err == nil {
			k.public = k.opened.Public()
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return k, nil
}

// Public returns the public key.
func (k *Key) Public() crypto.PublicKey { return k.public }

// Sign is a signer.Key's. What the device has made is not verified here: a Signer does.
func (k *Key) Sign(ctx context.Context, digest []byte, opts crypto.SignerOpts) (signature []byte, err error) {
	made := make(chan []byte, 1)
	err = k.inTurn(ctx, func() error {
		s, err := k.sign(digest, opts)
		made <- s
		return err
	})
	if err != nil {
		return nil, err
	}
	return <-made, nil
}

// Close closes the device. It waits for no operation that hangs: the end of the process closes that.
func (k *Key) Close() error {
	select {
	case <-k.turn:
	default:
		return errBusy
	}
	defer func() { k.turn <- struct{}{} }()
	return k.drop()
}

// inTurn has do done once no other is, and waits for it no longer than ctx.
func (k *Key) inTurn(ctx context.Context, do func() error) error {
	select {
	case <-k.turn:
	case <-ctx.Done():
		return errBusy
	}
	done := make(chan error, 1)
	go func() {
		err := do()
		k.turn <- struct{}{}
		done <- err
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return errors.New("the device does not answer in time: see whether it is there and works")
	}
}

// sign is made once more, by a device opened anew, where it was open from before and fails: so a token that was pulled out
// and put back, or a TPM that was reset, costs no signature.
func (k *Key) sign(digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	again := k.opened != nil
	for {
		signature, err := k.signOnce(digest, opts)
		if err == nil {
			return signature, nil
		}
		k.drop() // what it says of its end tells nothing
		if !again {
			return nil, err
		}
		again = false
	}
}

func (k *Key) signOnce(digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	if k.opened == nil {
		opened, err := k.open()
		if err != nil {
			return nil, err
		}
		k.opened = opened
		if same, ok := k.public.(interface{ Equal(crypto.PublicKey) bool }); !ok || !same.Equal(opened.Public()) {
			return nil, errors.New("the device now has another key in the place of the one of the start: put the right one " +
				"back, or 'systemctl restart shared-altsd-signer' for the new one")
		}
	}
	return k.opened.Sign(digest, opts)
}

func (k *Key) drop() error {
	if k.opened == nil {
		return nil
	}
	opened := k.opened
	k.opened = nil
	return opened.Close()
}
