package main

import (
	"bytes"
	"context"
	"encoding/asn1"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/shared-altsd/shared-altsd/certbind"
	"github.com/shared-altsd/shared-altsd/internal/cli"
	"github.com/shared-altsd/shared-altsd/internal/safepath"
)

// Bounds on the files, bytes. Revocation lists of a large CA have millions of entries.
const (
	maxCredentialsSize = 1 << 20
	maxCASize          = 16 << 20
	maxCRLSize         = 64 << 20
)

// certFiles names all that is read from disk about certificates, with the policy that belongs to it.
type certFiles struct {
	credentials, key string
	cas              []caFile
	crls             []string
	machineName      string
	requireEKU       asn1.ObjectIdentifier
	allowDomain      bool
	crlStaleOK       bool
	// given is a PEM with key and chain that was handed over while the daemon ran, in the place of the first two.
	given []byte
}

// A caFile is one --ca: a file of CA certificates and the names that they may vouch for, none for any.
type caFile struct {
	names []string
	file  string // "system" for the system pool
}

// loaded is what the files hold, as one: it comes into force together or not at all.
type loaded struct {
	credential *certbind.Credential
	trust      *certbind.Trust
	name       string
	warnings   []string
}

// load reads everything. The certificate must prove name, if name is not empty: at a reload that is the name in force,
// so that a new certificate with more names changes nothing.
func (f *certFiles) load(name string) (*loaded, error) {
	l := &loaded{}
	if f.credentials == "" {
		return nil, cli.Usagef("--credentials is missing: give the PEM file with this machine's certificate chain and key " +
			"('shared-altsd dev-ca' makes one to try with)")
	}
	if len(f.cas) == 0 {
		return nil, cli.Usagef("--ca is missing: give the PEM file with the CA whose machines may talk to this one")
	}
	var err error
	if l.credential, err = f.loadCredential(l); err != nil {
		return nil, err
	}
	fqdn := ""
	if name == "" && len(l.credential.Leaf.DNSNames) > 1 {
		fqdn = hostFQDN()
	}
	if l.name, err = l.credential.MachineName(name, fqdn); err != nil {
		return nil, fmt.Errorf("%s: %w", f.credentials, withFlag(err))
	}
	if l.trust, err = f.loadTrust(); err != nil {
		return nil, err
	}
	return l, nil
}

func (f *certFiles) loadCredential(l *loaded) (*certbind.Credential, error) {
	if f.given != nil {
		c, err := certbind.ParseCredential(f.given, nil)
		return c, withFlag(err)
	}
	certPEM, warning, err := readKeyFile(f.credentials)
	if err != nil {
		return nil, fmt.Errorf("--credentials: %w", err)
	}
	defer clear(certPEM)
	l.warn(warning)
	var keyPEM []byte
	if f.key != "" {
		if keyPEM, warning, err = readKeyFile(f.key); err != nil {
			return nil, fmt.Errorf("--key: %w", err)
		}
		defer clear(keyPEM)
		l.warn(warning)
	}
	c, err := certbind.ParseCredential(certPEM, keyPEM)
	if err != nil && f.key != "" {
		return nil, fmt.Errorf("%s with --key %s: %w", f.credentials, f.key, err)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.credentials, withFlag(err))
	}
	return c, nil
}

func (f *certFiles) loadTrust() (*certbind.Trust, error) {
	config := certbind.TrustConfig{RequireEKU: f.requireEKU, AllowDomainAccounts: f.allowDomain, CRLStaleOK: f.crlStaleOK}
	for _, ca := range f.cas {
		c := certbind.CA{Names: ca.names, Source: ca.file, System: ca.file == "system"}
		if !c.System {
			var err error
			if c.PEM, err = readTrustFile(ca.file, maxCASize); err != nil {
				return nil, fmt.Errorf("--ca: %w", err)
			}
		}
		config.CAs = append(config.CAs, c)
	}
	for _, file := range f.crls {
		data, err := readTrustFile(file, maxCRLSize)
		if err != nil {
			return nil, fmt.Errorf("--crl: %w", err)
		}
		config.CRLs = append(config.CRLs, certbind.CRLFile{Data: data, Source: file})
	}
	t, err := certbind.NewTrust(config)
	return t, withFlag(err)
}

