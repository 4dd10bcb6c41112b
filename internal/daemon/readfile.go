package daemon

import (
	"bytes"
	"fmt"
	"os"
	"syscall"

	"github.com/shared-altsd/shared-altsd/internal/safepath"
)

// Bounds on the files, bytes. Revocation lists of a large CA have millions of entries.
const (
	maxCredentialsSize = 1 << 20
	maxCASize          = 16 << 20
	maxCRLSize         = 64 << 20
)

// ReadConfigFile returns the content of a config file of at most max bytes: it names the files below, so that only root
// and the daemon may write it.
func ReadConfigFile(path string, max int64) ([]byte, error) {
	return readOwnFile(path, max, "could name other CAs")
}

// readTrustFile reads a file that decides whom this machine trusts.
func readTrustFile(path string, max int64) ([]byte, error) {
	return readOwnFile(path, max, "could add CAs or remove revocations")
}

// readOwnFile reads a file that only root and the daemon may write; harm is what others could do.
func readOwnFile(path string, max int64, harm string) ([]byte, error) {
	data, _, err := safepath.ReadOwn(path, max, harm)
	return data, err
}

// ReadKeyFile returns the content of a file with certificates, a private key or both. A file with a key is refused if
// everybody may read it, others may write it, or somebody else than root and the daemon owns it. Group read is how a
// key is lent to the daemon's own group; for any other group there is a warning.
func ReadKeyFile(path string) (data []byte, warning string, err error) {
	data, info, err := safepath.Read(path, maxCredentialsSize)
	if err != nil {
		return nil, "", err
	}
	mode, gid := info.Mode().Perm(), int(info.Sys().(*syscall.Stat_t).Gid)
	switch {
	case mode&0o002 != 0:
		err = fmt.Errorf("%s may be written by everybody (mode %04o): 'chmod go-w %s'", path, mode, path)
	case !bytes.Contains(data, []byte("PRIVATE KEY-----")): // as in every kind of PEM key
	case mode&0o004 != 0:
		err = fmt.Errorf("%s holds a private key and may be read by everybody (mode %04o), who could then speak for every "+
			"account of this machine: 'chmod 0600 %s', and think of a new key", path, mode, path)
	case mode&0o020 != 0:
		err = fmt.Errorf("%s holds a private key and may be written by its group (mode %04o): 'chmod g-w %s'", path, mode,
			path)
	case !safepath.Ours(info):
		err = fmt.Errorf("%s holds a private key and belongs to uid %d: 'chown root %s', or to the daemon's user", path,
			safepath.Owner(info), path)
	case mode&0o040 != 0 && gid != 0 && gid != os.Getegid():
		warning = fmt.Sprintf("%s holds a private key and may be read by group %d, which is not the daemon's own", path, gid)
	}
	if err != nil {
		clear(data)
		return nil, "", err
	}
	return data, warning, nil
}

// ReadCertificates returns the content of a file of certificates without a key, which only root and this account may write.
func ReadCertificates(path string) ([]byte, error) {
	return readOwnFile(path, maxCASize, "could name other places")
}
