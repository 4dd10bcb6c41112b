package daemon

import (
	"context"
	"encoding/asn1"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/shared-altsd/shared-altsd/certbind"
	"github.com/shared-altsd/shared-altsd/internal/cli"
	"github.com/shared-altsd/shared-altsd/internal/signer"
	"github.com/shared-altsd/shared-altsd/service"
)

// Files names all that is read from disk about certificates, with the rules that belong to it.
type Files struct {
	// Key is a file, or signer:PATH for a key that is not in this process.
	Credentials, Key    string
	CAs                 []CAFile
	CRLs                []CRLFile
	MachineName         string
	RequireEKU          asn1.ObjectIdentifier
	AllowDomainAccounts bool
	// AccountDomains are domains of directories, with which their accounts are named. They allow domains in names.
	AccountDomains []string
	CRLStaleOK     bool
	// Resolver is the socket of the companion that asks DNS about machines for which it vouches, "" for DefaultResolver.
	Resolver string
	// Policy is the directory of the rules by which accounts may talk to each other, "" for none: all may.
	Policy string
	// StateDir is where the daemon remembers how new the lists were, "" for nowhere.
	StateDir string
	// given is a PEM with key and chain that was handed over while the daemon ran, in the place of the first two.
	given []byte
	// signer has the key, nil until it was asked. What it said before is to do where sameKey is set.
	signer  *signer.Client
	sameKey bool
}

// A CAFile is a file of CA certificates, and the names that they may vouch for, none for any.
type CAFile struct {
	Names []string
	File  string // "system" for the system's pool, dnsVouches for DNS in the place of CAs
}

// A CRLFile is a file of revocation lists, or a directory of such files.
type CRLFile struct {
	File string
	// Dir says that it is a directory, to which somebody who is not trusted brings lists.
	Dir bool
	// Complete says that they have all revocations, whatever place they name as theirs.
	Complete bool
}

// loaded is what the files hold, as one: it comes into force together or not at all.
type loaded struct {
	credential *certbind.Credential
	trust      *certbind.Trust
	rules      *ruleSet // nil for none
	name       string
	warnings   []string
}

// load reads everything. running is the name in force at a reload, so that a new certificate with more names changes
// nothing, and empty before the start.
func (f *Files) load(running string) (_ *loaded, err error) {
	l := &loaded{}
	if f.Credentials == "" {
		return nil, cli.Usagef("--credentials is missing: give the PEM file with this machine's certificate chain and key " +
			"('shared-altsd dev-ca' makes one to try with)")
	}
	if len(f.CAs) == 0 {
		return nil, cli.Usagef("--ca is missing: give the PEM file with the CA whose machines may talk to this one")
	}
	if l.credential, err = f.loadCredential(l); err != nil {
		return nil, err
	}
	l.warnings = append(l.warnings, l.credential.Warnings...)
	defer func() {
		if err != nil {
			wipeCredential(l.credential)
		}
	}()
	if l.trust, err = f.loadTrust(); err != nil {
		return nil, err
	}
	if l.name, err = f.machineName(l.credential, l.trust, running); err != nil {
		return nil, fmt.Errorf("%s: %w", f.credentialSource(), err)
	}
	if l.rules, err = f.loadRules(); err != nil {
		return nil, err
	}
	return l, nil
}

// domainAccounts reports whether names of accounts, here and of peers, may have domains in them.
func (f *Files) domainAccounts() bool { return f.AllowDomainAccounts || len(f.AccountDomains) > 0 }

// accounts says how names of accounts are read.
func (f *Files) accounts(groups []string) service.AccountOptions {
	return service.AccountOptions{AllowDomainAccounts: f.domainAccounts(), Domains: f.AccountDomains, Groups: groups}
}

// machineName returns the name that a credential is used for.
func (f *Files) machineName(c *certbind.Credential, t *certbind.Trust, running string) (string, error) {
	if running != "" {
		err := c.Keeps(t, running)
		if err != nil && f.MachineName != "" {
			err = fmt.Errorf("%w, with another --machine-name", err)
		}
		return running, err
	}
	fqdn := ""
	if f.MachineName == "" && len(c.Leaf.DNSNames) > 1 {
		fqdn = hostFQDN()
	}
	name, err := c.MachineName(t, f.MachineName, fqdn)
	return name, withFlag(err)
}

// credentialSource returns where the credential came from, for an error.
func (f *Files) credentialSource() string {
	if f.given != nil {
		return "what was handed over"
	}
	return f.Credentials
}

