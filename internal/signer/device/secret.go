package device

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"sync"

	"github.com/shared-altsd/shared-altsd/internal/safepath"
)

// maxSecret is the longest PIN or passphrase in bytes.
const maxSecret = 256

// A Secret is the file with the PIN of a token or the passphrase of a key. It is read at each use, so that one that was
// wrong can be mended without a restart.
type Secret struct {
	path string

	mu      sync.Mutex
	refused [sha256.Size]byte // of the one that the device refused; zero for none
	without bool              // the device refused to do without
}

// NewSecret returns the secret in a file, and for no path one that is not there.
func NewSecret(path string) *Secret { return &Secret{path: path} }

// Given reports whether there is a file.
func (s *Secret) Given() bool { return s.path != "" }

// Use has try called with the secret, and wipes it. Where try says that the device refused it, it is not given to the device
// again before the file says another one: a device counts, and locks the key for good after a few.
func (s *Secret) Use(try func(secret []byte) (refused bool, err error)) error {
	secret, err := s.read()
	if err != nil {
		return err
	}
	defer clear(secret)
	sum := sha256.Sum256(secret)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.refused == sum {
		return fmt.Errorf("the device has refused what %s holds, and it is not tried again, since a few wrong ones lock the key: "+
			"write the right one into the file", s.path)
	}
	refused, err := try(secret)
	if refused {
		s.refused = sum
		return fmt.Errorf("the device refuses what %s holds: %w; write the right one into the file: until then it is not tried "+
			"again, since a few wrong ones lock the key", s.path, err)
	}
	return err
}

// Without has try called for a key that seems to have no secret; once the device has refused that, it is not tried again.
func (s *Secret) Without(try func() (refused bool, err error)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	const cure = "put it into a file that the signer alone can read, and name it by --pin-file, or give it to the unit by " +
		"LoadCredential=pin:FILE; then restart the signer"
	if s.without {
		return errors.New("the key has a passphrase: " + cure)
	}
	refused, err := try()
	if refused {
		s.without = true
		return fmt.Errorf("the key has a passphrase (%w): %s", err, cure)
	}
	return err
}

// read returns the file's content without the end of its line.
func (s *Secret) read() ([]byte, error) {
	if s.path == "" {
		return nil, errors.New("there is no PIN: put it into a file that the signer alone can read, and name it by --pin-file, or " +
			"give it to the unit by LoadCredential=pin:FILE")
	}
	content, info, err := safepath.ReadOwn(s.path, maxSecret+2, "could have the device lock the key")
	if err != nil {
		return nil, fmt.Errorf("the PIN's file: %w", err)
	}
	if mode := info.Mode(); mode&0o004 != 0 { // a group that may read it is how systemd lends it
		clear(content)
		return nil, fmt.Errorf("%s has a PIN and may be read by everybody (mode %04o): 'chmod 0400 %s', and think of a new PIN", s.path,
			mode.Perm(), s.path)
	}
	secret := bytes.TrimSuffix(bytes.TrimSuffix(content, []byte("\n")), []byte("\r"))
	if len(secret) == 0 || len(secret) > maxSecret || bytes.ContainsAny(secret, "\x00\n") {
		clear(content)
		return nil, fmt.Errorf("%s has no PIN in it: it has to be one line of 1 to %d bytes", s.path, maxSecret)
	}
	return secret, nil
}
