package signer

import (
	"context"
	"crypto"
	"crypto/rand"
	"fmt"

	"github.com/shared-altsd/shared-altsd/certbind"
	"github.com/shared-altsd/shared-altsd/internal/safepath"
)

// A fileKey is a key in a file: for tests, and as the example of a Key.
type fileKey struct{ crypto.Signer }

// OpenFile returns the key in a PEM file, which only root and this account may read and write; a group may read it.
func OpenFile(path string) (Key, error) {
	data, info, err := safepath.ReadOwn(path, maxFile, "could put another key there")
	if err != nil {
		return nil, err
	}
	defer clear(data)
	if info.Mode()&0o004 != 0 {
		return nil, fmt.Errorf("%s holds a private key and may be read by everybody (mode %04o): 'chmod 0600 %s', and think of a new key",
			path, info.Mode().Perm(), path)
	}
	key, err := certbind.ParseKey(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return fileKey{key}, nil
}

// Sign needs no time to speak of.
func (k fileKey) Sign(_ context.Context, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	return k.Signer.Sign(rand.Reader, digest, opts)
}

func (k fileKey) Close() error { return nil }
