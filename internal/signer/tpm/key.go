// Package tpm has the machine's key in a TPM 2.0, in Go alone: a key that is wrapped for it (TSS2 PEM), or one that it keeps
// at a persistent handle.
package tpm

import (
	"bytes"
	"context"
	"crypto"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/shared-altsd/shared-altsd/internal/signer/device"
)

// A Config says which key, and where.
type Config struct {
	// Device is the TPM's device, or the UNIX socket of an emulator.
	Device string
	// File is the content of a TSS2 PEM file; without one Handle is the key's persistent handle.
	File   []byte
	Handle uint32
	// Secret is the passphrase of the key, if it has one.
	Secret *device.Secret
}

// ParseHandle reads a persistent handle, 0x81000000 to 0x81ffffff.
func ParseHandle(s string) (uint32, error) {
	digits, ok := strings.CutPrefix(strings.ToLower(s), "0x")
	n, err := strconv.ParseUint(digits, 16, 32)
	if !ok || err != nil || !persistent(tpm2.TPMHandle(n)) {
		return 0, fmt.Errorf("%q is no persistent handle, such as 0x81000100 ('tpm2_getcap handles-persistent' lists them)", s)
	}
	return uint32(n), nil
}

// Open opens the key.
func Open(ctx context.Context, c Config) (*device.Key, error) {
	var w *wrapped
	if c.File != nil {
		var err error
		if w, err = parseFile(c.File); err != nil {
			return nil, device.Unfit("%v", err)
		}
	}
	return device.Open(ctx, func() (device.Opened, error) {
		bus, err := connect(c.Device)
		if err != nil {
			return nil, err
		}
		k := &key{bus: bus, wire: retrying{bus}, secret: c.Secret, handle: tpm2.TPMHandle(c.Handle)}
		if err := k.open(w); err != nil {
			k.Close()
			return nil, explain(err)
		}
		return k, nil
	})
}

// A key is one that is loaded.
type key struct {
	bus    *wire
	wire   transport.TPM
	secret *device.Secret
	handle tpm2.TPMHandle // persistent, or what has to be flushed
	name   tpm2.TPM2BName
	public tpm2.TPMTPublic
	key    crypto.PublicKey
	sign   scheme
	// What the passphrase's sessions are salted with, 0 for nothing.
	salt       tpm2.TPMHandle
	saltPublic tpm2.TPMTPublic
}

func (k *key) Public() crypto.PublicKey { return k.key }

func (k *key) Close() error {
	// A kernel's resource manager does this as well; the TPM by itself does not.
	for _, h := range []tpm2.TPMHandle{k.handle, k.salt} {
		if h != 0 && !persistent(h) {
			tpm2.FlushContext{FlushHandle: h}.Execute(k.wire) // as far as it is there
		}
	}
	return k.bus.Close()
}

// Sign makes a signature.
func (k *key) Sign(digest []byte, _ crypto.SignerOpts) ([]byte, error) {
	signature, err := k.sign(digest)
	return signature, explain(err)
}

// open loads the key, or finds it, and chooses its scheme.
func (k *key) open(w *wrapped) error {
	emptyAuth, err := k.load(w)
	if err != nil {
		return err
	}
	if !emptyAuth && k.secret.Given() && k.salt == 0 {
		// Without one that can be made, sessions are not salted.
		k.salt, k.saltPublic, _ = k.makePrimary(tpm2.TPMRHOwner, false)
	}
	// A file that does not say so may be that of a key without one all the same: tpm2_encodeobject's is.
	if emptyAuth {
		k.secret = device.NewSecret("")
	}
	if !k.secret.Given() {
		k.flushSalt()
	}
	return k.chooseScheme()
}