func (l *loaded) warn(warning string) {
	if warning != "" {
		l.warnings = append(l.warnings, warning)
	}
}

// state tells one state of the files from another without reading them: where each path leads, and what inode, size
// and times are there. It changes when a file is written, replaced, or reached by another symlink.
func (f *certFiles) state() string {
	paths := append([]string{f.credentials}, f.crls...)
	if f.key != "" {
		paths = append(paths, f.key)
	}
	for _, ca := range f.cas {
		if ca.file != "system" {
			paths = append(paths, ca.file)
		}
	}
	var b strings.Builder
	for _, path := range paths {
		real, err := filepath.EvalSymlinks(path)
		var st syscall.Stat_t
		if err == nil {
			err = syscall.Stat(real, &st)
		}
		fmt.Fprintf(&b, "%q %q %d %d %d %v %v %v\n", path, real, st.Dev, st.Ino, st.Size, st.Mtim, st.Ctim, err)
	}
	return b.String()
}

// readBounded reads a plain file of at most max bytes.
func readBounded(path string, max int64) ([]byte, error) {
	data, _, err := readPlain(path, max)
	return data, err
}

// readTrustFile reads a file that decides whom this machine trusts: only root and the daemon may write it.
func readTrustFile(path string, max int64) ([]byte, error) {
	data, info, err := readPlain(path, max)
	if err != nil {
		return nil, err
	}
	if info.Mode()&0o022 != 0 {
		return nil, fmt.Errorf("%s may be written by its group or everybody (mode %04o), who could add CAs or remove revocations: "+
			"'chmod go-w %s'", path, info.Mode().Perm(), path)
	}
	if !safepath.Ours(info) {
		return nil, fmt.Errorf("%s belongs to uid %d, who could add CAs or remove revocations: 'chown root %s', or to the "+
			"daemon's user", path, safepath.Owner(info), path)
	}
	return data, nil
}

// readKeyFile reads certificates, a private key or both. A file with a key is refused if everybody may read it, others
// may write it, or somebody else than root and the daemon owns it. Group read is how a key is lent to the daemon's own
// group; for any other group there is a warning.
func readKeyFile(path string) (data []byte, warning string, err error) {
	data, info, err := readPlain(path, maxCredentialsSize)
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

// readPlain reads a regular file of at most max bytes, and gives what it was when it was open.
func readPlain(path string, max int64) ([]byte, os.FileInfo, error) {
	// O_NONBLOCK, so that a FIFO does not hold the daemon up.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, fileError(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, nil, fmt.Errorf("%s is not a plain file", path)
	}
	data, err := io.ReadAll(io.LimitReader(f, max+1))
	if err != nil {
		return nil, nil, err
	}
	if int64(len(data)) > max {
		clear(data)
		return nil, nil, fmt.Errorf("%s has more than %d bytes: this is not the file that was meant", path, max)
	}
	return data, info, nil
}

// fileError adds the cure to the two errors that everybody meets.
func fileError(err error) error {
	switch {
	case errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("%w: give the right path, or make the file", err)
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("%w: let the daemon (uid %d) read it", err, os.Geteuid())
	}
	return err
}

// hostFQDN gives the host's name with its domain, as far as the host knows it without help from afar for long.
func hostFQDN() string {
	name, err := os.Hostname()
	if err != nil || strings.Contains(name, ".") {
		return name
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if full, err := net.DefaultResolver.LookupCNAME(ctx, name); err == nil {
		return strings.TrimSuffix(full, ".")
	}
	return name
}