func (f *Files) loadCredential(l *loaded) (*certbind.Credential, error) {
	if _, ok := f.signerPath(); ok {
		return f.loadCertificates(l)
	}
	if f.given != nil {
		c, err := certbind.ParseCredential(f.given, nil)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f.credentialSource(), withFlag(err))
		}
		return c, nil
	}
	certPEM, warning, err := ReadKeyFile(f.Credentials)
	if err != nil {
		return nil, fmt.Errorf("--credentials: %w", err)
	}
	defer clear(certPEM)
	l.warn(warning)
	var keyPEM []byte
	if f.Key != "" {
		if keyPEM, warning, err = ReadKeyFile(f.Key); err != nil {
			return nil, fmt.Errorf("--key: %w", err)
		}
		defer clear(keyPEM)
		l.warn(warning)
	}
	c, err := certbind.ParseCredential(certPEM, keyPEM)
	if err != nil && f.Key != "" {
		return nil, fmt.Errorf("%s with --key %s: %w", f.Credentials, f.Key, err)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.Credentials, withFlag(err))
	}
	return c, nil
}

func (f *Files) loadTrust() (*certbind.Trust, error) {
	config := certbind.TrustConfig{RequireEKU: f.RequireEKU, AllowDomainAccounts: f.domainAccounts(),
		CRLStaleOK: f.CRLStaleOK}
	for _, ca := range f.CAs {
		c := certbind.CA{Names: ca.Names, Source: ca.File, System: ca.File == "system", DANE: ca.File == dnsVouches}
		if !c.System && !c.DANE {
			var err error
			if c.PEM, err = readTrustFile(ca.File, maxCASize); err != nil {
				return nil, fmt.Errorf("--ca: %w", err)
			}
		}
		config.CAs = append(config.CAs, c)
	}
	for _, list := range f.CRLs {
		if list.Dir {
			continue // offer reads it, with what is in force
		}
		data, err := readTrustFile(list.File, maxCRLSize)
		if err != nil {
			return nil, fmt.Errorf("--crl: %w", err)
		}
		config.CRLs = append(config.CRLs, certbind.CRLFile{Data: data, Source: list.File, Complete: list.Complete})
	}
	t, err := certbind.NewTrust(config)
	return t, withFlag(err)
}

// wipeCredential zeroes a key that is in use no more; a variable for tests.
var wipeCredential = (*certbind.Credential).Wipe

func (l *loaded) warn(warning string) {
	if warning != "" {
		l.warnings = append(l.warnings, warning)
	}
}

// copied reports whether the credential is systemd's copy (LoadCredential=), which does not change.
func (f *Files) copied() bool {
	dir := os.Getenv("CREDENTIALS_DIRECTORY")
	return dir != "" && filepath.Dir(f.Credentials) == filepath.Clean(dir)
}

// listFiles returns the paths of the revocation lists, without those of directories.
func (f *Files) listFiles() (paths []string) {
	for _, list := range f.CRLs {
		if !list.Dir {
			paths = append(paths, list.File)
		}
	}
	return paths
}

// A filesState tells one state of the files from another, those of the credential apart from those of the trust and the
// rules. The directories of lists are not in it: whose they are could keep them from ever being at rest.
type filesState struct{ credential, trust, config string }

// state returns that of now.
func (f *Files) state() filesState {
	credential := []string{f.Credentials}
	if _, elsewhere := f.signerPath(); f.Key != "" && !elsewhere {
		credential = append(credential, f.Key)
	}
	trust := f.listFiles()
	for _, ca := range f.CAs {
		if ca.File != "system" && ca.File != dnsVouches {
			trust = append(trust, ca.File)
		}
	}
	s := filesState{credential: pathsState(credential), trust: pathsState(trust)}
	if f.Policy != "" {
		s.trust += rulesState(f.Policy)
	}
	return s
}

// pathsState returns what tells one state of files from another without reading them: where each path leads, and what
// inode, size and times are there. It changes when a file is written, replaced, or reached by another symlink.
func pathsState(paths []string) string {
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

// hostFQDN returns the host's name with its domain, as far as the host knows it without help from afar for long.
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

// Trust returns what CAs and lists the files hold, for a command that has no credential.
func (f *Files) Trust() (*certbind.Trust, error) {
	if len(f.CAs) == 0 {
		return nil, cli.Usagef("--ca is missing: give the PEM file with the CA whose lists are to come")
	}
	return f.loadTrust()
}