// load fills in handle, name and public area.
func (k *key) load(w *wrapped) (emptyAuth bool, err error) {
	if w == nil {
		found, err := tpm2.ReadPublic{ObjectHandle: k.handle}.Execute(k.wire)
		if errors.Is(err, tpm2.TPMRCHandle) {
			return false, fmt.Errorf("the TPM has no key at the handle %#x: 'tpm2_getcap handles-persistent' lists those that there are",
				uint32(k.handle))
		}
		if err != nil {
			return false, err
		}
		return false, k.take(found.OutPublic, found.Name)
	}
	parent := w.parent
	var name tpm2.TPM2BName
	if persistent(parent) {
		found, err := tpm2.ReadPublic{ObjectHandle: parent}.Execute(k.wire)
		if err != nil {
			return false, fmt.Errorf("the key's parent, at the persistent handle %#x: %w", uint32(parent), err)
		}
		public, err := found.OutPublic.Contents()
		if err != nil {
			return false, err
		}
		k.salt, k.saltPublic, name = parent, *public, found.Name
	} else {
		if k.salt, k.saltPublic, err = k.makePrimary(parent, w.rsaParent); err != nil {
			return false, fmt.Errorf("the key's parent: %w", err)
		}
		known, err := tpm2.ObjectName(&k.saltPublic)
		if err != nil {
			return false, err
		}
		name = *known
	}
	loaded, err := tpm2.Load{
		ParentHandle: tpm2.AuthHandle{Handle: k.salt, Name: name, Auth: tpm2.PasswordAuth(nil)},
		InPrivate:    w.private, InPublic: w.public,
	}.Execute(k.wire)
	if errors.Is(err, tpm2.TPMRCIntegrity) || errors.Is(err, tpm2.TPMRCBinding) {
		return false, device.Unfit("the key was made by another TPM, or before this one was cleared, or under another parent; " + anew)
	}
	if err != nil {
		return false, fmt.Errorf("the TPM does not load the key: %w", err)
	}
	k.handle = loaded.ObjectHandle
	return w.emptyAuth, k.take(w.public, loaded.Name)
}

// take keeps the key's public area, if its key is one that can sign statements.
func (k *key) take(blob tpm2.TPM2BPublic, name tpm2.TPM2BName) error {
	public, err := blob.Contents()
	if err != nil {
		return fmt.Errorf("the key's public part does not parse: %w", err)
	}
	k.public, k.name = *public, name
	k.key, err = publicKey(public)
	return err
}

// makePrimary makes the parent that OpenSSL's providers and tpm2-tools make for a hierarchy: the TCG's template for storage keys
// with nothing in its unique part, so that it is the same each time.
func (k *key) makePrimary(hierarchy tpm2.TPMHandle, ofRSA bool) (tpm2.TPMHandle, tpm2.TPMTPublic, error) {
	template := tpm2.ECCSRKTemplate
	template.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{})
	if ofRSA {
		template = tpm2.RSASRKTemplate
		template.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgRSA, &tpm2.TPM2BPublicKeyRSA{})
	}
	made, err := tpm2.CreatePrimary{
		PrimaryHandle: tpm2.AuthHandle{Handle: hierarchy, Auth: tpm2.PasswordAuth(nil)},
		InPublic:      tpm2.New2B(template),
	}.Execute(k.wire)
	if errors.Is(err, tpm2.TPMRCBadAuth) || errors.Is(err, tpm2.TPMRCAuthFail) {
		return 0, tpm2.TPMTPublic{}, errors.New("the hierarchy has a password of its own, which is not asked for here; make the key " +
			"under a persistent parent ('-pkeyopt parent:0x81000001'), or keep it at a handle")
	}
	if err != nil {
		return 0, tpm2.TPMTPublic{}, err
	}
	public, err := made.OutPublic.Contents()
	if err != nil {
		return made.ObjectHandle, tpm2.TPMTPublic{}, err
	}
	return made.ObjectHandle, *public, nil
}

// flushSalt lets go of the parent, of which a TPM holds few.
func (k *key) flushSalt() {
	if k.salt != 0 && !persistent(k.salt) {
		tpm2.FlushContext{FlushHandle: k.salt}.Execute(k.wire) // what stays ends with the device's closing
	}
	k.salt = 0
}

// authorized has use called with the authorization of the key: none, or a session of its own that proves the passphrase without
// showing it, and that nobody on the bus can turn to another command.
func (k *key) authorized(use func(tpm2.AuthHandle) error) error {
	auth := tpm2.AuthHandle{Handle: k.handle, Name: k.name, Auth: tpm2.PasswordAuth(nil)}
	if !k.secret.Given() {
		return k.secret.Without(func() (refused bool, err error) {
			err = use(auth)
			return refusedAuth(err), err
		})
	}
	return k.secret.Use(func(secret []byte) (refused bool, err error) {
		value := k.authValue(secret)
		defer clear(value)
		options := []tpm2.AuthOption{tpm2.Auth(value)}
		if k.salt != 0 {
			options = append(options, tpm2.Salted(k.salt, k.saltPublic))
		}
		auth.Auth = tpm2.HMAC(tpm2.TPMAlgSHA256, 16, options...)
		err = use(auth)
		return refusedAuth(err), err
	})
}

// authValue is what the TPM knows of a passphrase: of one that is longer than the digest of the key's name, its hash, as TCG's
// software stack and so all of its tools have it.
func (k *key) authValue(passphrase []byte) []byte {
	hash, err := k.public.NameAlg.Hash()
	if err != nil || len(passphrase) <= hash.Size() {
		return bytes.Clone(passphrase)
	}
	h := hash.New()
	h.Write(passphrase)
	return h.Sum(nil)
}
